"""An archive of `docker save`, in every form that has a manifest.json: images without manifests of
their own.

An image is derived: its config and its layers are the archive's, its manifest is made here. The
manifest's annotation records that. Docker 25 and later write a layout as well. If that has a
manifest of the same config and layers, it is used.

Everything blocks: callers are worker threads, several at a time.

Rules that hold here:
- A derived manifest depends on the archive's content only, so its digest stays the same.
- An uncompressed layer has its diff ID as digest, which the config vouches for. A compressed one is
  hashed once, since names in the archive prove nothing; only those below `blobs/` are
  content-addressed, and verified when they are read.
- One image that cannot be derived is listed with its problem, and spoils no other.
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
"""The annotation of a manifest that was made here."""

_KIND = "archive-digest.1"  # on the shelf: the digest of a compressed member
_HEAD = 6
_SUFFIXES = {"none": "", "gzip": "+gzip", "zstd": "+zstd", "bzip2": "+bzip2", "xz": "+xz"}
_EXTENSIONS = (".tar.gz", ".tar", ".json", ".tgz")
Advance: TypeAlias = Callable[[], None]


def is_saved(files: Files, limits: Limits) -> bool:
    """Whether there is a manifest.json that is a list of images, and not a manifest."""
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

    The list is made when it is opened; `advance` is called while digests are computed.
    """

    def __init__(self, files: Files, limits: Limits, shelf: DerivedCache, advance: Advance) -> None:
        self._files = files
        self._limits = limits
        self._shelf = shelf
        self._advance = advance
        self._places: dict[Digest, FileRange] = {}
        self._hashed: dict[str, Digest] = {}
        self._lock = threading.Lock()
        self._originals = _manifests(files, limits)
        found: list[ListedManifest] = []
        for number, image in enumerate(_images(read_small(files, MANIFEST, limits), limits)):
            found += self._listed_image(number, image)
        self._listed = tuple(found)

    def list_manifests(self) -> tuple[ListedManifest, ...]:
        return self._listed

    def notes(self) -> tuple[str, ...]:
        return ()

    def find(self, digest: Digest) -> FileRange:
        try:
            return self._places[digest]
        except KeyError:
            raise NotFound(f"this archive does not hold {digest}: {self._files.shown}") from None

    def _listed_image(self, number: int, image: _Image) -> list[ListedManifest]:
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
        """Make the manifest of an image. Raises Malformed, NotFound, LimitExceeded."""
        place = self._files.find(image.config)
        if place.size > self._limits.config_bytes:
            raise LimitExceeded(
                f"{image.config} is larger than limits.config_bytes ({self._limits.config_bytes})"
            )
        config = place.read(0, place.size)
        digest = Digest.of(config)
        claimed = _digest_in_name(image.config)
        if claimed is None:
            check_trusted(place, image.config)
        elif claimed != digest:
            raise IntegrityError(f"the config {image.config} has another digest: {digest}")
        diff_ids = _diff_ids(config)
        if len(diff_ids) != len(image.layers):
            raise Malformed(
                f"the image has {len(image.layers)} layers, its config lists {len(diff_ids)}"
            )
        layers = [
            self._layer(name, diff_id) for name, diff_id in zip(image.layers, diff_ids, strict=True)
        ]
        self._places[digest] = place
        genuine = self._originals.get((digest, *(each["digest"] for each in layers)))
        if genuine is not None:
            self._places[genuine.digest] = self._files.find(
                f"{BLOBS}/{genuine.digest.algorithm}/{genuine.digest.encoded}"
            )
            return genuine
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                "config": {
                    "mediaType": mediatype.OCI_CONFIG,
                    "digest": str(digest),
                    "size": len(config),
                },
                "layers": layers,
                "annotations": {
                    DERIVED: "from manifest.json of an archive of docker save; config and layers are genuine"
                },
            },
            separators=(",", ":"),
        ).encode()
        made = Digest.of(body)
        self._places[made] = memory_range(body)
        return Descriptor(mediatype.OCI_MANIFEST, made, len(body))

    def _layer(self, name: str, diff_id: Digest) -> dict[str, object]:
        """The descriptor of a layer."""
        place = self._files.find(name)
        compression = sniff(place.read(0, _HEAD))
        digest = diff_id if compression == "none" else self._digest_of(name, place)
        self._places[digest] = place
        media_type = f"{mediatype.OCI_LAYER}{_SUFFIXES[compression]}"
        return {"mediaType": media_type, "digest": str(digest), "size": place.size}

    def _digest_of(self, name: str, place: FileRange) -> Digest:
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == BLOBS:
            digest = Digest(parts[1], parts[2])
            if digest.verifiable:
                return digest
        check_trusted(place, name)
        with self._lock:
            if name not in self._hashed:
                self._hashed[name] = self._cached_digest(place) or self._hash(place)
            return self._hashed[name]

    def _cached_digest(self, place: FileRange) -> Digest | None:
        found = load(self._shelf, _KIND, _key(place), lambda data: Digest.parse(data.decode()))
        return found if found is not None and found.verifiable else None

    def _hash(self, place: FileRange) -> Digest:
        hasher = Digest.of(b"").hasher()
        for start in range(0, place.size, MIB):
            hasher.update(place.read(start, MIB))
            self._advance()
        digest = Digest("sha256", hasher.hexdigest())
        save(self._shelf, _KIND, _key(place), str(digest).encode())
        return digest


