"""The contents of a local source in any format: a list of manifests, and blobs by digest.

    Files      the files of a directory or archive, by path
    Contents   manifests and blobs: an OCI layout (here), an archive of `docker save` (docker.py),
               a directory of skopeo's `dir:` transport (skopeo_dir.py)

Everything blocks: callers are worker threads, several at a time.

Rules that hold here:

- A path is made from fixed names and `Digest`s only, never from text of the layout.
- An index that has changed is parsed again.
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
    """The files of a directory or archive. `shown`: its path, for messages."""

    shown: str

    def find(self, name: str) -> FileRange:
        """The regular file at a path. Raises NotFound, Malformed."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file or directory at a path."""
        ...


@dataclass(frozen=True, slots=True)
class ListedManifest:
    """An entry of a source's list of manifests.

    `number`: the position in the list. `names`: the preferred name first.
    `problem`: why there is no descriptor.
    """

    number: int
    descriptor: Descriptor | None
    names: tuple[str, ...] = ()
    problem: OcifsError | None = None

    @property
    def identity(self) -> object:
        """Equal for two entries of the same manifest."""
        return self.descriptor.digest if self.descriptor is not None else self.number


class Contents(Protocol):
    """The manifests and blobs of a local source."""

    def list_manifests(self) -> tuple[ListedManifest, ...]:
        """The listed manifests, in order. Raises Malformed, LimitExceeded."""
        ...

    def find(self, digest: Digest) -> FileRange:
        """The bytes of a manifest or blob. Raises NotFound."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Violations of the specification that do not prevent reading, for display."""
        ...


def read_small(files: Files, name: str, limits: Limits) -> bytes:
    """Read a whole file. Raises NotFound, LimitExceeded."""
    file = files.find(name)
    if file.size > limits.manifest_bytes:
        raise LimitExceeded(
            f"{name} has {file.size} bytes, limits.manifest_bytes allows {limits.manifest_bytes}"
        )
    return file.read(0, file.size)


def read_manifest(contents: Contents, descriptor: Descriptor, limits: Limits) -> Manifest:
    """Read, verify and parse the manifest of a descriptor.

    Raises NotFound, Malformed, LimitExceeded.
    """
    file = contents.find(descriptor.digest)
    if file.size > limits.manifest_bytes:
        most = limits.manifest_bytes
        raise LimitExceeded(
            f"the manifest has {file.size} bytes, limits.manifest_bytes allows {most}"
        )
    body = file.read(0, file.size)
    # The file may be replaced between two reads: only the bytes that are parsed are verified.
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
        """The entries of index.json, which is read again if it has changed."""
        version = self._files.find(INDEX).version
        # Threads that find the index changed at the same time parse it once.
        with self._lock:
            if self._parsed is None or self._parsed[0] != version:
                # The version is older than the read: if the index changes between them, the next
                # call parses it again.
                self._parsed = version, _entries(read_small(self._files, INDEX, self._limits))
            return self._parsed[1]

    def find(self, digest: Digest) -> FileRange:
        if not digest.verifiable:
            # Only a verifiable digest is safe as a component of a path.
            raise Unsupported(
                f"cannot verify {digest}: unknown algorithm, or invalid value for the algorithm"
            )
        try:
            return self._files.find(f"{BLOBS}/{digest.algorithm}/{digest.encoded}")
        except NotFound:
            raise NotFound(
                f"no blob {digest} in the layout {self._files.shown}",
                hint="the layout is sparse: copy the missing blob into it",
            ) from None

    def notes(self) -> tuple[str, ...]:
        return tuple(_marker_notes(self._files, self._limits))


def _marker_notes(files: Files, limits: Limits) -> list[str]:
    """Problems of the file `oci-layout`, because of which other tools may reject the layout."""
    try:
        value = as_object(load_json(read_small(files, MARKER, limits), MARKER), MARKER)
    except NotFound:
        return ["the layout has no file oci-layout"]
    except OcifsError as error:
        return [f"the layout's file oci-layout is invalid: {error}"]
    version = value.get("imageLayoutVersion")
    if not isinstance(version, str):
        return ["the layout's file oci-layout has no imageLayoutVersion"]
    # 1.0.0 remains the version until the layout itself changes (image-layout.md).
    if version == "1.0.0":
        return []
    return [f"the layout has version {json.dumps(version)}, ocifs supports 1.0.0"]


def _entries(body: bytes) -> tuple[ListedManifest, ...]:
    members = as_object(load_json(body, INDEX), INDEX)
    values = members.get("manifests")
    # Go serializes an empty list as null.
    if values is None and ("manifests" in members or "schemaVersion" in members):
        return ()
    if not isinstance(values, list):
        raise Malformed("index.json has no list of manifests")
    entries = []
    for number, value in enumerate(values):
        descriptor = parse_descriptor(value, f"index.json: manifests[{number}]")
        entries.append(ListedManifest(number, descriptor, _names(descriptor.annotations)))
    return tuple(entries)


def _names(annotations: Mapping[str, str]) -> tuple[str, ...]:
    return usable_names((annotations.get(REF_NAME, ""), annotations.get(IMAGE_NAME, "")))


def usable_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names that can be displayed, each once: not empty, and valid as UTF-8."""
    return tuple(dict.fromkeys(name for name in names if name and _is_text(name)))


def _is_text(name: str) -> bool:
    try:
        # JSON may contain lone surrogates, which UTF-8 cannot encode.
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
