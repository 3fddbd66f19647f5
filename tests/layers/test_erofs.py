"""EROFS images of merged trees (layers/erofs), read by a reader of its own."""

from __future__ import annotations

import io
import random
import stat
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ocifs.errors import IntegrityError, LimitExceeded, Malformed, OcifsError
from ocifs.layers.erofs.data_map import DataMap
from ocifs.layers.erofs.head import verify_file
from ocifs.layers.erofs.names import listing
from ocifs.layers.erofs.plan import chunks_of
from ocifs.layers.erofs.writer import ImageOptions, WrittenImage, write_image
from ocifs.layers.erofs.xattrs import encode_xattrs
from ocifs.layers.index.entry import EntryKind, Extent, LayerEntry, LayerIndex
from ocifs.layers.index.packed import pack
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import NOWHERE, MergedTree, PackedDirectories, code_of
from ocifs.settings import Limits
from tests.layers.erofs_trees import ACL, device_of, expected, rows_of, stacks
from tests.layers.stacks import directory, file, hardlink, layer, symlink
from tests.support.erofs import ErofsReader
from tests.support.erofs_mount import empty_image

TIB = 1 << 40
KEPT = ImageOptions()


def tree_of(*layers: Sequence[LayerEntry]) -> MergedTree:
    return merge([LayerIndex(pack(entries), None, 0, "none") for entries in layers], Limits())


def written(tree: MergedTree, options: ImageOptions = KEPT) -> tuple[WrittenImage, bytes]:
    out = io.BytesIO()
    return write_image(tree, options, out), out.getvalue()


def reader_of(tree: MergedTree, options: ImageOptions = KEPT) -> ErofsReader:
    """The reader of an image, with the data device that its file describes."""
    _, data = written(tree, options)
    _, head = verify_file(io.BytesIO(data))
    found = DataMap.decode(head.columns, data[head.size :])
    return ErofsReader(data, device_of(tree, found.pieces))


@settings(max_examples=150)
@example([[symlink("a", "t" * 4095), symlink("b", "../a/..")]], None, True)
@given(stacks(), st.sampled_from([None, (0, 0), (1000, 70_000)]), st.booleans())
def test_an_image_shows_the_merged_tree(
    stack: list[list[LayerEntry]], owner: tuple[int, int] | None, inside: bool
) -> None:
    try:
        tree = tree_of(*stack)
    except OcifsError:
        assume(False)
    rows = expected(tree, owner, inside=inside)
    if max(len(row.target) for row in rows.values()) > 4095:
        # A link that is followed inside of the tree gets the longer target of another one.
        with pytest.raises(LimitExceeded, match="4095"):
            written(tree, ImageOptions(owner, inside))
        return
    found = rows_of(reader_of(tree, ImageOptions(owner, inside)))
    assert found.keys() == rows.keys()
    for path, row in rows.items():
        assert found[path] == row, path


def test_an_image_is_the_same_each_time() -> None:
    tree = merge([layer(file("a/b"), file("c"))], Limits())
    assert written(tree)[1] == written(tree)[1]


def test_an_image_has_at_most_the_size_of_its_bound() -> None:
    tree = merge([layer(*(file(f"{number}") for number in range(1000)))], Limits())
    size = written(tree)[0].size
    write_image(tree, KEPT, io.BytesIO(), limit=size)
    with pytest.raises(LimitExceeded, match=r"limits\.erofs_bytes"):
        write_image(tree, KEPT, io.BytesIO(), limit=size - 4096)


def test_the_empty_image_has_one_block_and_no_data() -> None:
    reader = ErofsReader(empty_image())
    assert [path for path, _ in reader.walk()] == [b""]
    assert (reader.blocks, reader.data_blocks) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_byte_fails_the_checksum(seed: int) -> None:
    _, data = written(tree_of([file("a/b"), symlink("c", "a"), directory("d")]))
    chosen = random.Random(seed)
    changed = bytearray(data)
    position = chosen.randrange(len(changed))
    changed[position] ^= 1 << chosen.randrange(8)
    for bad in (bytes(changed), data[:position], data + b"\0"):
        with pytest.raises(IntegrityError):
            verify_file(io.BytesIO(bad))
    verify_file(io.BytesIO(data))


def test_a_directory_has_any_number_of_names() -> None:
    """Every way to divide names into blocks is tried; see `ErofsReader.directory`."""
    for count in range(150, 350, 7):
        for length in (1, 30):
            names = [f"d/{number:05}{'n' * length}" for number in range(count)]
            reader = reader_of(tree_of([file(name) for name in names]))
            assert len(dict(reader.walk())) == count + 2


