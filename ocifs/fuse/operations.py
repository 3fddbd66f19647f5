"""The handlers of FUSE requests: find the node, await it, convert the answer.

pyfuse3's workers call a handler for each request, all in the event loop, and many at a time. A
handler runs its work through `Guard`, which sets the deadline, turns errors into errnos, and
cancels the work when the caller is interrupted. Handlers decide only matters of FUSE itself, and
leave the rest to the nodes.

A request takes one of two paths:

    Guard.run(nowait, work)    `nowait` answers from memory (`ocifs.tree.node.FastPath`), without a
                               deadline or a task switch. If it returns None, `work` is awaited.
    Guard.run_sync(work)       for handlers that never wait

State: the inodes that the kernel uses (`inodes.py`), the open files (`open_files.py`) and the open
directories. All of it belongs to one mount, and ends with it.

Rules that hold here:

- Every handler that may wait runs behind the guard.
- Nothing can be written (`read_only.py`).
- Only NotFound becomes a negative entry in the kernel, and only for a short time. An outage never
  does: a name must not disappear because a registry is down.
- The kernel's cache is never invalidated from a handler.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pyfuse3

from ocifs.errors import NotADirectory, NotFound, OcifsError
from ocifs.fuse.attributes import MOUNTING_USER, Presentation, entry_of
from ocifs.fuse.guard import Guard
from ocifs.fuse.inodes import Handle, Handles, Inode, Inodes, OpenDirectory
from ocifs.fuse.kernel_names import KernelNames
from ocifs.fuse.listing import DOTS, KernelTables, send_entries
from ocifs.fuse.open_files import OpenFile, OpenFiles
from ocifs.fuse.read_only import ReadOnlyOperations
from ocifs.settings import Timing
from ocifs.tree.node import (
    Directory,
    DirectoryEntry,
    Node,
    is_directory,
    is_file,
    is_symlink,
    partial_entries,
)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND | os.O_CREAT
_NAME_MAX = 255
# The kernel accepts no longer target, and reports it as EIO.
_TARGET_MAX = 4095


class Operations(ReadOnlyOperations):
    """The handlers of one mount."""

    def __init__(
        self,
        root: Directory,
        guard: Guard,
        timing: Timing,
        names: KernelNames | None = None,
        shown_as: Presentation = MOUNTING_USER,
    ) -> None:
        super().__init__()
        self.inodes = Inodes(root)
        self._files = OpenFiles()
        self._directories: Handles[OpenDirectory] = Handles()
        self._guard = guard
        names = KernelNames() if names is None else names
        self._tables = KernelTables(self.inodes, names, shown_as)
        # With a short `--tag-ttl`, a new tag must not be absent for longer than that.
        self._negative = min(timing.negative_ttl, timing.tag_ttl)

    def _node(self, inode: int) -> Node:
        node = self.inodes.node(Inode(inode))
        if node is None:
            raise pyfuse3.FUSEError(errno.ESTALE)
        return node

    def _directory(self, inode: int) -> Directory:
        node = self._node(inode)
        if not is_directory(node):
            raise NotADirectory("not a directory: the parent of a lookup")
        return node

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        # FUSE itself passes longer names than statfs allows.
        if len(name) > _NAME_MAX:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)

        async def work() -> pyfuse3.EntryAttributes:
            try:
                with self._tables.names.looking_up(Inode(parent_inode)):
                    node = await self._directory(parent_inode).lookup(name)
                # Only the cache is read: a stat of `rootfs` must not fetch an image.
                if not node.attributes_known:
                    await node.restore_attributes()
            except NotFound:
                return self._tables.absent(Inode(parent_inode), name, self._negative)
            return self._tables.found(Inode(parent_inode), name, node)

        def nowait() -> pyfuse3.EntryAttributes | None:
            fast = self._directory(parent_inode).fast
            if fast is None:
                return None
            try:
                node = fast.lookup_nowait(name)
            except NotFound:
                return self._tables.absent(Inode(parent_inode), name, self._negative)
            return None if node is None else self._tables.found(Inode(parent_inode), name, node)

        return await self._guard.run("lookup", ctx.pid, work, nowait)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._guard.run_sync("getattr", self._getattr, inode)

    def _getattr(self, inode: int) -> pyfuse3.EntryAttributes:
        return entry_of(self._node(inode), Inode(inode), self._tables.shown_as)

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
        return self._guard.run_sync("open", self._open, inode, flags, ctx)

    def _open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if not is_file(node):
            raise pyfuse3.FUSEError(errno.EISDIR if is_directory(node) else errno.ELOOP)
        if node.owner_only and ctx.uid not in (0, os.getuid()):
            raise pyfuse3.FUSEError(errno.EACCES)
        file = OpenFile(node, inode, ctx.pid, bool(flags & os.O_DIRECT))
        handle, keep_cache = self._files.add(file)
        if keep_cache:
            # The kernel answers reads of stored pages itself, so they are counted here.
            self._guard.count_read(self._files.store_pages(file))
        return pyfuse3.FileInfo(
            fh=pyfuse3.FileHandleT(handle), direct_io=node.changes, keep_cache=keep_cache
        )

    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle, files = Handle(fh), self._files
        file = files.get(handle)
        if file is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        node, inode = file.node, file.inode

        def on_early() -> None:
            files.early.add(inode, off, size)

        # The kernel frees a killed reader that waits for a page. It does not free one that requests
        # in the foreground, after an early answer. The thread that reads is not known here; mostly
        # it is the opener of the file.
        again = (inode, off) in files.early
        data = await self._guard.run(
            "read",
            file.pid if again else 0,
            lambda: files.read(node, handle, off, size),
            lambda: files.read_nowait(node, handle, off, size),
            None if again or file.direct else on_early,
        )
        self._guard.count_read(len(data))
        return data

    async def release(self, fh: int) -> None:
        self._files.close(Handle(fh))

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        node = self._node(inode)
        if not is_directory(node):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        # tar calls fstat on the open directory, and lists it afterwards.
        if not node.attributes_known:
            await self._guard.run("opendir", ctx.pid, node.load_attributes)
        return self._directories.add(OpenDirectory(node, ctx.pid, Inode(inode)))

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        opened = self._directories.get(Handle(fh))
        if opened is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        # A start of 0 is the first request, or rewinddir(3), which must list anew.
        if opened.entries is None or start_id == 0:
            opened.error = None
            fast = opened.directory.fast
            opened.entries = await self._guard.run(
                "readdir",
                opened.pid,
                lambda: self._entries(opened),
                None if fast is None else fast.entries_nowait,
            )
        if start_id < len(opened.entries) + len(DOTS) or opened.error is not None:
            self._guard.run_sync("readdir", send_entries, self._tables, opened, start_id, token)

    async def _entries(self, opened: OpenDirectory) -> Sequence[DirectoryEntry]:
        try:
            return await opened.directory.entries()
        except OcifsError as error:
            if not error.listed:
                raise
            # A reply has either entries or an error, so the error follows after the last entry.
            opened.error = error
            return partial_entries(error)

    async def releasedir(self, fh: int) -> None:
        self._directories.close(Handle(fh))

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        node, wanted = self._node(inode), bytes(name)

        # Programs request attributes of each file, and most files have none.
        def nowait() -> bytes | None:
            if wanted in node.attribute_names():
                return None
            # `ls` requests an unsupported attribute of no further file (decision 0352).
            unsupported = wanted in node.unsupported_attributes
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP if unsupported else errno.ENODATA)

        return await self._guard.run("getxattr", ctx.pid, lambda: node.attribute(wanted), nowait)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return self._guard.run_sync("listxattr", self._listxattr, inode, ctx.uid)

    def _listxattr(self, inode: int, uid: int) -> Sequence[bytes]:
        """List the names. As on a disk, `trusted.*` is visible to root only (xattr(7)):
        rsync -X fails if it cannot read a listed one.
        """
        names = self._node(inode).attribute_names()
        return names if uid == 0 else [name for name in names if not name.startswith(b"trusted.")]

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """No request: a registry has no size, and `df` must not wait for one."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_files = len(self.inodes)
        data.f_namemax = _NAME_MAX
        return data


class OperationsWithoutXattrs(Operations):
    """The handlers of a mount without extended attributes.

    After ENOSYS, the kernel answers further requests of this mount itself, with EOPNOTSUPP.
    """

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        raise pyfuse3.FUSEError(errno.ENOSYS)
