"""An archive of `docker save`, in every version that has a manifest.json.

Such archives contain configs and layers, but no manifests. A manifest is derived for each image,
and marked with an annotation. Docker 25 and later also write a layout: its manifest is used instead
if it has the same config and layers.

Everything blocks: callers are worker threads, several at a time. Manifests are derived and
compressed layers hashed when the archive is opened; the result does not change afterwards.

Rules that hold here:

- A derived manifest depends on the archive's content only, so that its digest is stable.
- The digest of an uncompressed layer is its diff ID, from the config.
- A compressed layer is hashed once, since the names in the archive are not reliable. Only names
  below `blobs/` are digests; they are verified when the layer is read.
- An image without a valid config or layer is listed with its problem. The others are not affected.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from ocifs.content import DerivedCache
from ocifs.errors import IntegrityError, LimitExceeded, Malformed, NotFound, OcifsError
from ocifs.layers.derived import load, save
from ocifs.layers.indexing.decompress import sniff
from ocifs.layout.contents import (
    BLOBS,
    Files,
    ListedManifest,
    OciContents,
    read_manifest,
    read_small,
    usable_names,
)
from ocifs.layout.file_range import FileRange, check_trusted, memory_range
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor, as_object, as_text
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import load_json
from ocifs.settings import MIB, Limits

MANIFEST, LEGACY = "manifest.json", "repositories"
DERIVED = "dev.ocifs.derived"
"""The annotation of derived manifests."""

# The kind of derived data that is the digest of a compressed member.
_KIND = "archive-digest.1"
# The longest magic number, that of xz, has 6 bytes.
_HEAD = 6
# The specification defines gzip and zstd only. ocifs reads the other two as well.
_SUFFIXES = {"none": "", "gzip": "+gzip", "zstd": "+zstd", "bzip2": "+bzip2", "xz": "+xz"}
_EXTENSIONS = (".tar.gz", ".tar", ".json", ".tgz")
Advance: TypeAlias = Callable[[], None]


def is_saved(files: Files, limits: Limits) -> bool:
    """Whether manifest.json is a list of images, and not a manifest."""
    try:
        return isinstance(load_json(read_small(files, MANIFEST, limits), MANIFEST), list)
    except OcifsError:
        return False


@dataclass(frozen=True, slots=True)
class _Image:
    """An element of manifest.json."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


class DockerContents:
    """The images of an archive.

    `advance` is called while digests are computed.
    """

    def __init__(self, files: Files, limits: Limits, cache: DerivedCache, advance: Advance) -> None:
        self._files = files
        self._limits = limits
        self._cache = cache
        self._advance = advance
        self._blobs: dict[Digest, FileRange] = {}
        self._hashed: dict[str, Digest] = {}
        self._lock = threading.Lock()
        self._originals = _original_manifests(files, limits)
        entries: list[ListedManifest] = []
        for number, image in enumerate(_images(read_small(files, MANIFEST, limits), limits)):
            entries += self._entries(number, image)
        self._listed = tuple(entries)

    def list_manifests(self) -> tuple[ListedManifest, ...]:
        return self._listed

    def notes(self) -> tuple[str, ...]:
        return ()

    def find(self, digest: Digest) -> FileRange:
        try:
            return self._blobs[digest]
        except KeyError:
            raise NotFound(f"no blob {digest} in the archive {self._files.shown}") from None

    def _entries(self, number: int, image: _Image) -> list[ListedManifest]:
        try:
            descriptor = self._derive(image)
        except OcifsError as error:
            return [ListedManifest(number, None, (tag,), error) for tag in image.tags] or [
                ListedManifest(number, None, (), error)
            ]
        return [ListedManifest(number, descriptor, (tag,)) for tag in image.tags] or [
            ListedManifest(number, descriptor)
        ]

    def _derive(self, image: _Image) -> Descriptor:
        """Derive the manifest of an image. Raises Malformed, NotFound, LimitExceeded."""
        file, config, digest = self._read_config(image.config)
        diff_ids = _diff_ids(config)
        if len(diff_ids) != len(image.layers):
            raise Malformed(
                f"the image has {len(image.layers)} layers, its config lists {len(diff_ids)}"
            )
        layers = [
            self._layer(name, diff_id) for name, diff_id in zip(image.layers, diff_ids, strict=True)
        ]
        self._blobs[digest] = file
        # No registry has the digest of a derived manifest: the original is better (decision 0272).
        original = self._originals.get((digest, *(layer["digest"] for layer in layers)))
        if original is not None:
            self._blobs[original.digest] = self._files.find(
                f"{BLOBS}/{original.digest.algorithm}/{original.digest.encoded}"
            )
            return original
        body = _manifest_of(digest, len(config), layers)
        derived = Digest.of(body)
        self._blobs[derived] = memory_range(body)
        return Descriptor(mediatype.OCI_MANIFEST, derived, len(body))

    def _read_config(self, name: str) -> tuple[FileRange, bytes, Digest]:
        """A config and its digest, which must match its name if that is a digest."""
        file = self._files.find(name)
        if file.size > self._limits.config_bytes:
            raise LimitExceeded(
                f"{name} is larger than limits.config_bytes ({self._limits.config_bytes})"
            )
        config = file.read(0, file.size)
        digest, expected = Digest.of(config), _digest_in_name(name)
        # Without a digest in its name, nothing else verifies the config.
        if expected is None:
            check_trusted(file, name)
        elif expected != digest:
            raise IntegrityError(f"the config {name} has another digest: {digest}")
        return file, config, digest

    def _layer(self, name: str, diff_id: Digest) -> dict[str, object]:
        """The descriptor of a layer."""
        file = self._files.find(name)
        compression = sniff(file.read(0, _HEAD))
        digest = diff_id if compression == "none" else self._digest_of(name, file)
        self._blobs[digest] = file
        media_type = f"{mediatype.OCI_LAYER}{_SUFFIXES[compression]}"
        return {"mediaType": media_type, "digest": str(digest), "size": file.size}

    def _digest_of(self, name: str, file: FileRange) -> Digest:
        # Docker 25 and later: blobs/sha256/HEX. The digest is verified when the layer is read.
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == BLOBS:
            digest = Digest(parts[1], parts[2])
            if digest.verifiable:
                return digest
        # The digest is made from these bytes, and cannot reveal that they are a file of another
        # user (decision 0273).
        check_trusted(file, name)
        with self._lock:
            # Images of one archive share layers: each is hashed once.
            if name not in self._hashed:
                self._hashed[name] = self._cached_digest(file) or self._hash(file)
            return self._hashed[name]

    def _cached_digest(self, file: FileRange) -> Digest | None:
        digest = load(self._cache, _KIND, _key(file), lambda data: Digest.parse(data.decode()))
        return digest if digest is not None and digest.verifiable else None

    def _hash(self, file: FileRange) -> Digest:
        hasher = Digest.of(b"").hasher()
        for start in range(0, file.size, MIB):
            # `advance` raises if the caller has given up.
            hasher.update(file.read(start, MIB))
            self._advance()
        digest = Digest("sha256", hasher.hexdigest())
        save(self._cache, _KIND, _key(file), str(digest).encode())
        return digest


