"""The fastest file system that pyfuse3 allows: the tree of a tar, served from memory.

    python -m scripts.bench_floor TAR MOUNTPOINT    mounts in the foreground until it is unmounted

The peer that separates the cost of ocifs from that of the kernel, libfuse, pyfuse3 and trio.

Rules that hold here:
- Every attribute and byte is computed before the mount.
- A handler looks up and answers. It does not check, count, log or wait.
- The kernel may cache everything without a time limit.
- The workers take turns as those of ocifs do, and the first open of a small file hands its content
  to the kernel. Without these two it would not be the fastest (decision 0054).
"""

from __future__ import annotations

import errno
import stat
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyfuse3
import trio

from ocifs.fuse.worker_patch import patch_workers

_FOR_GOOD = 3600.0
_STORE_ON_OPEN = 128 << 10
_KINDS = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


@dataclass
class Thing:
    """One inode, with its answers."""

    attributes: pyfuse3.EntryAttributes
    content: bytes = b""
    given: bool = False
    children: dict[bytes, Thing] = field(default_factory=dict)
    listing: list[tuple[bytes, pyfuse3.EntryAttributes]] = field(default_factory=list)


class Floor(pyfuse3.Operations):
    """The handlers."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, path: str) -> None:
        super().__init__()
        self._things: dict[int, Thing] = {}
        root = self._new(stat.S_IFDIR | 0o755)
        with tarfile.open(path) as tar:
            for member in tar:
                self._add(root, tar, member)
        for thing in self._things.values():
            thing.listing = [(name, child.attributes) for name, child in thing.children.items()]

    def _new(self, mode: int) -> Thing:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = pyfuse3.ROOT_INODE + len(self._things)
        attributes.st_mode = mode
        attributes.entry_timeout = attributes.attr_timeout = _FOR_GOOD
        thing = self._things[attributes.st_ino] = Thing(attributes)
        return thing

    def _add(self, root: Thing, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        *parents, name = [
            part.encode() for part in member.name.split("/") if part not in ("", ".")
        ] or [b""]
        directory = root
        for part in parents:
            if part not in directory.children:
                directory.children[part] = self._new(stat.S_IFDIR | 0o755)
            directory = directory.children[part]
        if not name:
            return
        thing = self._new(_KINDS.get(member.type, stat.S_IFREG) | member.mode)
        opened = tar.extractfile(member) if member.isreg() or member.islnk() else None
        thing.content = opened.read() if opened else member.linkname.encode()
        directory.children[name] = thing
        attributes = thing.attributes
        attributes.st_size, attributes.st_uid, attributes.st_gid = (
            len(thing.content),
            member.uid,
            member.gid,
        )
        attributes.st_mtime_ns = attributes.st_ctime_ns = attributes.st_atime_ns = int(
            member.mtime * 1e9
        )

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        child = self._things[parent_inode].children.get(name)
        if child is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return child.attributes

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._things[inode].attributes

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._things[inode].content

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        return

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        thing = self._things[inode]
        if not thing.given and 0 < len(thing.content) <= _STORE_ON_OPEN:
            thing.given = True
            pyfuse3.notify_store(inode, 0, thing.content)
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self._things[fh].content[off : off + size]

    async def flush(self, fh: int) -> None:
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def release(self, fh: int) -> None:
        return

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._things[fh].listing
        for at in range(start_id, len(listing)):
            name, attributes = listing[at]
            if not pyfuse3.readdir_reply(token, name, attributes, at + 1):
                return

    async def releasedir(self, fh: int) -> None:
        return


def main(tar: str, mountpoint: str) -> None:
    patch_workers(lambda: False)
    pyfuse3.init(Floor(tar), mountpoint, {*pyfuse3.default_options, "fsname=floor", "ro"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
