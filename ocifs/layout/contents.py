"""What a local source holds, whatever its form: manifests that are listed, with their names, and
content by digest.

    Files       the files of a directory or an archive, by their paths in it Contents    manifests
    and blobs: an OCI layout (here), an archive of `docker save` (docker.py), skopeo's `dir:`
    (skopeo_dir.py)

Everything blocks: callers are worker threads, several at a time.

Rules that hold here: a path is made from fixed names and `Digest`s only, never from text of the
layout.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ocifs.errors import LimitExceeded, Malformed, NotFound, OcifsError, Unsupported
from ocifs.layout.file_range import FileRange, Version
from ocifs.oci.descriptor import Descriptor, as_object, parse_descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import load_json
from ocifs.oci.manifest import Manifest, parse_manifest, verify_manifest
from ocifs.settings import Limits

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

INDEX, MARKER, BLOBS = "index.json", "oci-layout", "blobs"


class Files(Protocol):
    """The files of a directory or an archive."""

    shown: str

    def find(self, name: str) -> FileRange:
        """The regular file of this path. Raises NotFound, Malformed."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file or a directory of this path."""
        ...


@dataclass(frozen=True, slots=True)
class ListedManifest:
    """A manifest that a source lists: its place in the list, its descriptor, its names with the
    preferred one first.

    `problem`: why there is no descriptor.
    """

    number: int
    descriptor: Descriptor | None
    names: tuple[str, ...] = ()
    problem: OcifsError | None = None

    @property
    def identity(self) -> object:
        """Equal for two entries that lead to one manifest."""
        return self.descriptor.digest if self.descriptor is not None else self.number


class Contents(Protocol):
    """What a local source holds."""

    def list_manifests(self) -> tuple[ListedManifest, ...]:
        """Its manifests, in order. Raises Malformed, LimitExceeded."""
        ...

    def find(self, digest: Digest) -> FileRange:
        """Where a manifest or a blob lies. Raises NotFound."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What is odd about it, for people."""
        ...


def read_small(files: Files, name: str, limits: Limits) -> bytes:
    """A file that is read into memory. Raises LimitExceeded."""
    place = files.find(name)
    if place.size > limits.manifest_bytes:
        raise LimitExceeded(
            f"{name} has {place.size} bytes, limits.manifest_bytes allows {limits.manifest_bytes}"
        )
    return place.read(0, place.size)


def read_manifest(contents: Contents, descriptor: Descriptor, limits: Limits) -> Manifest:
    """A manifest that a descriptor leads to, verified.

    Raises NotFound, Malformed, LimitExceeded.
    """
    place = contents.find(descriptor.digest)
    if place.size > limits.manifest_bytes:
        most = limits.manifest_bytes
        raise LimitExceeded(
            f"the manifest has {place.size} bytes, limits.manifest_bytes allows {most}"
        )
    body = place.read(0, place.size)
    verify_manifest(body, descriptor.digest)
    return parse_manifest(body, descriptor.digest, "", descriptor.media_type)


class OciContents:
    """An OCI image layout (image-spec, image-layout.md)."""

    def __init__(self, files: Files, limits: Limits) -> None:
        self._files = files
        self._limits = limits
        self._parsed: tuple[Version, tuple[ListedManifest, ...]] | None = None
        self._lock = threading.Lock()

    def list_manifests(self) -> tuple[ListedManifest, ...]:
        """The entries of index.json, which is read again when it has changed."""
        version = self._files.find(INDEX).version
        with self._lock:
            if self._parsed is None or self._parsed[0] != version:
                self._parsed = version, _entries(read_small(self._files, INDEX, self._limits))
            return self._parsed[1]

    def find(self, digest: Digest) -> FileRange:
        if not digest.verifiable:
            raise Unsupported(
                f"content named {digest} cannot be verified: no known algorithm or not a value of its shape"
            )
        try:
            return self._files.find(f"{BLOBS}/{digest.algorithm}/{digest.encoded}")
        except NotFound:
            hint = "the layout is sparse: its index lists more than it holds. Copy the missing blob into it"
            raise NotFound(
                f"this layout does not hold {digest}: {self._files.shown}", hint=hint
            ) from None

    def notes(self) -> tuple[str, ...]:
        return tuple(_marker_notes(self._files, self._limits))


def _marker_notes(files: Files, limits: Limits) -> list[str]:
    """What is wrong with the file `oci-layout`. Other tools may refuse the layout for it."""
    try:
        value = as_object(load_json(read_small(files, MARKER, limits), MARKER), MARKER)
    except NotFound:
        return ["the layout has no file oci-layout"]
    except OcifsError as error:
        return [f"the layout's file oci-layout is not valid: {error}"]
    version = value.get("imageLayoutVersion")
    if not isinstance(version, str):
        return ["the layout's file oci-layout has no imageLayoutVersion"]
    return (
        []
        if version == "1.0.0"
        else [f"the layout has version {json.dumps(version)}, ocifs knows 1.0.0"]
    )


def _entries(body: bytes) -> tuple[ListedManifest, ...]:
    members = as_object(load_json(body, INDEX), INDEX)
    values = members.get("manifests")
    if values is None and ("manifests" in members or "schemaVersion" in members):  # Go's empty list
        return ()
    if not isinstance(values, list):
        raise Malformed("index.json lists no manifests")
    found = []
    for number, value in enumerate(values):
        descriptor = parse_descriptor(value, f"index.json: manifests[{number}]")
        found.append(ListedManifest(number, descriptor, _names(descriptor.annotations)))
    return tuple(found)


def _names(annotations: Mapping[str, str]) -> tuple[str, ...]:
    return usable_names((annotations.get(REF_NAME, ""), annotations.get(IMAGE_NAME, "")))


def usable_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names that can be shown, each once: not empty, and text that can be written as UTF-8."""
    return tuple(dict.fromkeys(name for name in names if name and _is_text(name)))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
