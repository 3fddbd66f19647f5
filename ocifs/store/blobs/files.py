"""The two files of a blob, its bytes and its map: opened, made, and replaced when they are damaged.

Called from worker threads; everything here blocks, and nothing here waits for another process.

Whatever lies in the place of one of the files (a directory, a link, a map of another size or
format, a file that may not be read) is removed, and the blob is fetched again. A whole blob is
served only by a map: one without a map is hashed once, which makes it.

Rules that hold here:
- a file in its place is complete from its first moment, or it is one that every process checks
  before it believes it;
- files are made and moved under the lock of the map's header, and only those that this process has
  open;
- a descriptor with the wrong size, which anybody can push, never removes a good blob.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from isal import isal_zlib

from ocifs.concurrency import check_cancelled
from ocifs.errors import IntegrityError
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import (
    BLOCK,
    BlockMap,
    find_map,
    header_of,
    is_at,
    is_map,
    map_length,
)
from ocifs.store.disk import (
    TEMPORARY,
    Disk,
    lock_shared,
    make_directory,
    open_regular,
    remove_paths,
)

_OPENINGS = 100  # tries to open what other processes remove


class BlobFiles(NamedTuple):
    """The bytes of a blob, which are not `complete` if some were found damaged or are missing, and
    their map.
    """

    descriptor: int
    map: BlockMap
    complete: bool


def open_parts(disk: Disk, digest: Digest, size: int, *, regardless: bool = False) -> BlobFiles:
    """The files of a blob of which some blocks may be cached.

    Raises BlockingIOError while another process holds the map, unless `regardless` (a block is
    believed only by its checksum), and OSError.
    """
    path, map_path = disk.partial(digest), disk.partial_map(digest)
    make_directory(path.parent)
    for _ in range(_OPENINGS):
        try:
            found = find_map(map_path, size)
        except BlockingIOError:
            if not regardless:
                raise
            remove_paths(path, map_path)  # a process that was stopped while it evicted
            continue
        if found is None:
            _make_map(disk, path, map_path, size)
            continue
        descriptor = _open_beside(found, path, map_path, regardless=regardless)
        if descriptor is not None:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            return BlobFiles(descriptor, found, complete=False)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _open_beside(found: BlockMap, path: Path, map_path: Path, *, regardless: bool) -> int | None:
    """The bytes that belong to a map; None, and the map is closed, where the map has lost its place
    or the bytes are damaged.
    """
    descriptor = None
    try:
        if not found.try_lock_header() and not regardless:
            raise BlockingIOError(errno.EAGAIN, "another process holds it", str(map_path))
        # Else the map was evicted or placed meanwhile, and a file that is made here would belong to
        # another map.
        if is_at(map_path, found.descriptor):
            try:
                descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
                lock_shared(descriptor)
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
                remove_paths(path, map_path)
    finally:
        found.unlock_header()
        if descriptor is None:
            found.close()
    return descriptor


_IN_THE_WAY = (
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.EINVAL,
    errno.ENOTDIR,
)
"""What opening something that is not a file of ours fails with."""


def _make_map(disk: Disk, path: Path, map_path: Path, size: int) -> None:
    """Put an empty map in its place, complete at once.

    A map of another size or format is removed, with its bytes.
    """
    try:
        descriptor = open_regular(map_path, os.O_RDONLY)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        remove_paths(path, map_path)
    else:
        try:
            if (
                is_map(descriptor, size)
                and is_at(map_path, descriptor)
                and os.access(map_path, os.W_OK)
            ):
                return  # another process has just made it
        finally:
            os.close(descriptor)
        remove_paths(path, map_path)
    number, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    try:
        disk.with_room(lambda: os.ftruncate(number, map_length(size)))
        disk.with_room(lambda: os.pwrite(number, header_of(size), 0))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, map_path)
    finally:
        os.close(number)
        remove_paths(Path(temporary))


def open_whole(
    disk: Disk, digest: Digest, size: int, progress: Callable[[], None]
) -> BlobFiles | None:
    """The files of a whole blob; None where there is none.

    `progress` is called while it is hashed, which may take minutes.

    Content that is not the digest's is removed. Raises IntegrityError for a good blob of another
    size, and OSError for one that cannot be read.
    """
    _adopt(disk, digest)
    try:
        descriptor = _open_to_repair(disk.whole(digest))
    except OSError:
        return None
    files = None
    try:
        lock_shared(descriptor)
        files = _with_map(disk, digest, descriptor, size) or _with_new_map(
            disk, digest, descriptor, size, progress
        )
        if files is None and is_at(disk.whole(digest), descriptor):
            remove_paths(disk.whole(digest), disk.whole_map(digest))
    finally:
        if files is None:
            os.close(descriptor)
    return files


def _open_to_repair(path: Path) -> int:
    try:
        return open_regular(path, os.O_RDWR)
    except OSError:
        return open_regular(path, os.O_RDONLY)


def _with_map(disk: Disk, digest: Digest, descriptor: int, size: int) -> BlobFiles | None:
    """A whole blob with the map that was kept of it; one that is longer or shorter than it was is
    checked block by block.
    """
    length = os.fstat(descriptor).st_size
    for flags in (os.O_RDWR, os.O_RDONLY):
        try:
            found = find_map(disk.whole_map(digest), size, flags)
            other = (
                None if found or length == size else find_map(disk.whole_map(digest), length, flags)
            )
        except BlockingIOError:
            return None
        if other is not None:
            verified = other.verified
            other.close()
            if verified:
                raise _other_size(digest, length, size)
        if found is None:
            continue
        try:
            if length != size:
                os.ftruncate(descriptor, size)
                found.set_unverified()
            return BlobFiles(descriptor, found, complete=found.verified)
        except OSError:
            found.close()
    return None


def _other_size(digest: Digest, length: int, size: int) -> IntegrityError:
    return IntegrityError(f"{digest} has {length} bytes, its descriptor says {size}")


def _with_new_map(
    disk: Disk, digest: Digest, descriptor: int, size: int, progress: Callable[[], None]
) -> BlobFiles | None:
    """A whole blob that has no usable map, hashed; None where it does not have its digest.

    Raises OSError, IntegrityError.
    """
    length = os.fstat(descriptor).st_size
    words = _checksums_of(digest, descriptor, length, progress)
    if words is None:
        return None
    made = _keep_map(
        disk.whole_map(digest), length, header_of(length, verified=True) + words.tobytes()
    )
    if length != size:
        made.close()
        raise _other_size(digest, length, size)
    return BlobFiles(descriptor, made, complete=True)


def _checksums_of(
    digest: Digest, descriptor: int, length: int, progress: Callable[[], None]
) -> array[int] | None:
    hasher, words = digest.hasher(), array("Q")
    for start in range(0, length, MIB):
        piece = memoryview(os.pread(descriptor, MIB, start))
        if len(piece) != min(MIB, length - start):
            return None
        hasher.update(piece)
        words.extend(
            1 << 32 | isal_zlib.crc32(piece[at : at + BLOCK]) for at in range(0, len(piece), BLOCK)
        )
        progress()
        check_cancelled()
    return words if hasher.hexdigest() == digest.encoded else None


def _keep_map(path: Path, length: int, content: bytes) -> BlockMap:
    """A new map in its place, or in memory for this process alone, if the disk does not take it."""
    with contextlib.suppress(OSError):
        make_directory(path.parent)
        number, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(number)
            remove_paths(path)
            os.rename(temporary, path)
        except OSError:
            remove_paths(Path(temporary))
            raise
        if (found := find_map(path, length)) is not None:
            return found
    number = os.memfd_create("ocifs-map", os.MFD_CLOEXEC)
    os.pwrite(number, content, 0)
    return BlockMap(number, length)


def _adopt(disk: Disk, digest: Digest) -> None:
    """Move the map of a whole blob to its place, if a crash prevented it."""
    rest, sums = disk.partial_map(digest), disk.whole_map(digest)
    with contextlib.suppress(OSError):
        if not sums.exists() and rest.exists() and not disk.partial(digest).exists():
            make_directory(sums.parent)
            os.rename(rest, sums)