def test_a_directory_of_many_names_is_sorted_with_its_dots() -> None:
    odd = [b"!", b"-", b",a", b"...", b".\x01", b"..\xff", b"\x01", b"\xff\xff", b"/".join([b"x"])]
    entries = [LayerEntry(b"d/" + name, EntryKind.FILE, 0o644) for name in odd]
    many = [file(f"d/{number}") for number in range(100_000)]
    reader = reader_of(tree_of([*entries, *many]))
    (nid, _) = reader.directory(reader.inode(reader.root))[b"d"]
    names = reader.directory(reader.inode(nid))
    assert len(names) == 100_000 + len(odd) + 2
    assert list(names)[:2] == [b"\x01", b"!"]


def test_a_directory_that_nearly_fills_a_block_is_not_inline() -> None:
    """The sizes around 4 KiB, where inline data would cross the end of its block."""
    for last in range(1, 256):
        names = [b"d/" + b"%02d" % number + b"n" * 250 for number in range(14)]
        entries = [LayerEntry(name, EntryKind.FILE, 0o644) for name in names]
        entries += [LayerEntry(b"d/" + b"z" * last, EntryKind.FILE, 0o644)]
        entries += [LayerEntry(b"d", EntryKind.DIRECTORY, 0o755, xattrs=((b"user.a", b"abc"),))]
        assert len(dict(reader_of(tree_of(entries)).walk())) == 17


def test_deep_trees_and_long_links() -> None:
    deep = b"/".join([b"d"] * 3000)
    entries = [
        LayerEntry(deep + b"/f", EntryKind.FILE, 0o644),
        LayerEntry(b"/".join([b"d"] * 1000) + b"/l", EntryKind.SYMLINK, 0o777, link=b"/etc"),
        LayerEntry(b"l", EntryKind.SYMLINK, 0o777, link=b"x" * 4095),
    ]
    rows = rows_of(reader_of(tree_of(entries)))
    assert rows[b"/".join([b"d"] * 1000) + b"/l"].target == b"../" * 1000 + b"etc"
    assert rows[b"l"].size == 4095
    assert len(rows) == 3000 + 4


def test_a_target_that_linux_would_cut_is_an_error() -> None:
    path = b"/".join([b"d"] * 1400) + b"/l"
    tree = tree_of([LayerEntry(path, EntryKind.SYMLINK, 0o777, link=b"/etc")])
    with pytest.raises(LimitExceeded, match="4095"):
        written(tree)
    rows = rows_of(reader_of(tree, ImageOptions(links_inside=False)))
    assert rows[path].target == b"/etc"


def test_targets_through_large_directories_are_bounded() -> None:
    """Each name of such a target may unpack a whole directory."""
    many = [file(f"d{number}/{name}") for number in range(150) for name in range(300)]
    through = "/".join(f"d{number}/.." for number in range(150))
    links = [symlink(f"l{number}", f"../{through}/..") for number in range(5000)]
    with pytest.raises(LimitExceeded, match="links"):
        written(tree_of([*many, *links]))
    rows_of(reader_of(tree_of([*many, *links[:10]])))


def test_the_names_of_a_link_that_need_other_targets_are_other_inodes() -> None:
    tree = tree_of(
        [
            symlink("a/l", "/x"),
            hardlink("a/m", "a/l"),
            hardlink("b/c/l", "a/l"),
            hardlink("o", "a/l"),
        ]
    )
    rows = rows_of(reader_of(tree))
    assert {path: rows[path].target for path in (b"a/l", b"b/c/l", b"o")} == {
        b"a/l": b"../x",
        b"b/c/l": b"../../x",
        b"o": b"x",
    }
    assert rows[b"a/l"].same == {b"a/l", b"a/m"}
    raw = rows_of(reader_of(tree, ImageOptions(links_inside=False)))
    assert len(raw[b"o"].same) == 4


@pytest.mark.parametrize(
    ("size", "extents", "runs"),
    [
        (100, (), []),
        (16 * TIB, (), []),
        (4096 * 3, [(4096, 1)], [(4096, 8192)]),
        (4096 * 3 + 1, [(4095, 2), (4096 * 3, 1)], [(0, 8192), (12288, 16384)]),
        (16 * TIB, [(5 * TIB, 1)], None),
        # In another order, overlapping, and beyond the end of the file.
        (8192, [(5000, 9000), (0, 10), (3, 20)], [(0, 8192)]),
    ],
)
def test_a_sparse_file_has_blocks_for_its_extents(
    size: int, extents: list[tuple[int, int]], runs: list[tuple[int, int]] | None
) -> None:
    found = tuple(Extent(offset, 0, length) for offset, length in extents)
    entry = LayerEntry(b"f", EntryKind.FILE, 0o644, size=size, extents=found)
    chunks = chunks_of(entry)
    unit = 4096 << chunks.bits
    assert chunks.count * unit >= size > (chunks.count - 1) * unit
    if runs is not None:
        assert [(first * unit, last * unit) for first, last in chunks.runs] == runs
    covered = [range(first * unit, last * unit) for first, last in chunks.runs]
    for offset, _, length in found:
        for at in (offset, min(offset + length, size) - 1):
            assert any(at in run for run in covered)
    # At most 16 KiB of indexes for a hole of 16 TiB.
    assert chunks.count <= max(16 * (len(extents) + 1), 16 * 1024)


