"""The attributes of the root of a tree, cached apart from the tree.

A listing of the directory that contains the root needs its attributes, and must not cost a look
into the tree. They are a few hundred bytes; the index of a layer can have megabytes.

The encoding is pure. `RootAttributesCache` reads and writes files in worker threads.

Rules:

- Data that `encode` did not return is None.
- Attributes that cannot be saved are determined again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ocifs.concurrency import in_thread
from ocifs.content import DerivedCache
from ocifs.layers.checksummed import seal, unseal
from ocifs.layers.derived import load, save
from ocifs.layers.index.entry import EntryKind, LayerEntry
from ocifs.layers.indexing.layer import Layer
from ocifs.oci.digest import Digest

KIND = "layer-root.1"


class RootAttributes(NamedTuple):
    """The entry of a root, and its link count: 2, and one for each directory in it."""

    entry: LayerEntry
    names: int


def name_of(layers: Sequence[Layer], *options: object) -> Digest:
    """Return the cache key of a root: its layers, and how they are merged."""
    return Digest.of(
        " ".join([*(str(layer.key) for layer in layers), *map(repr, options)]).encode()
    )


class RootAttributesCache:
    """Attributes of roots, in a DerivedCache."""

    def __init__(self, derived: DerivedCache) -> None:
        self._derived = derived

    async def find(self, name: Digest) -> RootAttributes | None:
        """Return cached attributes, or None."""
        return await in_thread(self._find, name)

    async def save(self, name: Digest, root: RootAttributes) -> None:
        """Save attributes, unless they are in the cache."""
        await in_thread(self._save, name, root)

    def _find(self, name: Digest) -> RootAttributes | None:
        return load(self._derived, KIND, name, decode)

    def _save(self, name: Digest, root: RootAttributes) -> None:
        # A write costs an fsync, and a later mount nearly always has the same attributes.
        if self._find(name) != root:
            save(self._derived, KIND, name, encode(root))


def encode(root: RootAttributes) -> bytes:
    """Encode attributes."""
    entry = root.entry
    head = {
        "kind": KIND,
        "member": [entry.mode, entry.uid, entry.gid, entry.mtime_ns],
        "xattrs": [[name.hex(), value.hex()] for name, value in entry.xattrs],
        "names": root.names,
    }
    return seal(head, b"")


def decode(data: bytes) -> RootAttributes | None:
    """Decode attributes; None for other data."""
    opened = unseal(data, KIND)
    if opened is None:
        return None
    head: dict[str, Any] = opened[0]
    mode, uid, gid, mtime_ns = head["member"]
    xattrs = tuple((bytes.fromhex(name), bytes.fromhex(value)) for name, value in head["xattrs"])
    return RootAttributes(
        LayerEntry(b"", EntryKind.DIRECTORY, mode, uid, gid, mtime_ns, xattrs=xattrs), head["names"]
    )
