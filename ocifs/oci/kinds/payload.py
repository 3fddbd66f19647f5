"""The files of an artifact under the names that a person wants, from its manifest and, for some
kinds, its config.

A layer's name comes from the first of: its title, its path in a Compose project or a model, what it
is to Tekton, the custom of the artifact's kind (`payload_names.py` where the name has to be put
together, else the table's `names`), its `ref.name`, and last `layer-N` with the extension that its
media type says, or its first bytes where the manifest carries them.

Rules that hold here: pure; names are given as the publisher wrote them and are not safe as paths:
ocifs/tree/names.py makes them so, also those that repeat; the empty descriptor is no file, unless
it has a title; a config that is no JSON is no reason to fail, its names are only not known; nothing
needs a blob to be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import load_json
from ocifs.oci.kinds.artifact import Classification, is_image_config
from ocifs.oci.kinds.children import blob_children
from ocifs.oci.kinds.extensions import HEAD_SIZE, extension_of
from ocifs.oci.kinds.kind import TITLE, ArtifactKind, matches_any, matching_annotation
from ocifs.oci.kinds.payload_names import NAME_FUNCTIONS
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.oci.manifest import Form, Manifest

_UNPACK = "io.deis.oras.content.unpack"
_PLAIN_DIGEST = "io.deis.oras.content.digest"
_REF_NAME = "org.opencontainers.image.ref.name"
_MODEL_PATH = "org.cncf.model.filepath"
_PATHS = (TITLE, "com.docker.compose.file", "com.docker.compose.envfile", _MODEL_PATH)


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file of the payload: one blob, several that are one file together, or (`text`) what an
    annotation says.

    `path` is the publisher's text; `unpack`: an archive that is to be shown as a directory of that
    path.
    """

    path: str
    parts: tuple[Descriptor, ...]
    unpack: bool = False
    text: str = ""

    @property
    def size(self) -> int:
        """Of the file, or of the archive; UNKNOWN_SIZE where the manifest does not say."""
        if not self.parts:
            return len(self.text.encode(errors="surrogatepass"))
        sizes = [part.size for part in self.parts]
        return UNKNOWN_SIZE if UNKNOWN_SIZE in sizes else sum(sizes)

    @property
    def plain_digest(self) -> Digest | None:
        """The digest of the archive without its compression, where the publisher wrote it down."""
        try:
            return Digest.parse(self.parts[0].annotations[_PLAIN_DIGEST])
        except (IndexError, KeyError, Malformed):
            return None


def wants_config(classification: Classification) -> bool:
    """Whether `payload_files` needs the config blob to give the names."""
    kind = KINDS_BY_NAME.get(classification.kind)
    return kind is not None and kind.reads_config


def payload_files(
    manifest: Manifest, classification: Classification, config: bytes | None = None
) -> tuple[PayloadFile, ...]:
    """The payload in the manifest's order, the config (where it is payload) and what annotations
    say last.

    `config` is the config blob where `wants_config` says so; without it names fall back. An index
    has files where its children are blobs.
    """
    kind = KINDS_BY_NAME.get(classification.kind) or ArtifactKind(classification.kind, "")
    layers = manifest.layers
    if manifest.form is Form.INDEX:
        layers = blob_children(manifest)
    files = list(_joined(kind, _layer_files(kind, _load(config), layers)))
    own = _config_file(manifest, kind, not files)
    files += [] if own is None else [own]
    texts = ((name, manifest.annotations.get(key, "")) for key, name in kind.annotation_files)
    return (*files, *(PayloadFile(name, (), text=text) for name, text in texts if text))


def _load(config: bytes | None) -> dict[str, object]:
    if not config:
        return {}
    try:
        members = load_json(config, "the config")
    except Malformed:
        return {}
    return members if isinstance(members, dict) else {}


