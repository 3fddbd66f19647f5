"""The handlers: find the node, await it, convert.

What is decided here is only what FUSE makes necessary.

Rules that hold here: every handler that may wait runs behind the guard; a handler holds no state of
its own but inodes and handles; nothing can be written. Only NotFound becomes a negative entry of
the kernel's, and only for a short time; an outage never does. The kernel is given content that it
did not ask for only while it answers the one who opens the file, and nobody else has it open:
whoever reads has pages of it locked until we answer, and we would wait for them.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Hashable, Sequence
from typing import NoReturn

import pyfuse3

from ocifs.errors import IntegrityError, NoAttribute, NotADirectory, NotFound, OcifsError
from ocifs.fuse.attributes import absent, entry_of
from ocifs.fuse.background import EarlyAnswers
from ocifs.fuse.guard import Guard
from ocifs.fuse.inodes import Handle, Handles, Inode, Inodes, OpenDirectory
from ocifs.settings import KIB, Timing
from ocifs.tree.node import (
    Attributes,
    Directory,
    DirectoryEntry,
    File,
    Node,
    is_directory,
    is_file,
    is_symlink,
    partial_entries,
)

log = logging.getLogger("ocifs.fuse")

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND | os.O_CREAT
_NAME_MAX = 255
_DOTS = (b".", b"..")  # first in each listing, as ls -a is used to
_UNKNOWN_INODE = Inode(
    0xFFFFFFFF
)  # what FUSE's own library says for the directory above, of which nothing is known below
_TARGET_MAX = (
    4095  # of a link; the kernel takes no longer answer, and calls it an error of the disk
)
_STORE_ON_OPEN = 128 * KIB
"""What the kernel is given of a file before it asks has no more bytes: as many as it reads ahead of itself, where nobody told it more."""


class Operations(pyfuse3.Operations):
    """What the kernel may ask."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, root: Directory, guard: Guard, timing: Timing) -> None:
        super().__init__()
        self.inodes = Inodes(root)
        self.files: Handles[tuple[File, int]] = Handles()
        self.directories: Handles[OpenDirectory] = Handles()
        self._guard = guard
        self._corrupt: dict[
            Hashable, Handle
        ] = {}  # files whose content was found wrong, and the newest handle then
        self._stale_pages: set[Hashable] = (
            set()
        )  # files whose pages in the kernel may be wrong: dropped at the next open
        self._open_counts: dict[int, int] = {}  # how often each file is open, by its inode
        self._early = EarlyAnswers()
        self._direct: set[Handle] = set()  # those of files that were opened with O_DIRECT
        self._openers: dict[Handle, int] = {}  # the thread that opened each handle
        self._can_store = True  # whether the kernel takes what it has not asked for
        self._negative = min(timing.negative_ttl, timing.tag_ttl)

    def _node(self, inode: int) -> Node:
        node = self.inodes.node(Inode(inode))
        if node is None:
            raise pyfuse3.FUSEError(errno.ESTALE)
        return node

    def _directory(self, inode: int) -> Directory:
        node = self._node(inode)
        if not is_directory(node):
            raise NotADirectory("a name is looked up in something that is no directory")
        return node

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if len(name) > _NAME_MAX:  # FUSE itself lets more through than statfs says
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)

        async def work() -> pyfuse3.EntryAttributes:
            try:
                node = await self._directory(parent_inode).lookup(name)
                if not node.attributes_known:
                    await node.restore_attributes()
            except NotFound:
                return absent(self._negative)
            return entry_of(node, self.inodes.remember(node))

        def nowait() -> pyfuse3.EntryAttributes | None:
            try:
                node = self._directory(parent_inode).lookup_nowait(name)
            except NotFound:
                return absent(self._negative)
            return None if node is None else entry_of(node, self.inodes.remember(node))

        return await self._guard.run("lookup", ctx.pid, work, nowait)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._guard.run_sync("getattr", self._getattr, inode)

    def _getattr(self, inode: int) -> pyfuse3.EntryAttributes:
        return entry_of(self._node(inode), Inode(inode))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, lookups in inode_list:
            self.inodes.forget(Inode(inode), lookups)

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._guard.run_sync("readlink", self._readlink, inode)

    def _readlink(self, inode: int) -> bytes:
        node = self._node(inode)
        if not is_symlink(node):
            raise pyfuse3.FUSEError(errno.EINVAL)
        if len(node.target) > _TARGET_MAX:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        return node.target

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & _WRITING:
            raise pyfuse3.FUSEError(errno.EROFS)
        opened = self._guard.run_sync("open", self._open, inode, ctx.uid)
        self._openers[Handle(opened.fh)] = ctx.pid
        if flags & os.O_DIRECT:
            self._direct.add(Handle(opened.fh))
        return opened

    def _open(self, inode: int, uid: int) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if getattr(type(node), "owner_only", False) and uid not in (0, os.getuid()):
            raise pyfuse3.FUSEError(errno.EACCES)
        if not is_file(node):
            raise pyfuse3.FUSEError(errno.EISDIR if is_directory(node) else errno.ELOOP)
        node.on_open()
        changes, is_stale = node.changes, bool(self._stale_pages) and node.key in self._stale_pages
        if is_stale:
            self._stale_pages.discard(node.key)
        handle = pyfuse3.FileHandleT(self.files.add((node, inode)))
        users = self._open_counts[inode] = self._open_counts.get(inode, 0) + 1
        if users == 1 and self._can_store and not (changes or is_stale):
            self._store_in_kernel(node, inode)
        return pyfuse3.FileInfo(fh=handle, direct_io=changes, keep_cache=not (changes or is_stale))

    def _store_in_kernel(self, node: File, inode: int) -> None:
        """Give the kernel a small file that is read next before it asks: to answer it costs as
        much, and this once less.
        """
        content = node.readahead_nowait(_STORE_ON_OPEN)
        if content is None:
            return
        try:
            pyfuse3.notify_store(pyfuse3.InodeT(inode), 0, content)
        except OSError as error:
            log.info("the kernel takes nothing that it has not asked for: %s", error)
            self._can_store = False
        else:
            self._guard.count_read(len(content))

    async def read(self, fh: int, off: int, size: int) -> bytes:
        opened = self.files.get(Handle(fh))
        if opened is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        node, inode = opened

        def on_early() -> None:
            self._early.add(inode, off, size)

        # The kernel frees a killed reader that waits for a page. One that asks in the foreground,
        # after an early answer, it does not free; which thread reads is not known here, but mostly
        # it is the one that opened the file.
        again = (inode, off) in self._early
        data = await self._guard.run(
            "read",
            self._openers.get(Handle(fh), 0) if again else 0,
            lambda: self._read(node, Handle(fh), off, size),
            lambda: self._read_nowait(node, Handle(fh), off, size),
            None if again or Handle(fh) in self._direct else on_early,
        )
        self._guard.count_read(len(data))
        return data

    async def _read(self, node: File, handle: Handle, offset: int, size: int) -> bytes:
        """Whoever had a file open when its content was found wrong may have read some of it, and
        reads no more of it.

        An error alone does not say so: the kernel ends a large read early, without one, and the
        program asks for the rest, which may by now have come from elsewhere.
        """
        if self._corrupt and handle <= self._corrupt.get(node.key, 0):
            raise IntegrityError(
                "what was read from this file before was found to be wrong; open it again"
            )
        try:
            return await node.read(offset, size)
        except IntegrityError:
            self._corrupt[node.key] = self.files.newest
            self._stale_pages.add(node.key)
            raise

    def _read_nowait(self, node: File, handle: Handle, offset: int, size: int) -> bytes | None:
        if self._corrupt and handle <= self._corrupt.get(node.key, 0):
            return None
        return node.read_nowait(offset, size)

    async def release(self, fh: int) -> None:
        opened = self.files.close(Handle(fh))
        if opened is None:
            return
        node, inode = opened
        left = self._open_counts.pop(inode) - 1
        if left:
            self._open_counts[inode] = left
        else:
            self._early.forget(inode)
        self._direct.discard(Handle(fh))
        self._openers.pop(Handle(fh), None)
        node.on_close()

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        node = self._node(inode)
        if not is_directory(node):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        if (
            not node.attributes_known
        ):  # tar asks for the attributes of what it has opened, and reads it then
            await self._guard.run("opendir", ctx.pid, node.load_attributes)
        return self.directories.add(OpenDirectory(node, ctx.pid, Inode(inode)))

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        opened = self.directories.get(Handle(fh))
        if opened is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        if opened.entries is None or start_id == 0:  # rewinddir(3) looks anew
            opened.error = None
            directory = opened.directory
            opened.entries = await self._guard.run(
                "readdir", opened.pid, lambda: self._entries(opened), directory.entries_nowait
            )
        if start_id < len(opened.entries) + len(_DOTS) or opened.error is not None:
            self._guard.run_sync("readdir", self._reply, opened, start_id, token)

    async def _entries(self, opened: OpenDirectory) -> Sequence[DirectoryEntry]:
        try:
            return await opened.directory.entries()
        except OcifsError as error:
            if not error.listed:
                raise
            opened.error = error
            return partial_entries(error)

    def _reply(self, opened: OpenDirectory, start: int, token: pyfuse3.ReaddirToken) -> None:
        if start < len(
            _DOTS
        ):  # the kernel counts no lookup of these, and takes number and type alone
            dot = entry_of(opened.directory, opened.inode)
            for position in range(start, len(_DOTS)):
                dot.st_ino = pyfuse3.InodeT(_UNKNOWN_INODE if position else opened.inode)
                if not pyfuse3.readdir_reply(token, _DOTS[position], dot, position + 1):
                    return
        entries = opened.entries or ()
        if opened.error is not None and start >= len(entries) + len(_DOTS):
            raise opened.error
        remember, reply = self.inodes.remember, pyfuse3.readdir_reply
        entry: pyfuse3.EntryAttributes | None = None
        shown: tuple[Attributes, float] | None = None
        for position in range(max(0, start - len(_DOTS)), len(entries)):
            name, node = entries[position]
            inode = remember(node)
            # Neighbours are often alike, as the links of tags are, and the kernel's copy is made in `reply`.
            if entry is not None and shown == (node.attributes, node.lifetime):
                entry.st_ino = pyfuse3.InodeT(inode)
            else:
                entry, shown = entry_of(node, inode), (node.attributes, node.lifetime)
            if not reply(token, name, entry, position + len(_DOTS) + 1):
                self.inodes.forget(inode, 1)  # there was no room, and the kernel is not told of it
                return

    async def releasedir(self, fh: int) -> None:
        self.directories.close(Handle(fh))

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        node, wanted = self._node(inode), bytes(name)

        def nowait() -> bytes | None:
            if wanted not in node.attribute_names():  # `ls -l` asks for two of each file
                raise NoAttribute(f"no extended attribute {wanted!r} here")
            return None

        return await self._guard.run("getxattr", ctx.pid, lambda: node.attribute(wanted), nowait)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return self._guard.run_sync("listxattr", self._listxattr, inode, ctx.uid)

    def _listxattr(self, inode: int, user: int) -> Sequence[bytes]:
        """As on a disk, only root is told of what the kernel gives to root alone (xattr(7)): rsync
        -X fails where it reads none.
        """
        names = self._node(inode).attribute_names()
        return names if user == 0 else [name for name in names if not name.startswith(b"trusted.")]

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Nobody is asked: a registry has no size, and `df` must not wait for one."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_files = len(self.inodes)
        data.f_namemax = _NAME_MAX
        return data

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return not mode & os.W_OK

    async def flush(self, fh: int) -> None:
        """Nothing is ever written.

        After this answer close(2) succeeds, and the kernel asks no more: a request less for each
        file.
        """
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def fsync(self, fh: int, datasync: bool) -> None:
        return None

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        return None


async def _read_only(*_: object) -> NoReturn:
    raise pyfuse3.FUSEError(errno.EROFS)


for _name in (
    *("create", "mkdir", "mknod", "unlink", "rmdir", "rename", "link", "symlink"),
    *("setattr", "write", "setxattr", "removexattr"),
):
    setattr(Operations, _name, _read_only)