def _manifest_of(config: Digest, size: int, layers: list[dict[str, object]]) -> bytes:
    """A derived manifest. Equal images have equal manifests."""
    note = "from manifest.json of an archive of docker save; config and layers are genuine"
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_CONFIG, "digest": str(config), "size": size},
        "layers": layers,
        "annotations": {DERIVED: note},
    }
    # Another serialization would change the digests of all derived manifests.
    return json.dumps(manifest, separators=(",", ":")).encode()


def _original_manifests(files: Files, limits: Limits) -> dict[tuple[object, ...], Descriptor]:
    """The manifests of the layout in the archive, by the digests of their configs and layers."""
    originals: dict[tuple[object, ...], Descriptor] = {}
    contents = OciContents(files, limits)
    try:
        level = [
            entry.descriptor for entry in contents.list_manifests() if entry.descriptor is not None
        ]
    except OcifsError:
        # Older archives have no index.json: all their manifests are derived.
        return originals
    # The list, and the platforms of an index in it.
    for _ in range(2):
        below: list[Descriptor] = []
        # An untrusted index may list any number of manifests, and each of them is read.
        for descriptor in level[: limits.referrers]:
            try:
                manifest = read_manifest(contents, descriptor, limits)
            except OcifsError:
                # `docker save` lists platforms that it does not save.
                continue
            below += manifest.manifests
            if manifest.config is not None:
                key = (manifest.config.digest, *(str(layer.digest) for layer in manifest.layers))
                originals[key] = replace(descriptor, annotations={})
        level = below
    return originals


def _key(file: FileRange) -> Digest:
    # In an archive, `version` includes the offset of the member (archive.py).
    return Digest.of(" ".join(map(str, (*file.version, file.size))).encode())


def _digest_in_name(name: str) -> Digest | None:
    """The digest in the name of a config, or None."""
    # `docker save` writes HEX.json, crane sha256:HEX.
    stem = name.rpartition("/")[2]
    for extension in _EXTENSIONS:
        stem = stem.removesuffix(extension)
    digest = Digest("sha256", stem.removeprefix("sha256:"))
    return digest if digest.verifiable else None


def _images(body: bytes, limits: Limits) -> list[_Image]:
    """The elements of manifest.json. Raises Malformed."""
    value = load_json(body, MANIFEST)
    if not isinstance(value, list):
        raise Malformed("manifest.json is not a list of images")
    images = []
    for number, element in enumerate(value):
        where = f"{MANIFEST}[{number}]"
        members = as_object(element, where)
        layers = _texts(members.get("Layers"), f"{where}.Layers")
        if len(layers) > limits.layers:
            raise LimitExceeded(
                f"{where} has {len(layers)} layers, limits.layers allows {limits.layers}"
            )
        tags = usable_names(_texts(members.get("RepoTags"), f"{where}.RepoTags"))
        images.append(
            _Image(
                _path(as_text(members.get("Config"), f"{where}.Config")),
                tags,
                tuple(map(_path, layers)),
            )
        )
    return images


def _path(name: str) -> str:
    """A path in manifest.json, normalized like the names of members."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _texts(value: object, where: str) -> tuple[str, ...]:
    """A list of strings; null is an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Malformed(f"not a list of strings: {where}")
    return tuple(value)


def _diff_ids(config: bytes) -> list[Digest]:
    """The digests of the uncompressed layers (image-spec, config.md). Raises Malformed."""
    rootfs = as_object(load_json(config, "the config"), "the config").get("rootfs")
    listed = as_object(rootfs, "the config's rootfs").get("diff_ids")
    digests = [Digest.parse(text) for text in _texts(listed, "the config's diff_ids")]
    # A diff ID becomes the digest of an uncompressed layer, and must be verifiable for that.
    for digest in digests:
        if not digest.verifiable:
            raise Malformed(f"the config's diff_ids has a digest that cannot be verified: {digest}")
    return digests
