"""Where the two files of a blob are: moved when the blob is verified, removed when it is corrupt.

Called from worker threads; everything here blocks. Files are moved under the lock of the map's
header, and only if the path still leads to the file that this process has open.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ocifs.oci.digest import Digest
from ocifs.store.blobs.blockmap import BlockMap, is_at
from ocifs.store.disk import Disk, disk_error, make_directory, remove_paths

_HEADER_TRIES = 500  # ten milliseconds apart


def place(disk: Disk, digest: Digest, descriptor: int, block_map: BlockMap) -> Path:
    """Move a verified blob to the whole blobs, and its map beside them. Returns its new path.

    After a crash between the two moves the map is found at its old path. Raises CacheFailed,
    CacheFull.
    """
    path, target, target_map = disk.partial(digest), disk.whole(digest), disk.whole_map(digest)
    try:
        if not is_at(path, descriptor):
            # Already placed, held in memory, or removed by force: the path is not this file's.
            return target
        make_directory(target.parent)
        make_directory(target_map.parent)
        os.fdatasync(descriptor)
        block_map.sync()
        if _wait_for_header(block_map):
            try:
                if is_at(path, descriptor):
                    _move(path, target)
                    _move(disk.partial_map(digest), target_map)
            finally:
                block_map.unlock_header()
    except OSError as error:
        raise disk_error(error, target) from None
    return target


def drop(disk: Disk, digest: Digest, descriptor: int, block_map: BlockMap) -> None:
    """Remove both files of a blob, at whichever paths they are."""
    for path in (disk.whole_map(digest), disk.partial_map(digest)):
        if is_at(path, block_map.descriptor):
            remove_paths(path)
    for path in (disk.whole(digest), disk.partial(digest)):
        if is_at(path, descriptor):
            remove_paths(path)


def _wait_for_header(block_map: BlockMap) -> bool:
    """Lock the header of a map. Other processes hold it for moments only.

    A process that was stopped in such a moment prevents the move, but not the use of the blob.
    """
    for _ in range(_HEADER_TRIES):
        if block_map.try_lock_header():
            return True
        time.sleep(0.01)  # such locks have no timeout of their own
    return False


def _move(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
    except IsADirectoryError:
        remove_paths(target)
        os.rename(path, target)
