"""The files of an artifact and their names, from its manifest and, for some kinds, its config.

The tree (`files/`) and `export` call `payload_files`. A layer's name is the first of these:

1. its title, or its path in a Compose project or a model
2. the kind and name of a Tekton resource
3. a name computed for this kind of artifact (payload_names.py)
4. the name in the table for its type or annotation (`ArtifactKind.file_names`)
5. its `ref.name`
6. `layer-N`, with an extension from its media type, or from its first bytes if they are embedded in
   the manifest

Rules that hold here:

- Pure. No blob is read; the config is a parameter.
- Names are the publisher's text: not safe as paths, and not unique. ocifs/filenames.py makes them
  safe.
- The empty descriptor is not a file, unless it has a title.
- A config that is not valid JSON is not an error: the names that need it are skipped.
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

# ORAS packs a directory into a tar, and records that in these annotations of the layer.
_UNPACK = "io.deis.oras.content.unpack"
_PLAIN_DIGEST = "io.deis.oras.content.digest"
_REF_NAME = "org.opencontainers.image.ref.name"
_MODEL_PATH = "org.cncf.model.filepath"
_PATHS = (TITLE, "com.docker.compose.file", "com.docker.compose.envfile", _MODEL_PATH)


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file of the payload: a blob, several blobs joined, or the text of an annotation.

    `path`: the publisher's text. `unpack`: an archive that is shown as a directory of that path.
    """

    path: str
    parts: tuple[Descriptor, ...]
    unpack: bool = False
    text: str = ""

    @property
    def size(self) -> int:
        """The size of the file or archive; UNKNOWN_SIZE if the manifest does not contain it."""
        if not self.parts:
            # JSON may contain lone surrogates, which strict UTF-8 rejects.
            return len(self.text.encode(errors="surrogatepass"))
        sizes = [part.size for part in self.parts]
        return UNKNOWN_SIZE if UNKNOWN_SIZE in sizes else sum(sizes)

    @property
    def uncompressed_digest(self) -> Digest | None:
        """The digest of the uncompressed archive, if the publisher recorded it."""
        try:
            return Digest.parse(self.parts[0].annotations[_PLAIN_DIGEST])
        except (IndexError, KeyError, Malformed):
            return None


def needs_config(classification: Classification) -> bool:
    """Whether `payload_files` needs the config blob to compute names."""
    kind = KINDS_BY_NAME.get(classification.kind)
    return kind is not None and kind.reads_config


def payload_files(
    manifest: Manifest, classification: Classification, config: bytes | None = None
) -> tuple[PayloadFile, ...]:
    """The payload: files of layers in order, then the config, then texts of annotations.

    `config`: the config blob, if `needs_config`. Without it, other names are used. An index has
    files only if its children are blobs.
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

    If several layers have annotation files, each layer has a directory that is named by its number.
    """
    counts: dict[str, int] = {}
    # With suffixes, the certificate of one signature could appear beside another (decision 0043).
    separate = (
        bool(kind.layer_annotation_files)
        and sum(matches_any(kind.layer_types, layer.media_type) for layer in layers) > 1
    )
    for n, layer in enumerate(layers):
        # With a title, `{}` is a file and not a placeholder.
        if layer.is_empty and not layer.annotations.get(TITLE):
            continue
        directory = f"{n}/" if separate else ""
        usual_name = _numbered(_usual_name(kind, config, layer), counts)
        file = _layer_file(usual_name, n, layer)
        yield PayloadFile(directory + file.path, file.parts, file.unpack)
        for key, name in kind.layer_annotation_files:
            if layer.annotations.get(key):
                yield PayloadFile(directory + name, (), text=layer.annotations[key])


def _layer_file(usual_name: str, n: int, layer: Descriptor) -> PayloadFile:
    # A path that the publisher wrote has precedence over all names of the table.
    key = next((key for key in _PATHS if layer.annotations.get(key)), "")
    if key:
        # In ModelPack, a tar contains the path, and a raw layer is the file itself.
        packed = key == _MODEL_PATH and ".tar" in mediatype.essence(layer.media_type)
        return PayloadFile(layer.annotations[key], (layer,), packed or _unpacks(layer))
    tekton = _tekton(layer)
    if tekton:
        # As a file, a listing would need the size of the resource, and the layer (decision 0043).
        return PayloadFile(tekton, (layer,), unpack=True)
    if usual_name:
        unpack = usual_name.endswith("/") or _unpacks(layer)
        return PayloadFile(usual_name.removesuffix("/"), (layer,), unpack)
    # The first bytes are not fetched: a listing would cost one request per layer (decision 0043).
    head = (layer.embedded or b"")[:HEAD_SIZE]
    name = layer.annotations.get(_REF_NAME) or f"layer-{n}{extension_of(layer.media_type, head)}"
    return PayloadFile(name, (layer,), _unpacks(layer))


def _joined(kind: ArtifactKind, files: Iterable[PayloadFile]) -> Iterator[PayloadFile]:
    """The files, with the parts of a split file joined at the position of the first part."""
    unjoined = list(files)
    pieces = [
        file
        for file in unjoined
        if file.parts and matches_any(kind.joined_types, file.parts[0].media_type)
    ]
    for file in unjoined:
        if not pieces or file not in pieces:
            yield file
        elif file is pieces[0]:
            yield PayloadFile(file.path, tuple(part for piece in pieces for part in piece.parts))


def _unpacks(layer: Descriptor) -> bool:
    return layer.annotations.get(_UNPACK, "").lower() == "true"


def _tekton(layer: Descriptor) -> str:
    """The kind and name of a Tekton resource.

    Each layer of a bundle is a tar with one resource (tekton docs, tekton-bundle-contracts.md).
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
    # Three digits, so that a glob lists the pieces in order (decision 0043).
    return name.replace("{n}", f"{number:03}")


def _usual_name(kind: ArtifactKind, config: dict[str, object], layer: Descriptor) -> str:
    """The name that is usual for this layer of this kind of artifact, or ""."""
    compute = NAME_FUNCTIONS.get(kind.name)
    computed = compute(config, layer) if compute is not None else ""
    if computed:
        return computed
    for pattern, name in kind.file_names:
        if matches_any((pattern,), layer.media_type) or matching_annotation(
            (pattern,), layer.annotations
        ):
            return name
    return ""


def _config_file(manifest: Manifest, kind: ArtifactKind, alone: bool) -> PayloadFile | None:
    """The config as a file: if it has a title, if the kind names it, or if it is the only file."""
    config = manifest.config
    if config is None or config.is_empty or config.size == 0:
        return None
    name = config.annotations.get(TITLE, "")
    if not name and not is_image_config(config.media_type):
        name = kind.config_file
    if not name and alone and kind.name == "artifact":
        name = "config" + extension_of(config.media_type)
    return PayloadFile(name, (config,)) if name else None