def test_files_of_several_terabytes_and_their_sum() -> None:
    def large(name: bytes, size: int) -> LayerEntry:
        return LayerEntry(name, EntryKind.FILE, 0o644, size=size, extents=(Extent(0, 0, size),))

    tree = tree_of([large(b"a", 8 * TIB), large(b"b", 7 * TIB + 5)])
    image, data = written(tree)
    assert [piece.length for piece in image.data.pieces(8 * TIB - 1, 4096)] == [1, 4095]
    assert list(image.data.pieces(15 * TIB, 8192)) == [(15 * TIB, 0, 1, 7 * TIB, 5)]
    reader = ErofsReader(data)
    assert {path: inode.size for path, inode in reader.walk()}[b"b"] == 7 * TIB + 5
    with pytest.raises(LimitExceeded, match="16 TiB"):
        written(tree_of([large(b"a", 8 * TIB), large(b"b", 8 * TIB)]))


def test_a_data_map_has_each_byte_once() -> None:
    """Against a list of all bytes."""
    chosen = random.Random(7)
    data, content = DataMap(), list[tuple[int, int, int] | None]()
    for number in range(4):
        data.add_layer()
        for entry in range(chosen.choice([0, 3, 5])):
            length, offset = chosen.randrange(1, 10_000), chosen.choice([0, 4096])
            data.add(entry, offset, length)
            content += [(number, entry, offset + at) for at in range(length)]
            content += [None] * (-length % 4096)
    assert data.size == len(content)
    lengths, columns = data.encode()
    data = DataMap.decode(lengths, b"".join(columns))
    for _ in range(200):
        address, length = chosen.randrange(data.size), chosen.randrange(1, 30_000)
        found = [None] * len(content[address : address + length])
        for at, number, entry, offset, size in data.pieces(address, length):
            for step in range(size):
                found[at - address + step] = (number, entry, offset + step)
        assert found == content[address : address + length]


ACL_ENTRIES = ACL[4:]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        ACL[:3],
        ACL[:-1],
        b"\x01" + ACL[1:],  # another version
        ACL[:4] + ACL_ENTRIES[8:],  # without an owner
        ACL[:4] + ACL_ENTRIES[:24],  # without a mask and others
        ACL[:4] + ACL_ENTRIES[8:16] + ACL_ENTRIES[:8] + ACL_ENTRIES[16:],  # in another order
        ACL[:4] + ACL_ENTRIES[:8] + ACL_ENTRIES,  # two owners
        ACL[:4] + ACL_ENTRIES[:24] + ACL_ENTRIES[32:],  # a named user without a mask
        ACL[:6] + b"\xff" + ACL[7:],  # unknown permissions
    ],
)
def test_an_acl_that_linux_rejects_is_left_out(value: bytes) -> None:
    for acl, omitted in ((value, 1), (ACL, 0)):
        xattrs = ((b"system.posix_acl_access", acl), (b"user.a", b"b"))
        entry = LayerEntry(b"f", EntryKind.FILE, 0o644, xattrs=xattrs)
        assert encode_xattrs(entry)[1] == omitted


@pytest.mark.parametrize("name", [b".", b"..", b"", b"a\0b"])
def test_a_name_that_no_file_can_have_is_an_error(name: bytes) -> None:
    """Layers never have such names, so the tree is made by hand."""
    packed = PackedDirectories()
    packed.add(NOWHERE, 0, name + b"/b", [code_of(0, 0), code_of(0, 1)])
    tree = MergedTree((layer(file("a"), file("b")),), packed, {})
    with pytest.raises(Malformed):
        listing(tree, 0)
    with pytest.raises(Malformed):
        written(tree)


def test_the_root_has_the_attributes_of_its_entry() -> None:
    entry = LayerEntry(
        b"", EntryKind.DIRECTORY, 0o1777, 5, 6, -1, xattrs=((b"user.a", b"v" * 60_000),)
    )
    inode = dict(reader_of(tree_of([entry, file("a")])).walk())[b""]
    assert (stat.S_IMODE(inode.mode), inode.uid, inode.gid, inode.mtime_ns) == (0o1777, 5, 6, -1)
    assert len(inode.xattrs[b"user.a"]) == 60_000
