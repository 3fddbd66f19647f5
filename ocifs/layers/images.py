"""EROFS images of merged trees: from the cache, or by writing them.

An image is cached as `layer-erofs.1`, under a digest of its layers' keys and its options. The file
contains a checksum over all of it, which is compared each time it is opened. It also contains the
map of the data file.

Tasks of a mount call `get` on the event loop. Files are read and written in worker threads.

Rules:

- One image of a list of layers is written at a time, for any number of callers.
- An open image is locked against eviction. Its file is never changed: a newer file replaces it.
- An image that cannot be cached cannot be mounted. The error of the disk is raised.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import BinaryIO

import trio

from ocifs.concurrency import SingleFlight
from ocifs.content import DerivedCache
from ocifs.errors import CacheFailed
from ocifs.layers.erofs.data_map import DataMap
from ocifs.layers.erofs.head import KIND, verify_file
from ocifs.layers.erofs.writer import ImageOptions, write_image
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.trees import MergedTrees, tree_name
from ocifs.layers.waiting import run_with_progress
from ocifs.oci.digest import Digest
from ocifs.settings import Limits

log = logging.getLogger("ocifs.layers")


class ErofsImage:
    """An open image. It is locked against eviction until it is closed, or its process ends.

    - `digest`: of the file after its checksum.
    - `size`: of the image, which is followed by the data map in the file.
    - `data`: the map of the data file, the only device of the image. If its size is 0, the image
      has no device.
    - `omitted`: the number of extended attributes that are not in the image.
    - `layers`: the indexes to which the map refers.
    """

    def __init__(self, file: BinaryIO, layers: Sequence[LayerIndex]) -> None:
        """Takes the file over. Raises IntegrityError, OSError."""
        self._file = file
        self.layers = tuple(layers)
        checksum, head = verify_file(file)
        self.digest = Digest("sha256", checksum)
        self.size, self.omitted = head.size, head.omitted
        file.seek(head.size)
        self.data = DataMap.decode(head.columns, file.read())

    def fileno(self) -> int:
        """The open file. `/proc/self/fd/N` names the verified file, also if its path is evicted."""
        return self._file.fileno()

    @property
    def path(self) -> str:
        """The path of the file in the cache."""
        return os.readlink(f"/proc/self/fd/{self.fileno()}")

    def close(self) -> None:
        """Allow eviction. A mount of the image stays usable."""
        self._file.close()


class ErofsImages:
    """The images of lists of layers, cached in a DerivedCache."""

    def __init__(
        self, trees: MergedTrees, derived: DerivedCache, nursery: trio.Nursery, limits: Limits
    ) -> None:
        self._trees = trees
        self._derived = derived
        self._limits = limits
        self._writing: SingleFlight[Digest, None] = SingleFlight(nursery)

    async def get(self, layers: Sequence[Layer], options: ImageOptions) -> ErofsImage:
        """Open the image of layers, lowest first; write it if it is not cached.

        Raises the errors of `MergedTrees.get`, LimitExceeded, CacheFull and CacheFailed.
        """
        indexes = await self._trees.get_indexes(layers)
        name = _name(tree_name(layers, indexes, markers=True, alone=False), options)
        # The second attempt is for an image that is evicted before it is opened.
        for _ in range(2):
            image = await run_with_progress(lambda: self._find(name, indexes))
            if image is not None:
                return image
            await self._writing.run(name, partial(self._write, name, layers, options))
        image = await run_with_progress(lambda: self._find(name, indexes))
        if image is None:
            raise CacheFailed(
                "the EROFS image of the layers does not stay in the cache",
                hint="check the disk of the cache directory",
            )
        return image

    async def _write(self, name: Digest, layers: Sequence[Layer], options: ImageOptions) -> None:
        tree = await self._trees.get(layers, markers=True, alone=False)

        def work() -> None:
            with self._derived.put(KIND, name) as file:
                written = write_image(tree, options, file, limit=self._limits.erofs_bytes)
            if written.omitted:
                log.info("%d extended attributes are not in the EROFS image", written.omitted)

        await run_with_progress(work)

    def _find(self, name: Digest, indexes: Sequence[LayerIndex]) -> ErofsImage | None:
        """The cached image, or None if it is missing or damaged."""
        file = self._derived.find(KIND, name)
        if file is None:
            return None
        try:
            return ErofsImage(file, indexes)
        # The checksum is verified first, and the structure is relied on after that.
        except Exception as error:
            file.close()
            log.warning(
                "%s of %s in the cache is damaged, creating it again: %s", KIND, name, error
            )
            return None
        except BaseException:
            file.close()
            raise


def _name(tree: Digest, options: ImageOptions) -> Digest:
    """The cache key of an image: that of the tree, and the options."""
    return Digest.of(f"{tree} {options.owner} {options.links_inside}".encode())
