"""Writes an OCI image layout (image-spec, image-layout.md): blobs, then the index.

`ocifs export` calls this in worker threads; everything blocks. A `LayoutWriter` locks the directory
until its block ends.

Rules that hold here:

- One export at a time writes to a directory (flock).
- A file is renamed into place after fsync, when it is complete and its digest is verified.
- index.json is written last. After an interrupted export, every listed blob exists.
- Entries of other tools in index.json are preserved.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from ocifs.errors import IntegrityError, LimitExceeded, Malformed, UsageError, WriteFailed
from ocifs.layout.contents import REF_NAME
from ocifs.oci import mediatype
from ocifs.oci.descriptor import as_object
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import load_json
from ocifs.settings import MIB, Limits
from ocifs.userfiles import read_user_file

TEMPORARY = ".ocifs-"
"""The prefix of temporary files. Those of an interrupted export are removed by the next one."""

_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'
_EMPTY: Mapping[str, object] = {
    "schemaVersion": 2,
    "mediaType": mediatype.OCI_INDEX,
    "manifests": [],
}


class LayoutWriter:
    """A layout in `directory`, which is created if necessary, and locked until the block ends.

    Raises UsageError if the directory has other content, or if another export writes to it.
    Raises WriteFailed if the disk fails.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._root = directory
        self._limits = limits
        self._lock = -1
        self._serial = 0

    def __enter__(self) -> LayoutWriter:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(
                f"not a directory: {self._root}", hint="name a new or an empty directory"
            ) from None
        except OSError as error:
            raise self.write_error(error) from None
        try:
            self._lock = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # The kernel releases the lock if the process is killed.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(os.listdir(self._root))
        except BlockingIOError:
            self._unlock()
            raise UsageError(
                f"another export is writing to {self._root}", hint="wait until it has finished"
            ) from None
        except OSError as error:
            self._unlock()
            raise self.write_error(error) from None
        # If `__enter__` fails, Python does not call `__exit__`.
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _begin(self, names: list[str]) -> None:
        for name in names:
            # The lock is held: these files belong to an export that was interrupted.
            if name.startswith(TEMPORARY):
                (self._root / name).unlink()
        others = [name for name in names if not name.startswith(TEMPORARY)]
        if others and "oci-layout" not in others:
            hint = "name a new or an empty directory, or a layout"
            raise UsageError(f"not an OCI image layout, and not empty: {self._root}", hint=hint)
        # Raises for an invalid index before anything is fetched.
        self._index()
        if not others:
            self._put(self._root / "oci-layout", _LAYOUT)

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob exists, with this size and the right content."""
        try:
            with open(self._path(digest), "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                    return False
                hasher = digest.hasher()
                while piece := file.read(4 * MIB):
                    hasher.update(piece)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.write_error(error) from None
        return hasher.hexdigest() == digest.encoded

    def small(self, digest: Digest, size: int) -> bytes | None:
        """The content of a blob if it exists, is valid, and has at most the size of a manifest."""
        if size > self._limits.manifest_bytes or not self.has(digest, size):
            return None
        try:
            body = self._path(digest).read_bytes()
        except OSError as error:
            raise self.write_error(error) from None
        # The file may have been replaced after `has` verified it.
        return body if digest.matches(body) else None

    def put(self, digest: Digest, body: bytes) -> None:
        """Write a whole small blob."""
        with self.writer(digest) as writer:
            writer.write(body)

    def writer(self, digest: Digest) -> BlobWriter:
        """A writer for a blob, to be used in a `with` statement."""
        return BlobWriter(self, digest)

    def list_manifest(self, digest: Digest, media_type: str, size: int, name: str) -> None:
        """Add a manifest to index.json, with a ref name if `name` is not empty.

        An entry that had this name remains listed without it.
        """
        index = self._index()
        entries = []
        for entry in _manifests(index):
            value = entry.get("annotations")
            annotations = dict(value) if isinstance(value, dict) else {}
            if name and annotations.get(REF_NAME) == name:
                del annotations[REF_NAME]
            # An entry without a name beside the new one would list the manifest twice.
            if entry.get("digest") == str(digest) and not annotations.get(REF_NAME):
                continue
            rest = {key: value for key, value in entry.items() if key != "annotations"}
            entries.append({**rest, "annotations": annotations} if annotations else rest)
        added: dict[str, object] = {"mediaType": media_type, "digest": str(digest), "size": size}
        if name:
            added["annotations"] = {REF_NAME: name}
        if name or not any(entry.get("digest") == str(digest) for entry in entries):
            entries.append(added)
        self._put(self._root / "index.json", json.dumps({**index, "manifests": entries}).encode())

    def _index(self) -> dict[str, object]:
        path = self._root / "index.json"
        try:
            # One more byte than the limit, so that a longer file is detected.
            body = read_user_file(path, self._limits.manifest_bytes + 1)
            if len(body) > self._limits.manifest_bytes:
                raise LimitExceeded(
                    f"{path} is larger than manifest_bytes allows ({self._limits.manifest_bytes})"
                )
            index = as_object(load_json(body, str(path)), str(path))
        except FileNotFoundError:
            return dict(_EMPTY)
        except OSError as error:
            raise WriteFailed(f"cannot read {path}: {error.strerror}") from None
        _manifests(index)
        return index

    def _path(self, digest: Digest) -> Path:
        return self._root / "blobs" / digest.algorithm / digest.encoded

    def temporary_path(self) -> Path:
        """A new path for a temporary file."""
        # The lock excludes other exports: a serial number is sufficient for a unique name.
        self._serial += 1
        return self._root / f"{TEMPORARY}{self._serial}"

    def _put(self, path: Path, content: bytes) -> None:
        temporary = self.temporary_path()
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                # Without this, the new name could refer to an empty file after a crash.
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self.write_error(error) from None

    def commit(self, temporary: Path, digest: Digest) -> None:
        """Move a complete and verified blob into place."""
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(path)

    def write_error(self, error: OSError) -> WriteFailed:
        """The error for a failure of the destination's disk."""
        hint = "free some space, and export again" if error.errno == errno.ENOSPC else ""
        return WriteFailed(f"cannot write to {self._root}: {error.strerror}", hint=hint)


