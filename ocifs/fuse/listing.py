"""Sends the entries of an open directory to the kernel, as many as a readdir request has room for.

Called by `Operations.readdir` from the event loop, once the listing is in memory. Positions that
the kernel sends back count `.` and `..` first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyfuse3

from ocifs.fuse.attributes import MOUNTING_USER, Presentation, absent, entry_of
from ocifs.fuse.inodes import Inode, Inodes, OpenDirectory
from ocifs.fuse.kernel_names import KernelNames
from ocifs.tree.node import FOREVER, Attributes, Node

DOTS = (b".", b"..")
# libfuse's number for a parent directory with an unknown inode.
_UNKNOWN_INODE = Inode(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class KernelTables:
    """The records of a mount about the nodes that it sends to the kernel, and how to show them."""

    inodes: Inodes
    names: KernelNames = field(default_factory=KernelNames)
    shown_as: Presentation = MOUNTING_USER

    def found(self, parent: Inode, name: bytes, node: Node) -> pyfuse3.EntryAttributes:
        """The entry of a node that was looked up, which counts as a lookup."""
        if node.lifetime != FOREVER:
            self.names.record(parent, name, node.lifetime)
        return entry_of(node, self.inodes.add_lookup(node), self.shown_as)

    def absent(self, parent: Inode, name: bytes, seconds: float) -> pyfuse3.EntryAttributes:
        """The entry of a name that does not exist, which the kernel may cache for some seconds."""
        self.names.record(parent, name, seconds)
        return absent(seconds)


def send_entries(
    tables: KernelTables, opened: OpenDirectory, start: int, token: pyfuse3.ReaddirToken
) -> None:
    """Send the entries from position `start`. Raises the error that ends a partial listing."""
    inodes, shown_as = tables.inodes, tables.shown_as
    if start < len(DOTS) and not _send_dots(opened, start, token):
        return
    entries = opened.entries or ()
    if opened.error is not None and start >= len(entries) + len(DOTS):
        raise opened.error
    add_lookup, reply = inodes.add_lookup, pyfuse3.readdir_reply
    reply_entry: pyfuse3.EntryAttributes | None = None
    previous: tuple[Attributes, float] | None = None
    for position in range(max(0, start - len(DOTS)), len(entries)):
        name, node = entries[position]
        inode = add_lookup(node)
        # Neighbours often have equal attributes, for example the links of tags. `reply` copies
        # them.
        if reply_entry is not None and previous == (node.attributes, node.lifetime):
            reply_entry.st_ino = pyfuse3.InodeT(inode)
        else:
            reply_entry = entry_of(node, inode, shown_as)
            previous = (node.attributes, node.lifetime)
        if not reply(token, name, reply_entry, position + len(DOTS) + 1):
            # No room: the kernel does not receive the entry.
            inodes.forget(inode, 1)
            return
        if node.lifetime != FOREVER:
            tables.names.record(opened.inode, name, node.lifetime)


def _send_dots(opened: OpenDirectory, start: int, token: pyfuse3.ReaddirToken) -> bool:
    """Send `.` and `..`. The kernel counts no lookup of them, and uses number and type only."""
    dot = entry_of(opened.directory, opened.inode)
    for position in range(start, len(DOTS)):
        dot.st_ino = pyfuse3.InodeT(_UNKNOWN_INODE if position else opened.inode)
        if not pyfuse3.readdir_reply(token, DOTS[position], dot, position + 1):
            return False
    return True
