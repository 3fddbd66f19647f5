"""The two files of a blob, its bytes and its map: opened, created, and replaced if damaged.

Called from worker threads. Everything here blocks, and nothing here waits for another process.

At the path of such a file there may be anything: a directory, a link, a map of another size or
format, a file without read permission. It is removed, and the blob is fetched again. A whole blob
is served only with a map. One without a map is hashed once, which creates the map.

- A file at its final path is complete from the first moment, or every process checks it before use.
- Files are created and moved under the lock of the map's header, and only if this process has them
  open.
- A descriptor with a wrong size, which any user can push, never removes a good blob.
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

_OPENINGS = 100  # attempts to open files that other processes remove


class BlobFiles(NamedTuple):
    """The open files of a blob. `complete`: every block is cached, and none is known as damaged."""

    descriptor: int
    map: BlockMap
    complete: bool


def open_parts(disk: Disk, digest: Digest, size: int, *, regardless: bool = False) -> BlobFiles:
    """The files of a blob of which some blocks may be cached.

    Raises OSError, and BlockingIOError while another process holds the map. `regardless`: do not
    wait for such a process, which is safe since each block is checked.
    """
    path, map_path = disk.partial(digest), disk.partial_map(digest)
    make_directory(path.parent)
    for _ in range(_OPENINGS):
        try:
            block_map = find_map(map_path, size)
        except BlockingIOError:
            if not regardless:
                raise
            remove_paths(path, map_path)  # a process was stopped while it evicted them
            continue
        if block_map is None:
            _create_map(disk, path, map_path, size)
            continue
        descriptor = _open_beside(block_map, path, map_path, regardless=regardless)
        if descriptor is not None:
            # Bytes may be missing at the end of a file that was just created, or was truncated. As
            # a hole they fail their checksums.
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            return BlobFiles(descriptor, block_map, complete=False)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _open_beside(
    block_map: BlockMap, path: Path, map_path: Path, *, regardless: bool
) -> int | None:
    """The bytes that belong to a map.

    None, with the map closed, if the map is no longer at its path or the bytes are damaged.
    """
    descriptor = None
    try:
        if not block_map.try_lock_header() and not regardless:
            raise BlockingIOError(errno.EAGAIN, "another process holds it", str(map_path))
        # Otherwise the map was evicted or moved meanwhile, and a file that is created here would
        # belong to another map.
        if is_at(map_path, block_map.descriptor):
            try:
                descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
                lock_shared(descriptor)
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
                remove_paths(path, map_path)
    finally:
        block_map.unlock_header()
        if descriptor is None:
            block_map.close()
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
"""The errors of opening something other than a file of this cache."""


def _create_map(disk: Disk, path: Path, map_path: Path, size: int) -> None:
    """Create an empty map, which appears complete.

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
                # `find_map` cannot open a map without write permission, so that one is replaced.
                and os.access(map_path, os.W_OK)
            ):
                return  # another process has just created it
        finally:
            os.close(descriptor)
        remove_paths(path, map_path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    try:
        disk.with_room(lambda: os.ftruncate(descriptor, map_length(size)))
        disk.with_room(lambda: os.pwrite(descriptor, header_of(size), 0))
        # A link, unlike a rename, does not replace the map of another process.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, map_path)
    finally:
        os.close(descriptor)
        remove_paths(Path(temporary))


def open_whole(
    disk: Disk, digest: Digest, size: int, progress: Callable[[], None]
) -> BlobFiles | None:
    """The files of a whole blob, or None if there is none.

    `progress` is called while it is hashed, which may take minutes. Content that does not match the
    digest is removed. Raises IntegrityError for a good blob of another size, and OSError for one
    that cannot be read.
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
    # For writing, so that damaged blocks can be fetched again, if the permissions allow it.
    try:
        return open_regular(path, os.O_RDWR)
    except OSError:
        return open_regular(path, os.O_RDONLY)


def _with_map(disk: Disk, digest: Digest, descriptor: int, size: int) -> BlobFiles | None:
    """A whole blob with its map. If its length has changed, it is checked block by block."""
    length = os.fstat(descriptor).st_size
    # A map that this process cannot write still verifies reads.
    for flags in (os.O_RDWR, os.O_RDONLY):
        try:
            block_map = find_map(disk.whole_map(digest), size, flags)
            other = None
            if block_map is None and length != size:
                other = find_map(disk.whole_map(digest), length, flags)
        except BlockingIOError:
            return None
        # A map of the file's own length means that the file is right, and the descriptor wrong.
        if other is not None:
            verified = other.verified
            other.close()
            if verified:
                raise _other_size(digest, length, size)
        if block_map is None:
            continue
        try:
            if length != size:
                os.ftruncate(descriptor, size)
                block_map.set_unverified()
            return BlobFiles(descriptor, block_map, complete=block_map.verified)
        except OSError:
            block_map.close()
    return None


def _other_size(digest: Digest, length: int, size: int) -> IntegrityError:
    return IntegrityError(f"{digest} has {length} bytes, its descriptor has {size}")


def _with_new_map(
    disk: Disk, digest: Digest, descriptor: int, size: int, progress: Callable[[], None]
) -> BlobFiles | None:
    """A whole blob without a usable map, which is hashed; None if it does not match its digest.

    Raises OSError, IntegrityError.
    """
    length = os.fstat(descriptor).st_size
    words = _checksums_of(digest, descriptor, length, progress)
    if words is None:
        return None
    content = header_of(length, verified=True) + words.tobytes()
    block_map = _store_map(disk.whole_map(digest), length, content)
    if length != size:
        block_map.close()
        raise _other_size(digest, length, size)
    return BlobFiles(descriptor, block_map, complete=True)


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


def _store_map(path: Path, length: int, content: bytes) -> BlockMap:
    """A new map on the disk, or in memory for this process only if the disk does not store it."""
    with contextlib.suppress(OSError):
        make_directory(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            # A rename does not replace a directory.
            remove_paths(path)
            os.rename(temporary, path)
        except OSError:
            remove_paths(Path(temporary))
            raise
        if (block_map := find_map(path, length)) is not None:
            return block_map
    descriptor = os.memfd_create("ocifs-map", os.MFD_CLOEXEC)
    os.pwrite(descriptor, content, 0)
    return BlockMap(descriptor, length)


def _adopt(disk: Disk, digest: Digest) -> None:
    """Move the map of a whole blob to its final path, if a crash prevented that."""
    path, target = disk.partial_map(digest), disk.whole_map(digest)
    with contextlib.suppress(OSError):
        # The content moves first (`placement.py`), so a crash can leave its map behind.
        if not target.exists() and path.exists() and not disk.partial(digest).exists():
            make_directory(target.parent)
            os.rename(path, target)