def _manifests(files: Files, limits: Limits) -> dict[tuple[object, ...], Descriptor]:
    """The manifests of the layout in the archive, if there is one, by the digests of their configs
    and layers.
    """
    found: dict[tuple[object, ...], Descriptor] = {}
    contents = OciContents(files, limits)
    try:
        level = [
            each.descriptor for each in contents.list_manifests() if each.descriptor is not None
        ]
    except OcifsError:
        return found
    for _ in range(2):  # an index of platforms at the most
        below: list[Descriptor] = []
        for descriptor in level[: limits.referrers]:
            try:
                manifest = read_manifest(contents, descriptor, limits)
            except OcifsError:
                continue  # `docker save` lists what it does not hold
            below += manifest.manifests
            if manifest.config is not None:
                key = (manifest.config.digest, *(str(each.digest) for each in manifest.layers))
                found[key] = replace(descriptor, annotations={})
        level = below
    return found


def _key(place: FileRange) -> Digest:
    return Digest.of(" ".join(map(str, (*place.version, place.size))).encode())


def _digest_in_name(name: str) -> Digest | None:
    """The digest that a config's name is, if it is one."""
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
    found = []
    for number, each in enumerate(value):
        where = f"{MANIFEST}[{number}]"
        members = as_object(each, where)
        layers = _texts(members.get("Layers"), f"{where}.Layers")
        if len(layers) > limits.layers:
            raise LimitExceeded(
                f"{where} has {len(layers)} layers, limits.layers allows {limits.layers}"
            )
        tags = usable_names(_texts(members.get("RepoTags"), f"{where}.RepoTags"))
        found.append(
            _Image(
                _path(as_text(members.get("Config"), f"{where}.Config")),
                tags,
                tuple(map(_path, layers)),
            )
        )
    return found


def _path(name: str) -> str:
    """A name in manifest.json as the archive lists its members."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _texts(value: object, where: str) -> tuple[str, ...]:
    """A list of strings; null is an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Malformed(f"{where} is not a list of strings")
    return tuple(value)


def _diff_ids(config: bytes) -> list[Digest]:
    """The digests of the uncompressed layers (image-spec, config.md). Raises Malformed."""
    rootfs = as_object(load_json(config, "the config"), "the config").get("rootfs")
    listed = as_object(rootfs, "the config's rootfs").get("diff_ids")
    digests = [Digest.parse(each) for each in _texts(listed, "the config's diff_ids")]
    for digest in digests:
        if not digest.verifiable:
            raise Malformed(f"the config's diff_ids has a digest that cannot be verified: {digest}")
    return digests
