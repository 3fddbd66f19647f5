"""What stat shows of the root of a tree, kept by itself: a few hundred bytes, where its index can
have megabytes.

A root is asked for by whoever lists the directory that it stands in, which must not cost a look
into the tree.

Rules that hold here: pure but for `Roots`, which waits for the disk in threads; what is not exactly
what `encode` made is None; a root that cannot be kept is found again at the next look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ocifs.concurrency import in_thread
from ocifs.content import DerivedCache
from ocifs.layers.checksummed import seal, unseal
from ocifs.layers.derived import load, save
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.indexing.pipeline import Layer
from ocifs.oci.digest import Digest

KIND = "layer-root.1"


class RootAttributes(NamedTuple):
    """The entry that gave a root its attributes, and its names as stat counts them: 2, and one for
    each directory in it.
    """

    entry: LayerEntry
    names: int


def name_of(layers: Sequence[Layer], *how: object) -> Digest:
    """What names a root: the layers that its tree is made of, and how."""
    return Digest.of(" ".join([*(str(layer.key) for layer in layers), *map(repr, how)]).encode())


class RootAttributesCache:
    """Roots on a DerivedCache."""

    def __init__(self, shelf: DerivedCache) -> None:
        self._shelf = shelf

    async def find(self, name: Digest) -> RootAttributes | None:
        """A root that was kept."""
        return await in_thread(self._find, name)

    async def keep(self, name: Digest, root: RootAttributes) -> None:
        """Keep a root, unless it is kept already."""
        await in_thread(self._keep, name, root)

    def _find(self, name: Digest) -> RootAttributes | None:
        return load(self._shelf, KIND, name, decode)

    def _keep(self, name: Digest, root: RootAttributes) -> None:
        if self._find(name) != root:
            save(self._shelf, KIND, name, encode(root))


def encode(root: RootAttributes) -> bytes:
    """The bytes of a root."""
    entry = root.entry
    head = {
        "kind": KIND,
        "member": [entry.mode, entry.uid, entry.gid, entry.mtime_ns],
        "xattrs": [[name.hex(), value.hex()] for name, value in entry.xattrs],
        "names": root.names,
    }
    return seal(head, b"")


def decode(data: bytes) -> RootAttributes | None:
    """The root that some bytes are, or None."""
    opened = unseal(data, KIND)
    if opened is None:
        return None
    head: dict[str, Any] = opened[0]
    mode, uid, gid, mtime_ns = head["member"]
    xattrs = tuple((bytes.fromhex(name), bytes.fromhex(value)) for name, value in head["xattrs"])
    return RootAttributes(
        LayerEntry(b"", EntryKind.DIRECTORY, mode, uid, gid, mtime_ns, xattrs=xattrs), head["names"]
    )
