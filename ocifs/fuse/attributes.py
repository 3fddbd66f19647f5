"""Attributes of nodes as pyfuse3's structures."""

from __future__ import annotations

import os

import pyfuse3

from ocifs.fuse.inodes import Inode
from ocifs.tree.node import Attributes, Node

# An unlimited lifetime: ten years are longer than any mount.
_FOREVER = 10 * 365 * 86400
_BLOCK = 512
_UID, _GID = os.getuid(), os.getgid()


def entry_of(node: Node, inode: Inode) -> pyfuse3.EntryAttributes:
    """A node's attributes. An owner of None is the mounting user."""
    shown: Attributes = node.attributes
    lifetime = min(node.lifetime, _FOREVER)
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(inode)
    entry.generation = 0
    entry.entry_timeout = lifetime
    entry.attr_timeout = lifetime
    entry.st_mode = pyfuse3.ModeT(shown.mode)
    entry.st_nlink = shown.nlink
    entry.st_uid = _UID if shown.uid is None else shown.uid
    entry.st_gid = _GID if shown.gid is None else shown.gid
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
