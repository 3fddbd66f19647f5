"""The files of an artifact under the names that a person wants, from its manifest and, for some kinds, its config.

A layer's name comes from the first of: its title, its path in a Compose project or a model, what it is to Tekton, the custom of the
artifact's kind (the table's `names`, or a function here where the name has to be put together), its `ref.name`, and last `layer-N` with
the extension that its media type or its first bytes say.

Rules that hold here: pure; names are given as the publisher wrote them and are not safe as paths: ocifs/tree/names.py makes them so, also
those that repeat; the empty descriptor is no file, unless it has a title; a config that is no JSON is no reason to fail, its names are
only not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.artifact import Classification, is_image_config
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds import TITLE, Kind, matches_any, matching_annotation
from ocifs.oci.kinds_table import BY_WORD
from ocifs.oci.manifest import Manifest, load_json

_UNPACK = "io.deis.oras.content.unpack"
_PLAIN_DIGEST = "io.deis.oras.content.digest"
_REF_NAME = "org.opencontainers.image.ref.name"
_PATHS = (TITLE, "com.docker.compose.file", "com.docker.compose.envfile", "org.cncf.model.filepath")
_PREDICATES = ("in-toto.io/predicate-type", "predicateType")
_SOCI_LAYER = "com.amazon.soci.image-layer-digest"
_STARGZ_LAYER = "containerd.io/snapshot/stargz/layer.digest"
_NO_HEADS: Mapping[Digest, bytes] = MappingProxyType({})

HEAD_SIZE = 512
"""How many first bytes of a blob `extension_of` can use: a tar says what it is at offset 257."""


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file of the payload. `path` is the publisher's text; `unpack`: an archive that is to be shown as a directory of that path."""

    path: str
    descriptor: Descriptor
    unpack: bool = False

    @property
    def plain_digest(self) -> Digest | None:
        """The digest of the archive without its compression, where the publisher wrote it down."""
        try:
            return Digest.parse(self.descriptor.annotations[_PLAIN_DIGEST])
        except (KeyError, Malformed):
            return None


def wants_config(classification: Classification) -> bool:
    """Whether `payload_files` needs the config blob to give the names."""
    kind = BY_WORD.get(classification.kind)
    return kind is not None and kind.reads_config


def payload_files(
    manifest: Manifest,
    classification: Classification,
    config: bytes | None = None,
    heads: Mapping[Digest, bytes] = _NO_HEADS,
) -> tuple[PayloadFile, ...]:
    """The payload in the manifest's order, the config (where it is payload) last.

    `config` is the config blob where `wants_config` says so; without it names fall back. `heads` gives the first HEAD_SIZE bytes of
    blobs that have been read, for the extensions of those whose type says nothing.
    """
    kind = BY_WORD.get(classification.kind)
    known = _load(config)
    files = [
        _layer_file(kind, known, n, layer, heads.get(layer.digest, b""))
        for n, layer in enumerate(manifest.layers)
        if not layer.is_empty or layer.annotations.get(TITLE)  # who gives `{}` a name means a file
    ]
    own = _config_file(manifest, kind, not files)
    return tuple(files) if own is None else (*files, own)


def extension_of(media_type: str, head: bytes = b"") -> str:
    """The extension, with its dot, that a media type says, else the first bytes, else `.bin`."""
    plain = mediatype.essence(media_type)
    for ending, extension in _ENDINGS:
        if plain.endswith(ending):
            return extension
    for offset, magic, extension in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return extension
    return ".bin"


_ENDINGS = (
    ("tar+gzip", ".tar.gz"),
    ("tar.gzip", ".tar.gz"),
    ("tar+gz", ".tar.gz"),
    ("tar.gz", ".tar.gz"),
    ("tar+zstd", ".tar.zst"),
    ("tar.zstd", ".tar.zst"),
    ("tar+bzip2", ".tar.bz2"),
    ("tar+xz", ".tar.xz"),
    ("tar", ".tar"),
    ("squashfs", ".squashfs"),
    ("gzip", ".gz"),
    ("zstd", ".zst"),
    ("zip", ".zip"),
    ("json", ".json"),
    ("yaml", ".yaml"),
    ("xml", ".xml"),
    ("wasm", ".wasm"),
    ("toml", ".toml"),
    ("markdown", ".md"),
    ("html", ".html"),
    ("text/plain", ".txt"),
    ("pdf", ".pdf"),
)

_MAGIC = (
    (0, b"\x1f\x8b", ".gz"),
    (0, b"\x28\xb5\x2f\xfd", ".zst"),
    (0, b"PK\x03\x04", ".zip"),
    (0, b"\0asm", ".wasm"),
    (0, b"GGUF", ".gguf"),
    (0, b"\x7fELF", ".elf"),
    (0, b"hsqs", ".squashfs"),
    (0, b"SQLite format 3\0", ".sqlite"),
    (257, b"ustar", ".tar"),
    (0, b"{", ".json"),
)


def _load(config: bytes | None) -> dict[str, object]:
    if not config:
        return {}
    try:
        members = load_json(config, "the config")
    except Malformed:
        return {}
    return members if isinstance(members, dict) else {}


