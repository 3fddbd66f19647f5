"""Open files: the state of each handle, and when the kernel may keep cached pages.

`Operations` owns one `OpenFiles`, and calls it from the event loop. No method waits.

The kernel caches pages of a file beyond its close, and ocifs may also store pages that were not
requested. Both depend on the state of the file:

- A file that changes (`File.changes`) is opened with direct I/O: no pages.
- The key of a corrupt file is recorded. Handles that were open at that moment read no more of it,
  since their reader may have seen wrong bytes. The next open drops the kernel's pages.
- Pages are stored only during an open of a file that has no other open handle. A reader locks the
  pages that it waits for, and storing them would wait for the reader, which waits for the daemon.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass

import pyfuse3

from ocifs.errors import IntegrityError
from ocifs.fuse.background import EarlyAnswers
from ocifs.fuse.inodes import Handle, Handles
from ocifs.settings import KIB
from ocifs.tree.node import File

log = logging.getLogger("ocifs.fuse")

_MAX_STORED = 128 * KIB
"""The longest file that is stored when it is opened: the kernel's default read-ahead."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file. `pid` is the thread that opened it; `direct`: with O_DIRECT."""

    node: File
    inode: int
    pid: int
    direct: bool


class OpenFiles:
    """The open files of a mount."""

    def __init__(self) -> None:
        self._handles: Handles[OpenFile] = Handles()
        # The keys of corrupt files, each with the newest handle at that moment.
        self._corrupt: dict[Hashable, Handle] = {}
        # The keys of files with possibly corrupt pages in the kernel, until the next open.
        self._stale_pages: set[Hashable] = set()
        self._open_counts: dict[int, int] = {}
        # False once the kernel has rejected pages. They are not offered again.
        self._kernel_stores = True
        self.early = EarlyAnswers()

    def add(self, file: OpenFile) -> tuple[Handle, bool]:
        """Add an open file. Returns its handle, and whether the kernel may keep its pages."""
        node = file.node
        node.on_open()
        # The set is nearly always empty, and a node of a layer computes its key at each use.
        is_stale = bool(self._stale_pages) and node.key in self._stale_pages
        if is_stale:
            self._stale_pages.discard(node.key)
        self._open_counts[file.inode] = self._open_counts.get(file.inode, 0) + 1
        return self._handles.add(file), not (node.changes or is_stale)

    def get(self, handle: Handle) -> OpenFile | None:
        return self._handles.get(handle)

    def close(self, handle: Handle) -> None:
        """Remove a handle. A handle that is not open is ignored."""
        file = self._handles.close(handle)
        if file is None:
            return
        remaining = self._open_counts.pop(file.inode) - 1
        if remaining:
            self._open_counts[file.inode] = remaining
        else:
            self.early.forget(file.inode)
        file.node.on_close()

    def store_pages(self, file: OpenFile) -> int:
        """Store the pages of a small file that is read next, if this is its only handle.

        It costs as much as to answer the read, and saves the request. Returns the number of bytes.
        """
        if self._open_counts[file.inode] > 1 or not self._kernel_stores or file.node.fast is None:
            return 0
        content = file.node.fast.readahead_nowait(_MAX_STORED)
        if content is None:
            return 0
        try:
            pyfuse3.notify_store(pyfuse3.InodeT(file.inode), 0, content)
        except OSError as error:
            log.info("the kernel does not accept pages that it did not request: %s", error)
            self._kernel_stores = False
            return 0
        return len(content)

    def is_corrupt(self, node: File, handle: Handle) -> bool:
        """Whether the file was found corrupt while this handle was open."""
        # Handles are numbered in the order of opens, so a later one is greater.
        return bool(self._corrupt) and handle <= self._corrupt.get(node.key, 0)

    async def read(self, node: File, handle: Handle, offset: int, size: int) -> bytes:
        """Read from a file, and record that it is corrupt if it is.

        An error alone does not stop the reader: the kernel ends a large read early, without an
        error, and the program requests the rest, which may then come from another mirror. After a
        transient error it may, since no wrong byte was read.
        """
        if self.is_corrupt(node, handle):
            raise IntegrityError("corrupt bytes of this file may have been read; open it again")
        try:
            return await node.read(offset, size)
        except IntegrityError as error:
            if not error.is_transient:
                self._corrupt[node.key] = self._handles.newest
                self._stale_pages.add(node.key)
            raise

    def read_nowait(self, node: File, handle: Handle, offset: int, size: int) -> bytes | None:
        """Read from memory, or None if `read` must be called."""
        fast = node.fast
        # `read` raises the error of a corrupt file.
        if fast is None or self.is_corrupt(node, handle):
            return None
        return fast.read_nowait(offset, size)
