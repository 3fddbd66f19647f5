"""The entries of a layer in little memory: in blocks, each compressed, so that a million of them take some 25 MB.

Rules that hold here: pure; an entry that is asked for is made anew; the blocks looked into last are kept made, since who lists a directory
asks for neighbours.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import TypeAlias, overload

import zstandard

from ocifs.layers.member import Extent, Kind, Member

BLOCK = 256
"""Entries of a block: some 10 KiB, made in half a millisecond."""
_MADE = 24

_Json: TypeAlias = str | int | list["_Json"]
_KINDS = {kind.value: kind for kind in Kind}


class PackedMembers(Sequence[Member]):
    """A sequence of Members. Equal to any other sequence with equal ones."""

    __slots__ = ("_count", "_made", "blocks")

    def __init__(self, blocks: Sequence[bytes], count: int) -> None:
        self.blocks = tuple(blocks)
        self._count = count
        self._made: OrderedDict[int, tuple[Member, ...]] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Member: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Member]: ...
    def __getitem__(self, number: int | slice) -> Member | Sequence[Member]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._block(number // BLOCK)[number % BLOCK]

    def __iter__(self) -> Iterator[Member]:
        return chain.from_iterable(map(unpack, self.blocks))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def _block(self, number: int) -> tuple[Member, ...]:
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = unpack(self.blocks[number])
            while len(self._made) > _MADE:
                self._made.pop(next(iter(self._made)), None)
        else:
            with suppress(KeyError):  # another thread may have put it out
                self._made.move_to_end(number)
        return made


class Packer:
    """Packs entries as they come."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._open: list[list[_Json]] = []
        self._count = 0

    def add(self, member: Member) -> None:
        self._open.append(_row(member))
        self._count += 1
        if len(self._open) == BLOCK:
            self._close()

    def members(self) -> PackedMembers:
        """All of them, at the end."""
        if self._open:
            self._close()
        return PackedMembers(self._blocks, self._count)

    def _close(self) -> None:
        rows = json.dumps(self._open, separators=(",", ":")).encode()
        # A copy: zstandard cuts its result from a buffer as long as the input, which leaves a hole that nothing fits into. Of a
        # million entries the holes took 100 MB.
        self._blocks.append(bytes(memoryview(zstandard.ZstdCompressor(level=6).compress(rows))))
        self._open.clear()


def pack(members: Iterable[Member]) -> PackedMembers:
    """Entries, packed; those that are packed already as they are."""
    if isinstance(members, PackedMembers):
        return members
    packer = Packer()
    for member in members:
        packer.add(member)
    return packer.members()


def unpack(block: bytes) -> tuple[Member, ...]:
    """The entries of a block, which was made here."""
    return tuple([_member(row) for row in json.loads(zstandard.ZstdDecompressor().decompress(block))])


def _row(member: Member) -> list[_Json]:
    return [
        _text(member.path),
        member.kind.value,
        member.mode,
        member.uid,
        member.gid,
        member.mtime_ns,
        member.size,
        _text(member.link),
        member.rdev,
        [[_text(name), _text(value)] for name, value in member.xattrs],
        [[extent.offset, extent.plain, extent.length] for extent in member.extents],
    ]


def _member(row: list[object]) -> Member:
    path, kind, mode, uid, gid, mtime_ns, size, link, rdev, xattrs, extents = row
    return Member(
        _bytes(path),
        _KINDS[str(kind)],
        *(mode, uid, gid, mtime_ns, size),  # type: ignore[arg-type]  # written by _row and checked by a SHA-256
        _bytes(link),
        rdev,  # type: ignore[arg-type]
        tuple((_bytes(name), _bytes(value)) for name, value in xattrs),  # type: ignore[attr-defined]
        tuple(Extent(*extent) for extent in extents),  # type: ignore[attr-defined]
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: object) -> bytes:
    return str(text).encode("utf-8", "surrogateescape")
