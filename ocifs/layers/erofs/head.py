"""The head of an image's file: the first 1,024 bytes, which EROFS ignores.

    SHA-256 of the rest of the file, in hexadecimal
    one line of JSON, padded with spaces

Worker threads call `verify_file`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, BinaryIO, NamedTuple

from ocifs.concurrency import check_cancelled
from ocifs.errors import IntegrityError
from ocifs.layers.erofs.format import BLOCK, SUPERBLOCK_AT
from ocifs.settings import MIB

KIND = "layer-erofs.1"
CHECKSUM_SIZE = 65
"""The checksum and a newline."""


class ImageHead(NamedTuple):
    """The head of a file: the blocks of the image, and the bytes of each column of the data map.

    `omitted`: the number of extended attributes that are not in the image.
    """

    blocks: int
    columns: list[int]
    omitted: int

    @property
    def size(self) -> int:
        """The size of the image in bytes. The data map follows it."""
        return self.blocks * BLOCK

    def encode(self) -> bytes:
        """The head without the checksum."""
        line = json.dumps({"kind": KIND, **self._asdict()}).encode()
        return line.ljust(SUPERBLOCK_AT - CHECKSUM_SIZE - 1) + b"\n"


def verify_file(file: BinaryIO) -> tuple[str, ImageHead]:
    """Read a file to its end, and compare it with its checksum; return that and the head.

    Raises IntegrityError.
    """
    expected = file.read(CHECKSUM_SIZE)
    head = file.read(SUPERBLOCK_AT - CHECKSUM_SIZE)
    hasher = hashlib.sha256(head)
    while piece := file.read(MIB):
        hasher.update(piece)
        check_cancelled()
    checksum = hasher.hexdigest()
    if expected != checksum.encode() + b"\n":
        raise IntegrityError("does not match its checksum")
    try:
        fields: dict[str, Any] = json.loads(head)
        if fields.pop("kind") != KIND:
            raise IntegrityError(f"is not of the kind {KIND}")
        return checksum, ImageHead(**fields)
    except (ValueError, TypeError, AttributeError, KeyError):
        raise IntegrityError("has no head of an EROFS image") from None
