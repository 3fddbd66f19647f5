"""The files of an artifact and their names, from its manifest and, for some kinds, its config.

The tree (`files/`) and `export` call `payload_files`. file_names.py has the rules for names.

Rules that hold here:

- Pure. No blob is read; the config is a parameter.
- Names are the publisher's text: not safe as paths, and not unique. ocifs/filenames.py makes them
  safe.
- The empty descriptor is not a file, unless it has a title.
- A config that is not valid JSON is not an error: the names that need it are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import load_json
from ocifs.oci.kinds.artifact import is_image_config
from ocifs.oci.kinds.children import blob_children
from ocifs.oci.kinds.classification import Classification
from ocifs.oci.kinds.extensions import extension_of
from ocifs.oci.kinds.file_names import MODEL_PATHS, layer_names, path_key
from ocifs.oci.kinds.kind import TITLE, ArtifactKind, matches_any
from ocifs.oci.manifest import Form, Manifest

# ORAS packs a directory into a tar, and records that in these annotations of the layer.
_UNPACK = "io.deis.oras.content.unpack"
_PLAIN_DIGEST = "io.deis.oras.content.digest"
# ModelPack records the attributes of the packed file in this annotation (model-spec, annotations).
_MEMBER = ("org.cncf.model.file.metadata+json", "org.cnai.model.file.metadata+json")
_LONGEST_MEMBER = 4096
_REGULAR = (48, "0", "", 0)


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file of the payload: a blob, several blobs joined, or the text of an annotation.

    `path`: the publisher's text. `unpack`: an archive that is shown as a directory of that path.
    `member_size`: the archive has one file, of this size, and is shown as that file.
    """

    path: str
    parts: tuple[Descriptor, ...]
    unpack: bool = False
    text: str = ""
    member_size: int = UNKNOWN_SIZE

    @property
    def size(self) -> int:
        """The size of the file or archive; UNKNOWN_SIZE if the manifest does not contain it."""
        if not self.parts:
            # JSON may contain lone surrogates, which strict UTF-8 rejects.
            return len(self.text.encode(errors="surrogatepass"))
        sizes = [part.size for part in self.parts]
        return UNKNOWN_SIZE if UNKNOWN_SIZE in sizes else sum(sizes)

    @property
    def is_directory(self) -> bool:
        """Whether it is shown as a directory: an archive that is not known to have one file."""
        return self.unpack and self.member_size == UNKNOWN_SIZE

    @property
    def uncompressed_digest(self) -> Digest | None:
        """The digest of the uncompressed archive, if the publisher recorded it."""
        try:
            return Digest.parse(self.parts[0].annotations[_PLAIN_DIGEST])
        except (IndexError, KeyError, Malformed):
            return None


def needs_config(classification: Classification) -> bool:
    """Whether `payload_files` needs the config blob to compute names."""
    return classification.row.reads_config


def payload_files(
    manifest: Manifest, classification: Classification, config: bytes | None = None
) -> tuple[PayloadFile, ...]:
    """The payload: files of layers in order, then the config, then texts of annotations.

    `config`: the config blob, if `needs_config`. Without it, other names are used. An index has
    files only if its children are blobs.
    """
    kind = classification.row
    layers = blob_children(manifest) if manifest.form is Form.INDEX else manifest.layers
    numbered = [
        (n, layer)
        for n, layer in enumerate(layers)
        # With a title, `{}` is a file and not a placeholder.
        if not layer.is_empty or layer.annotations.get(TITLE) or layer.name
    ]
    names = layer_names(
        kind, _load(config), manifest.annotations, numbered, classification.artifact_type
    )
    files = list(_joined(kind, _layer_files(kind, numbered, names)))
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
    kind: ArtifactKind, layers: Sequence[tuple[int, Descriptor]], names: Sequence[str]
) -> Iterator[PayloadFile]:
    """The files of each layer.

    If several layers have annotation files, each layer has a directory that is named by its number.
    """
    # With suffixes, the certificate of one signature could appear beside another (decision 0043).
    separate = (
        bool(kind.layer_annotation_files)
        and sum(matches_any(kind.layer_types, layer.media_type) for _, layer in layers) > 1
    )
    for (n, layer), name in zip(layers, names, strict=True):
        directory = f"{n}/" if separate else ""
        yield _layer_file(layer, directory + name)
        for key, text_name in kind.layer_annotation_files:
            if layer.annotations.get(key):
                yield PayloadFile(directory + text_name, (), text=layer.annotations[key])


def _layer_file(layer: Descriptor, name: str) -> PayloadFile:
    key = path_key(layer)
    if not key:
        unpack = name.endswith("/") or _unpacks(layer)
        return PayloadFile(name.removesuffix("/"), (layer,), unpack)
    # In ModelPack, a tar contains the path, and a raw layer is the file itself.
    packed = key in MODEL_PATHS and ".tar" in mediatype.essence(layer.media_type)
    member_size = _member_size(layer) if packed else UNKNOWN_SIZE
    return PayloadFile(name, (layer,), packed or _unpacks(layer), member_size=member_size)


def _member_size(layer: Descriptor) -> int:
    """The size of the only file in the archive, if it is recorded; else UNKNOWN_SIZE."""
    text = next((layer.annotations[key] for key in _MEMBER if layer.annotations.get(key)), "")
    if not text or len(text) > _LONGEST_MEMBER:
        return UNKNOWN_SIZE
    members = _load(text.encode(errors="replace"))
    size, kind = members.get("size"), members.get("typeflag", 0)
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63
    return size if isinstance(size, int) and is_size and kind in _REGULAR else UNKNOWN_SIZE


def _joined(kind: ArtifactKind, files: Iterable[PayloadFile]) -> Iterator[PayloadFile]:
    """The files, with the parts of each split file joined at the position of its first part."""
    unjoined = list(files)
    parts: dict[str, list[Descriptor]] = {}
    for file in unjoined:
        if _is_part(kind, file):
            parts.setdefault(file.path, []).extend(file.parts)
    for file in unjoined:
        if not _is_part(kind, file):
            yield file
        elif file.path in parts:
            pieces = parts.pop(file.path)
            yield PayloadFile(file.path, tuple(sorted(pieces, key=_part_number(kind))))


def _is_part(kind: ArtifactKind, file: PayloadFile) -> bool:
    return bool(file.parts) and matches_any(kind.joined_types, file.parts[0].media_type)


def _part_number(kind: ArtifactKind) -> Callable[[Descriptor], int]:
    def number(part: Descriptor) -> int:
        text = part.annotations.get(kind.part_number, "")
        # Parts without a number stay in the order of the layers, since sorting is stable.
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0

    return number


def _unpacks(layer: Descriptor) -> bool:
    return layer.annotations.get(_UNPACK, "").lower() == "true"


def _config_file(manifest: Manifest, kind: ArtifactKind, alone: bool) -> PayloadFile | None:
    """The config as a file: if the kind names it, if it has a title, or if it is the only file."""
    config = manifest.config
    if config is None or config.is_empty or config.size == 0:
        return None
    usual = "" if is_image_config(config.media_type) else kind.config_file
    title = config.annotations.get(TITLE, "")
    # Gadgets repeat the title of the whole artifact here.
    name = usual if usual and title == manifest.annotations.get(TITLE) else title or usual
    if not name and alone and kind.name == "artifact":
        name = "config" + extension_of(config.media_type)
    return PayloadFile(name, (config,)) if name else None
