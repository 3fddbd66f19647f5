"""Work on layers is bounded by their size, and ends with its caller."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator

import flatbuffers
import pytest
import trio
import zstandard

from ocifs.errors import LimitExceeded, Malformed
from ocifs.layers.indexing.decompress import Decompressor
from ocifs.layers.merge.apply import merge
from ocifs.layers.toc.ztoc import read_ztoc
from ocifs.settings import Limits
from tests.layers.stacks import directory, file, layer, symlink
from tests.layers.tars import DIRECTORY, SYMLINK, entry, members, tar

GENEROUS = 120  # seconds, for work that would take hours


@pytest.mark.parametrize("part", ["./", "x/../", "//", "t/.././"])
def test_a_link_target_longer_than_linux_allows_is_refused(part: str) -> None:
    """Each entry behind a link resolves its target of 900 KB: 3,000 times."""
    with pytest.raises(LimitExceeded, match="layer_link_bytes"):
        members(
            tar(
                entry("a", SYMLINK, linkname=part * (4096 // len(part) + 1) + "t"),
                entry("t", DIRECTORY),
            )
        )


@pytest.mark.parametrize("part", ["./", "x/../", "t/.././"])
def test_what_links_cost_is_bounded_in_all(part: str) -> None:
    links = [symlink("a0", part * (4000 // len(part)) + "t")]
    links += [
        symlink(f"a{number}", part * (3900 // len(part)) + f"a{number - 1}")
        for number in range(1, 200)
    ]
    entries = [file(f"a199/{number}/x") for number in range(3000)]
    with pytest.raises(LimitExceeded, match="layer_link_steps"):
        merge([layer(directory("t"), directory("x"), *links, *entries)], Limits())


async def _ends_when_cancelled(work: Callable[[], object]) -> None:
    with trio.fail_after(GENEROUS):
        with trio.move_on_after(0.3) as scope:
            await trio.to_thread.run_sync(work)
    assert scope.cancelled_caught


async def test_merging_ends_when_its_caller_is_cancelled() -> None:
    links = [symlink("a", "x/../" * 800 + "t")]
    entries = [file(f"a/{number}/x") for number in range(100_000)]
    stack = [layer(directory("t"), directory("x"), *links, *entries)] * 20
    await _ends_when_cancelled(lambda: merge(stack, Limits(layer_link_steps=1 << 60)))


@pytest.mark.parametrize(
    "stream", [gzip.compress(b"x"), zstandard.compress(b"x")], ids=["gzip", "zstd"]
)
async def test_unpacking_ends_when_its_caller_is_cancelled(stream: bytes) -> None:
    def endless() -> Iterator[bytes]:
        inflater = Decompressor(lambda: stream * 10_000, Limits(layer_streams=1 << 60))
        return inflater.pieces()

    await _ends_when_cancelled(lambda: sum(map(len, endless())))


def _vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _table(
    builder: flatbuffers.Builder, fields: dict[int, int], numbers: dict[int, int] | None = None
) -> int:
    builder.StartObject(16)
    for number, offset in fields.items():
        builder.PrependUOffsetTRelativeSlot(number, offset, 0)
    for number, value in (numbers or {}).items():
        builder.PrependInt64Slot(number, value, 0)
    return int(builder.EndObject())


def _ztoc(entries: int, attributes: int, *, shared: bool, points: int = 1) -> bytes:
    """A zTOC with attributes of its entries, which share one vector if `shared`."""
    builder = flatbuffers.Builder()
    kind = builder.CreateString("reg")

    def some_attributes() -> int:
        pairs = [
            _table(builder, {0: builder.CreateString(f"SCHILY.xattr.user.{n}"), 1: kind})
            for n in range(attributes)
        ]
        return _vector(builder, pairs)

    same = some_attributes() if shared else 0
    rows = []
    for number in range(entries):
        name = builder.CreateString(f"f{number}")
        rows.append(_table(builder, {0: name, 1: kind, 13: same or some_attributes()}))
    toc = _table(builder, {0: _vector(builder, rows)})
    digest = builder.CreateString("sha256:" + "0" * 64)
    digests = _vector(builder, [digest] * points)
    inner = flatbuffers.Builder()
    inner.Finish(_table(inner, {}, {1: 100}))
    checkpoints = builder.CreateByteVector(bytes(inner.Output()))
    builder.StartObject(16)
    builder.PrependInt8Slot(0, 2, 0)
    builder.PrependUOffsetTRelativeSlot(2, digests, 0)
    builder.PrependUOffsetTRelativeSlot(3, checkpoints, 0)
    info = builder.EndObject()
    builder.Finish(_table(builder, {4: toc, 5: info}, {2: 100 * points, 3: 100 * points}))
    return bytes(builder.Output())


def test_parts_of_a_ztoc_are_used_once() -> None:
    """A vector that all entries share causes work that is quadratic in the size of the table."""
    honest = read_ztoc(_ztoc(50, 20, shared=False), 100, Limits())
    assert [len(member.xattrs) for member in honest.entries] == [20] * 50
    with pytest.raises(Malformed, match="more than once"):
        read_ztoc(_ztoc(500, 500, shared=True), 100, Limits())


def test_spans_of_a_ztoc_are_as_many_as_its_digests() -> None:
    assert len(read_ztoc(_ztoc(1, 0, shared=True, points=3), 300, Limits()).spans) == 3
    data = _ztoc(1, 0, shared=True, points=3).replace(
        (300).to_bytes(8, "little"), (10**12).to_bytes(8, "little")
    )
    with pytest.raises(Malformed, match="invalid"):
        read_ztoc(data, 10**12, Limits(layer_bytes=10**13))
