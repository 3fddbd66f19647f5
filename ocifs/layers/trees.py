"""Merged trees: from memory, from the cache, or by merging the indexes of the layers.

A tree is cached as `layer-tree.3`, under a digest of its layers' keys and of how they were merged.

Tasks of a mount call this on the event loop. Merging takes place in a worker thread.

Rules:

- One merge of a list of layers at a time, for any number of callers.
- The layers of a tree are indexed concurrently.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

import trio

from ocifs.concurrency import SingleFlight
from ocifs.content import DerivedCache
from ocifs.errors import LimitExceeded
from ocifs.layers.derived import load, save
from ocifs.layers.index.entry import LABELS, LayerEntry, LayerIndex
from ocifs.layers.index.packed import PackedEntries
from ocifs.layers.indexes import LayerIndexes
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import KIND, MergedTree, decode, encode
from ocifs.layers.waiting import run_concurrently, run_with_progress
from ocifs.oci.digest import Digest
from ocifs.settings import Limits


class MergedTrees:
    """The trees of lists of layers, cached in a DerivedCache."""

    def __init__(
        self, indexes: LayerIndexes, derived: DerivedCache, nursery: trio.Nursery, limits: Limits
    ) -> None:
        self._indexes = indexes
        self._derived = derived
        self._limits = limits
        self._merging: SingleFlight[tuple[object, ...], MergedTree] = SingleFlight(nursery)
        self._in_memory: WeakValueDictionary[tuple[object, ...], MergedTree] = WeakValueDictionary()

    async def get(self, layers: Sequence[Layer], *, markers: bool, alone: bool) -> MergedTree:
        """Return the tree of layers, lowest first. `markers` and `alone`: as for `merge`."""
        if len(layers) > self._limits.layers:
            raise LimitExceeded(
                f"the image has {len(layers)} layers, limits.layers allows {self._limits.layers}"
            )
        key = (tuple(layer.key for layer in layers), markers, alone)

        async def work() -> MergedTree:
            indexes = await self.get_indexes(layers)
            name = tree_name(layers, indexes, markers=markers, alone=alone)
            make = partial(merge, indexes, self._limits, markers=markers, alone=alone)
            tree = await run_with_progress(lambda: self._load_or_make(name, indexes, make))
            self._in_memory[key] = tree
            return tree

        return self._in_memory.get(key) or await self._merging.run(key, work)

    async def get_indexes(self, layers: Sequence[Layer]) -> list[LayerIndex]:
        """Return the indexes of layers, in their order."""
        indexes: dict[int, LayerIndex] = {}

        async def get_index(number: int) -> None:
            indexes[number] = await self._indexes.get(layers[number])

        await run_concurrently(get_index, len(layers))
        return [indexes[number] for number in range(len(layers))]

    def _load_or_make(
        self, name: Digest, layers: Sequence[LayerIndex], make: partial[MergedTree]
    ) -> MergedTree:
        cached = load(self._derived, KIND, name, lambda data: decode(data, layers))
        tree = cached or make()
        if cached is None:
            save(self._derived, KIND, name, encode(tree))
        # All or none: ls takes one unsupported attribute of ACLs for a file system without ACLs.
        if not any(_may_have_labels(layer.entries) for layer in layers):
            tree.unsupported_xattrs = LABELS
        return tree


def _may_have_labels(entries: Sequence[LayerEntry]) -> bool:
    """Whether an entry may have one of LABELS."""
    return not isinstance(entries, PackedEntries) or entries.may_have_xattrs(LABELS)


def tree_name(
    layers: Sequence[Layer], indexes: Sequence[LayerIndex], *, markers: bool, alone: bool
) -> Digest:
    """Return the cache key of a merged tree.

    A layer with a rejected table of contents has the index of its tar, and therefore the key of
    the tar: which tables are rejected depends on the limits.
    """
    pairs = zip(layers, indexes, strict=True)
    keys = [str(layer.blob.digest if index.diff_id else layer.key) for layer, index in pairs]
    return Digest.of(" ".join([*keys, str(markers), str(alone)]).encode())