def _layer_file(kind: Kind | None, config: dict[str, object], n: int, layer: Descriptor, head: bytes) -> PayloadFile:
    named = next((layer.annotations[key] for key in _PATHS if layer.annotations.get(key)), "")
    if named:
        return PayloadFile(named, layer, _unpacks(layer))
    tekton = _tekton(layer)
    if tekton:
        return PayloadFile(tekton, layer, unpack=True)
    custom = _custom(kind, config, layer) if kind is not None else ""
    if custom:
        return PayloadFile(custom.removesuffix("/"), layer, custom.endswith("/") or _unpacks(layer))
    name = layer.annotations.get(_REF_NAME) or f"layer-{n}{extension_of(layer.media_type, head)}"
    return PayloadFile(name, layer, _unpacks(layer))


def _unpacks(layer: Descriptor) -> bool:
    return layer.annotations.get(_UNPACK, "").lower() == "true"


def _tekton(layer: Descriptor) -> str:
    """Tekton's bundles hold one resource a layer, as the only file of a tar (tekton docs, tekton-bundle-contracts.md)."""
    kind, name = (layer.annotations.get(f"dev.tekton.image.{part}", "") for part in ("kind", "name"))
    return f"{kind.lower()}/{name}" if kind and name else ""


def _custom(kind: Kind, config: dict[str, object], layer: Descriptor) -> str:
    maker = _MAKERS.get(kind.word)
    made = maker(config, layer) if maker is not None else ""
    if made:
        return made
    for pattern, name in kind.names:
        if matches_any((pattern,), layer.media_type) or matching_annotation((pattern,), layer.annotations):
            return name
    return ""


def _config_file(manifest: Manifest, kind: Kind | None, alone: bool) -> PayloadFile | None:
    """The config as a file: where it has a title, where the kind says so, and where an artifact has nothing else."""
    config = manifest.config
    if config is None or config.is_empty or config.size == 0:
        return None
    name = config.annotations.get(TITLE, "")
    if not name and kind is not None and not is_image_config(config.media_type):
        name = kind.config_name
    if not name and alone and kind is not None and kind.word == "artifact":
        name = "config" + extension_of(config.media_type)
    return PayloadFile(name, config) if name else None


def _helm(config: dict[str, object], layer: Descriptor) -> str:
    """Charts are `name-version.tgz`, their provenance has `.prov` after it (Helm's docs, "Use OCI-based registries")."""
    plain = mediatype.essence(layer.media_type)
    name, version = config.get("name"), config.get("version")
    if not plain.startswith(("application/vnd.cncf.helm.chart.", "application/tar+gzip")):
        return ""
    known = isinstance(name, str) and isinstance(version, str) and name and version
    stem = f"{name}-{version}" if known else "chart"
    return f"{stem}.tgz.prov" if "provenance" in plain else f"{stem}.tgz"


def _kyverno(_: dict[str, object], layer: Descriptor) -> str:
    """One policy a layer, named by the annotation that Kyverno's own tool writes."""
    name = layer.annotations.get("io.kyverno.image.name", "")
    return f"{name}.yaml" if name else ""


def _spin(config: dict[str, object], layer: Descriptor) -> str:
    """The locked application names its components and their files by digest (Spin's locked app schema)."""
    wanted = str(layer.digest)
    components = config.get("components")
    for component in components if isinstance(components, list) else ():
        if not isinstance(component, dict):
            continue
        if _source_digest(component.get("source")) == wanted and isinstance(component.get("id"), str):
            return f"{component['id']}.wasm"
        files = component.get("files")
        for entry in files if isinstance(files, list) else ():
            if not isinstance(entry, dict) or _source_digest(entry) != wanted:
                continue
            path = entry.get("path")
            if isinstance(path, str):
                return path
    return ""


def _source_digest(value: object) -> str:
    """A digest as Spin writes it: in the object itself or in its `content`."""
    if not isinstance(value, dict):
        return ""
    inner = value.get("content")
    digest = value.get("digest") or (inner.get("digest") if isinstance(inner, dict) else None)
    return digest if isinstance(digest, str) else ""


def predicate_word(predicate_type: str) -> str:
    """A predicate type as a word: `https://slsa.dev/provenance/v0.2` is `slsa-provenance-v0.2`."""
    text = predicate_type.partition("://")[2] or predicate_type
    for prefix, word in _PREDICATE_WORDS:
        if text.startswith(prefix):
            return word
    host, _, path = text.rstrip("/").partition("/")
    labels = host.removeprefix("www.").split(".")
    return "-".join(part for part in (labels[0], *path.split("/")) if part)


_PREDICATE_WORDS = (("spdx.dev/Document", "spdx"), ("cyclonedx.org/", "cyclonedx"))


def _statement(extension: str) -> Callable[[dict[str, object], Descriptor], str]:
    def name(_: dict[str, object], layer: Descriptor) -> str:
        predicate = next((layer.annotations[key] for key in _PREDICATES if layer.annotations.get(key)), "")
        return f"{predicate_word(predicate) if predicate else 'attestation'}.{extension}"

    return name


def _named_after(annotation: str, extension: str) -> Callable[[dict[str, object], Descriptor], str]:
    """For tables of contents, which are named after the layer that they describe."""

    def name(_: dict[str, object], layer: Descriptor) -> str:
        digest = layer.annotations.get(annotation, "")
        return f"{digest}.{extension}" if digest else ""

    return name


_MAKERS: Mapping[str, Callable[[dict[str, object], Descriptor], str]] = {
    "helm-chart": _helm,
    "spin-app": _spin,
    "kyverno-policy": _kyverno,
    "attestation": _statement("intoto.json"),
    "cosign-attestation": _statement("dsse.json"),
    "soci-index": _named_after(_SOCI_LAYER, "ztoc"),
    "stargz-toc": _named_after(_STARGZ_LAYER, "stargz.tar.gz"),
}
