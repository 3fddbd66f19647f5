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

    __slots__ = ("_count", "_last", "_made", "blocks")

    def __init__(self, blocks: Sequence[bytes], count: int) -> None:
        self.blocks = tuple(blocks)
        self._count = count
        self._last: tuple[int, tuple[Member, ...]] = (-1, ())
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
        block, place = divmod(number, BLOCK)
        last = self._last
        if last[0] != block:
            last = self._last = (block, self._block(block))
        return last[1][place]

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
        self._open: list[Member] = []
        self._count = 0

    def add(self, member: Member) -> None:
        self._open.append(member)
        self._count += 1
        if len(self._open) == BLOCK:
            self._close()

    def members(self) -> PackedMembers:
        """All of them, at the end."""
        if self._open:
            self._close()
        return PackedMembers(self._blocks, self._count)

    def _close(self) -> None:
        columns = json.dumps(_columns(self._open), separators=(",", ":")).encode()
        # A copy: zstandard cuts its result from a buffer as long as the input, which leaves a hole that nothing fits into. Of a
        # million entries the holes took 100 MB.
        self._blocks.append(bytes(memoryview(zstandard.ZstdCompressor(level=6).compress(columns))))
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
    columns = json.loads(zstandard.ZstdDecompressor().decompress(block))
    paths, kinds, modes, uids, gids, times, sizes, links, rdevs, xattrs, extents = columns
    return tuple(
        map(
            Member,
            map(_bytes, paths),
            map(_KINDS.__getitem__, kinds),
            *(modes, uids, gids, times, sizes),
            map(_bytes, links),
            rdevs,
            [tuple([(_bytes(name), _bytes(value)) for name, value in pairs]) if pairs else () for pairs in xattrs],
            [tuple(map(Extent._make, triples)) if triples else () for triples in extents],
        )
    )


def _columns(members: list[Member]) -> list[list[_Json]]:
    """What `unpack` makes them from: a list for each attribute, which is read three times as fast as one for each entry."""
    columns: list[list[_Json]] = [list(column) for column in zip(*members, strict=True)]
    columns[0] = [_text(member.path) for member in members]
    columns[1] = [member.kind.value for member in members]
    columns[7] = [_text(member.link) for member in members]
    columns[9] = [[[_text(name), _text(value)] for name, value in member.xattrs] for member in members]
    return columns


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
