"""Attributes of nodes as pyfuse3's structures."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

import pyfuse3

from ocifs.fuse.inodes import Inode
from ocifs.settings import MountFlags
from ocifs.tree.node import Attributes, Node

# An unlimited lifetime: ten years are longer than any mount.
_FOREVER = 10 * 365 * 86400
_BLOCK = 512


class Presentation(NamedTuple):
    """The owner of nodes without one of their own, and the bits of modes that are shown."""

    uid: int = os.getuid()
    gid: int = os.getgid()
    mode_mask: int = 0o177777

    @staticmethod
    def of(flags: MountFlags) -> Presentation:
        """The presentation that the options of a mount select."""
        return Presentation(
            os.getuid() if flags.uid is None else flags.uid,
            os.getgid() if flags.gid is None else flags.gid,
            0o177777 & ~flags.umask,
        )


MOUNTING_USER = Presentation()


def entry_of(
    node: Node, inode: Inode, shown_as: Presentation = MOUNTING_USER
) -> pyfuse3.EntryAttributes:
    """A node's attributes. An owner of None is that of the mount."""
    shown: Attributes = node.attributes
    lifetime = min(node.lifetime, _FOREVER)
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(inode)
    entry.generation = 0
    entry.entry_timeout = lifetime
    entry.attr_timeout = lifetime
    entry.st_mode = pyfuse3.ModeT(
        shown.mode if stat.S_ISLNK(shown.mode) else shown.mode & shown_as.mode_mask
    )
    entry.st_nlink = shown.nlink
    entry.st_uid = shown_as.uid if shown.uid is None else shown.uid
    entry.st_gid = shown_as.gid if shown.gid is None else shown.gid
    entry.st_rdev = shown.rdev
    entry.st_size = shown.size
    entry.st_blksize = 131072
    entry.st_blocks = -(-shown.size // _BLOCK)
    entry.st_atime_ns = entry.st_mtime_ns = shown.mtime_ns
    entry.st_ctime_ns = shown.mtime_ns if shown.ctime_ns is None else shown.ctime_ns
    return entry


def absent(seconds: float) -> pyfuse3.EntryAttributes:
    """A negative entry: the kernel caches for so many seconds that the name does not exist."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = seconds
    return entry