def _layer_files(
    kind: ArtifactKind, config: dict[str, object], layers: tuple[Descriptor, ...]
) -> Iterator[PayloadFile]:
    """The files of each layer.

    Where several have texts beside them, each has a directory of its number, so that none is mixed
    up.
    """
    counts: dict[str, int] = {}
    apart = (
        bool(kind.layer_annotation_files)
        and sum(matches_any(kind.layer_types, layer.media_type) for layer in layers) > 1
    )
    for n, layer in enumerate(layers):
        if layer.is_empty and not layer.annotations.get(
            TITLE
        ):  # who gives `{}` a name means a file
            continue
        place = f"{n}/" if apart else ""
        custom = _numbered(_custom(kind, config, layer), counts)
        file = _layer_file(custom, n, layer)
        yield PayloadFile(place + file.path, file.parts, file.unpack)
        for key, name in kind.layer_annotation_files:
            if layer.annotations.get(key):
                yield PayloadFile(place + name, (), text=layer.annotations[key])


def _layer_file(custom: str, n: int, layer: Descriptor) -> PayloadFile:
    key = next((key for key in _PATHS if layer.annotations.get(key)), "")
    if key:
        # ModelPack's tars hold what their path names; its raw layers are that file.
        packed = key == _MODEL_PATH and ".tar" in mediatype.essence(layer.media_type)
        return PayloadFile(layer.annotations[key], (layer,), packed or _unpacks(layer))
    tekton = _tekton(layer)
    if tekton:
        return PayloadFile(tekton, (layer,), unpack=True)
    if custom:
        return PayloadFile(
            custom.removesuffix("/"), (layer,), custom.endswith("/") or _unpacks(layer)
        )
    head = (layer.embedded or b"")[:HEAD_SIZE]
    name = layer.annotations.get(_REF_NAME) or f"layer-{n}{extension_of(layer.media_type, head)}"
    return PayloadFile(name, (layer,), _unpacks(layer))


def _joined(kind: ArtifactKind, files: Iterable[PayloadFile]) -> Iterator[PayloadFile]:
    """The files, those that are pieces of one made one, where the first of them stood."""
    whole = list(files)
    pieces = [
        file
        for file in whole
        if kind.joined_types
        and file.parts
        and matches_any(kind.joined_types, file.parts[0].media_type)
    ]
    for file in whole:
        if not pieces or file not in pieces:
            yield file
        elif file is pieces[0]:
            yield PayloadFile(file.path, tuple(part for piece in pieces for part in piece.parts))


def _unpacks(layer: Descriptor) -> bool:
    return layer.annotations.get(_UNPACK, "").lower() == "true"


def _tekton(layer: Descriptor) -> str:
    """Tekton's bundles hold one resource a layer, as the only file of a tar (tekton docs,
    tekton-bundle-contracts.md).
    """
    kind, name = (
        layer.annotations.get(f"dev.tekton.image.{part}", "") for part in ("kind", "name")
    )
    return f"{kind.lower()}/{name}" if kind and name else ""


def _numbered(name: str, counts: dict[str, int]) -> str:
    if "{n}" not in name:
        return name
    number = counts.get(name, 0)
    counts[name] = number + 1
    return name.replace("{n}", f"{number:03}")


def _custom(kind: ArtifactKind, config: dict[str, object], layer: Descriptor) -> str:
    maker = NAME_FUNCTIONS.get(kind.name)
    made = maker(config, layer) if maker is not None else ""
    if made:
        return made
    for pattern, name in kind.file_names:
        if matches_any((pattern,), layer.media_type) or matching_annotation(
            (pattern,), layer.annotations
        ):
            return name
    return ""


def _config_file(manifest: Manifest, kind: ArtifactKind, alone: bool) -> PayloadFile | None:
    """The config as a file: where it has a title, where the kind says so, and where an artifact has
    nothing else.
    """
    config = manifest.config
    if config is None or config.is_empty or config.size == 0:
        return None
    name = config.annotations.get(TITLE, "")
    if not name and not is_image_config(config.media_type):
        name = kind.config_file
    if not name and alone and kind.name == "artifact":
        name = "config" + extension_of(config.media_type)
    return PayloadFile(name, (config,)) if name else None