class BlobWriter:
    """Writes one blob, which is moved into place by `finish`, or at the end of the block.

    Raises IntegrityError if the content has another digest.
    """

    def __init__(self, layout: LayoutWriter, digest: Digest) -> None:
        self._layout = layout
        self._digest = digest
        self._hasher = digest.hasher()
        self._temporary = layout.temporary_path()
        self._is_finished = False

    def __enter__(self) -> BlobWriter:
        try:
            self._file = self._temporary.open("xb")
        except OSError as error:
            raise self._layout.write_error(error) from None
        return self

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._hasher.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise self._layout.write_error(error) from None

    def finish(self) -> None:
        """Verify the blob, and move it into place."""
        if self._hasher.hexdigest() != self._digest.encoded:
            raise IntegrityError(f"the content of {self._digest} has another digest")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._layout.commit(self._temporary, self._digest)
        except OSError as error:
            raise self._layout.write_error(error) from None
        self._is_finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._file:
                # After an error in the block, only the temporary file is removed.
                if kind is None and not self._is_finished:
                    self.finish()
        except OSError as failure:
            raise self._layout.write_error(failure) from None
        finally:
            self._temporary.unlink(missing_ok=True)


def _manifests(index: Mapping[str, object]) -> list[dict[str, object]]:
    entries = index.get("manifests")
    # Go serializes an empty list as null.
    if entries is None and ("manifests" in index or "schemaVersion" in index):
        return []
    if not isinstance(entries, list):
        raise Malformed("index.json has no list of manifests")
    return [as_object(entry, "index.json: manifests[]") for entry in entries]


def _open_at_once(path: str, flags: int) -> int:
    """Open a file in a directory that others can write to. Opening a FIFO does not block."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
