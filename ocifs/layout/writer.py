"""An OCI image layout that is being written (image-spec, image-layout.md): blobs by their digests,
then the index that leads to them.

Rules that hold here: everything blocks; a file appears by rename after fsync, whole and with the
bytes of its digest, and index.json is written last, so that an export that was ended leaves a
layout in which everything that is listed is there; what others listed stays; one export at a time
writes to a directory.
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
"""How files begin that are being written. What an export that was killed left of them is removed by the next one."""

_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'
_EMPTY: Mapping[str, object] = {
    "schemaVersion": 2,
    "mediaType": mediatype.OCI_INDEX,
    "manifests": [],
}


class LayoutWriter:
    """A layout in `directory`, which is made where it is not there; this process alone writes to it
    until the block ends.

    Raises UsageError where the directory holds something else, or another export writes to it,
    WriteFailed where its disk fails.
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
                f"{self._root} is no directory", hint="name a new or an empty one"
            ) from None
        except OSError as error:
            raise self.write_error(error) from None
        try:
            self._lock = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(os.listdir(self._root))
        except BlockingIOError:
            self._unlock()
            raise UsageError(
                f"another export is writing to {self._root}", hint="wait for its end"
            ) from None
        except OSError as error:
            self._unlock()
            raise self.write_error(error) from None
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
            if name.startswith(TEMPORARY):
                (self._root / name).unlink()
        others = [name for name in names if not name.startswith(TEMPORARY)]
        if others and "oci-layout" not in others:
            hint = "name an empty directory, a layout, or one that is not there yet"
            raise UsageError(f"{self._root} is no OCI image layout, and not empty", hint=hint)
        self._index()  # one that cannot be read is said before anything is fetched
        if not others:
            self._put(self._root / "oci-layout", _LAYOUT)

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob is there with this size and the bytes of its digest."""
        try:
            with open(self._path(digest), "rb", opener=_open_at_once) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
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
        """The bytes of a blob that is there and right, and not larger than a manifest may be."""
        if size > self._limits.manifest_bytes or not self.has(digest, size):
            return None
        try:
            body = self._path(digest).read_bytes()
        except OSError as error:
            raise self.write_error(error) from None
        return body if digest.matches(body) else None

    def put(self, digest: Digest, body: bytes) -> None:
        """Write a whole small blob."""
        with self.writer(digest) as writer:
            writer.write(body)

    def writer(self, digest: Digest) -> BlobWriter:
        """What a blob is written with, piece by piece."""
        return BlobWriter(self, digest)

    def list_manifest(self, digest: Digest, media_type: str, size: int, name: str) -> None:
        """Let index.json lead to a manifest under a ref name, or under none; what had that name
        before loses it, and stays listed.
        """
        index = self._index()
        listed = []
        for each in _manifests(index):
            annotations = each.get("annotations")
            kept = dict(annotations) if isinstance(annotations, dict) else {}
            if name and kept.get(REF_NAME) == name:
                del kept[REF_NAME]
            if each.get("digest") == str(digest) and not kept.get(REF_NAME):
                continue
            rest = {key: value for key, value in each.items() if key != "annotations"}
            listed.append({**rest, "annotations": kept} if kept else rest)
        added: dict[str, object] = {"mediaType": media_type, "digest": str(digest), "size": size}
        if name:
            added["annotations"] = {REF_NAME: name}
        if name or not any(each.get("digest") == str(digest) for each in listed):
            listed.append(added)
        self._put(self._root / "index.json", json.dumps({**index, "manifests": listed}).encode())

    def _index(self) -> dict[str, object]:
        path = self._root / "index.json"
        try:
            body = read_user_file(path, self._limits.manifest_bytes + 1)
            if len(body) > self._limits.manifest_bytes:
                raise LimitExceeded(
                    f"{path} is larger than manifest_bytes allows ({self._limits.manifest_bytes})"
                )
            found = as_object(load_json(body, str(path)), str(path))
        except FileNotFoundError:
            return dict(_EMPTY)
        except OSError as error:
            raise WriteFailed(f"cannot read {path}: {error.strerror}") from None
        _manifests(found)
        return found

    def _path(self, digest: Digest) -> Path:
        return self._root / "blobs" / digest.algorithm / digest.encoded

    def temporary_path(self) -> Path:
        """Where a file is written before it has its place."""
        self._serial += 1
        return self._root / f"{TEMPORARY}{self._serial}"

    def _put(self, path: Path, content: bytes) -> None:
        temporary = self.temporary_path()
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self.write_error(error) from None

    def commit(self, temporary: Path, digest: Digest) -> None:
        """Move a blob that was written and verified to its place."""
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(path)

    def write_error(self, error: OSError) -> WriteFailed:
        """What an error of the destination's disk is to whoever exports."""
        hint = (
            "free some space there; the next export goes on from here"
            if error.errno == errno.ENOSPC
            else ""
        )
        return WriteFailed(f"{self._root} cannot be written: {error.strerror}", hint=hint)


class BlobWriter:
    """Writes one blob; it has its place when the block ends.

    Raises IntegrityError where the bytes are not those of the digest.
    """

    def __init__(self, layout: LayoutWriter, digest: Digest) -> None:
        self._layout = layout
        self._digest = digest
        self._hasher = digest.hasher()
        self._temporary = layout.temporary_path()

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._file:
                if kind is None:
                    if self._hasher.hexdigest() != self._digest.encoded:
                        raise IntegrityError(f"what was read for {self._digest} has another digest")
                    self._file.flush()
                    os.fsync(self._file.fileno())
                    self._layout.commit(self._temporary, self._digest)
        except OSError as failure:
            raise self._layout.write_error(failure) from None
        finally:
            self._temporary.unlink(missing_ok=True)


def _manifests(index: Mapping[str, object]) -> list[dict[str, object]]:
    listed = index.get("manifests")
    if listed is None and ("manifests" in index or "schemaVersion" in index):  # Go's empty list
        return []
    if not isinstance(listed, list):
        raise Malformed("index.json lists no manifests")
    return [as_object(each, "index.json: manifests[]") for each in listed]


def _open_at_once(path: str, flags: int) -> int:
    """Open a file of a directory that others may have prepared: a FIFO is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
