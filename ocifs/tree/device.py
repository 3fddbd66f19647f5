"""The data of a root filesystem that the kernel serves: a directory with the one file `data`.

`ocifs.fuse.kernel` mounts an EROFS image with this file as its data device. The image has names and
attributes; the file has the content of all files, one after the other, each from a block on
(`ocifs.layers.erofs.data_map`). It is answered by the layer service like any file of a layer, with
the same verification, deadlines, errors and counters. Methods run in the event loop.

- A read that touches several files is answered only if all of them can be read. The kernel reads
  ahead in large requests, and after an error asks again for the page that a program waits for.
- The file stays open as long as the mount exists, so an open handle acquires nothing: blobs are
  evicted and fetched again as if no file of the image were open.
"""

from __future__ import annotations

import stat
from collections.abc import Hashable
from typing import BinaryIO

from ocifs.errors import IntegrityError, NotFound
from ocifs.layers.erofs.data_map import DataPiece
from ocifs.layers.index.entry import LayerEntry
from ocifs.tree.base import FastNode, SimpleNode
from ocifs.tree.blob import layer_missing_error, named_in_errors
from ocifs.tree.node import Attributes, Directory
from ocifs.tree.rootfs.root import RootImage
from ocifs.tree.static import StaticDirectory

NAME = b"data"
_MODE = stat.S_IFREG | 0o400


class DataFile(SimpleNode, FastNode):
    """The file."""

    __slots__ = ("_image",)

    def __init__(self, key: Hashable, image: RootImage) -> None:
        super().__init__(key, Attributes(_MODE, image.erofs.data.size))
        self._image = image

    async def read(self, offset: int, size: int) -> bytes:
        image, service = self._image, self._image.layer_service
        content = bytearray(max(0, min(size, self.attributes.size - offset)))
        for piece in image.erofs.data.pieces(offset, size):
            layer, entry = image.layers[piece.layer], self._entry(piece)
            data = service.read_nowait(layer, entry, piece.offset, piece.length)
            if data is None:
                data = await self._read(piece)
            start = piece.address - offset
            content[start : start + len(data)] = data
        return bytes(content)

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        image, service = self._image, self._image.layer_service
        content = bytearray(max(0, min(size, self.attributes.size - offset)))
        for piece in image.erofs.data.pieces(offset, size):
            layer, entry = image.layers[piece.layer], self._entry(piece)
            data = service.read_nowait(layer, entry, piece.offset, piece.length)
            if data is None:
                return None
            start = piece.address - offset
            content[start : start + len(data)] = data
        return bytes(content)

    def _entry(self, piece: DataPiece) -> LayerEntry:
        return self._image.erofs.layers[piece.layer].entries[piece.entry]

    async def _read(self, piece: DataPiece) -> bytes:
        image = self._image
        layer = image.layers[piece.layer]
        try:
            with named_in_errors(image.image, layer.blob.digest):
                return await image.layer_service.read(
                    layer, self._entry(piece), piece.offset, piece.length
                )
        except IntegrityError as error:
            # The handle is never closed, so it must not be refused after one wrong span. Bytes that
            # were read before belong to other spans, each of which was verified.
            error.is_transient = True
            raise
        except NotFound as error:
            raise layer_missing_error(error) from None
        raise AssertionError("named_in_errors has suppressed an error")


def device_directory(image: RootImage) -> Directory:
    """The root of the FUSE mount."""
    return StaticDirectory(("kernel",), [(NAME, DataFile(("kernel", NAME), image))])


async def data_file(image: RootImage) -> BinaryIO:
    """A plain file with the same content, from the cache. The caller closes it.

    Raises the errors of reading the layers, CacheFull and CacheFailed.
    """
    file = DataFile(("kernel", NAME), image)
    size = image.erofs.data.size
    return await image.layer_service.erofs_data(image.erofs.digest, size, file.read)
