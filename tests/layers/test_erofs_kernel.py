"""EROFS images as Linux mounts them, against the trees that GNU tar extracts, and fsck.erofs."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from ocifs.errors import OcifsError
from ocifs.layers.erofs.data_map import DataMap
from ocifs.layers.erofs.writer import ImageOptions, write_image
from ocifs.layers.index.entry import LayerEntry, LayerIndex
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import MergedTree
from ocifs.settings import Limits
from tests.layers.erofs_trees import ACL, Row, both_ends, device_of, expected, stacks
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, members, tar
from tests.support.erofs_mount import mounted_image, need_erofs
from tests.support.oracle import differences, facts
from tests.support.tools import tool

Entry = tuple[tarfile.TarInfo, bytes]
RAW = ImageOptions(links_inside=False)


def write_data(data: DataMap, path: Path, device: Callable[[int, int], bytes]) -> None:
    """Write the data file, at most 4 MiB of each segment."""
    with path.open("wb") as file:
        for segment in range(len(data)):
            size = data.start(segment + 1) - data.start(segment)
            file.seek(data.start(segment) * 4096)
            file.write(device(file.tell(), min(size, 1024) * 4096))
        file.truncate(data.size)


def tree_of(tars: list[bytes]) -> MergedTree:
    indexes = [LayerIndex(tuple(members(data)), None, 0, "none") for data in tars]
    return merge(indexes, Limits())


def device_of_tars(
    tree: MergedTree, tars: list[bytes], data: DataMap
) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        found = bytearray(size)
        for address, layer, number, start, length in data.pieces(offset, size):
            for extent in tree.layers[layer].entries[number].extents:
                first = max(start, extent.offset)
                last = min(start + length, extent.offset + extent.length)
                if first < last:
                    position = extent.position + first - extent.offset
                    piece = tars[layer][position : position + last - first]
                    at = address - offset + first - start
                    found[at : at + len(piece)] = piece
        return bytes(found)

    return read


def special(name: str, kind: bytes, **facts: object) -> Entry:
    return entry(name, kind, mtime=1_234_567_890, **facts)


def xattr(name: str, value: bytes) -> dict[str, str]:
    return {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")}


LOWER: list[Entry] = [
    entry("./", DIRECTORY, mode=0o1777, mtime=5),
    entry("bin", DIRECTORY, mtime=7, uid=1, gid=2),
    entry("bin/suid", content=b"s" * 5000, mode=0o6755, uid=70_000, gid=(1 << 32) - 2),
    entry("bin/-dash", content=b"d", mtime=-5),
    entry("bin/!mark", content=b"e" * 4096, pax_headers={"mtime": "1234567890.123456789"}),
    entry("bin/empty"),
    entry("link", SYMLINK, linkname="bin/suid", uid=3, mtime=11),
    entry("absolute", SYMLINK, linkname="/etc/passwd", mtime=11),
    entry("long", SYMLINK, linkname="/".join(["x" * 200] * 20)),
    entry("hard", HARDLINK, linkname="bin/suid"),
    entry("linked", HARDLINK, linkname="link"),
    special("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
    special("large", tarfile.BLKTYPE, devmajor=259, devminor=70_000, mode=0o600),
    special("fifo", tarfile.FIFOTYPE, mode=0o640),
    entry("n" * 255, content=b"longest name"),
    entry("x/user", pax_headers=xattr("user.a", b"1\n2")),
    entry("x/caps", pax_headers=xattr("security.capability", b"\1\0\0\2\0\4" + bytes(14))),
    entry("x/trusted", DIRECTORY, pax_headers=xattr("trusted.t", b"v" * 3000)),
    entry("x/acl", pax_headers=xattr("system.posix_acl_access", ACL), mode=0o640),
    entry("x/acls", DIRECTORY, pax_headers=xattr("system.posix_acl_default", ACL)),
    entry("old", content=b"old", mtime=-(1 << 31)),
    entry("new", content=b"new", mtime=1 << 33),
    entry("upper", content=b"lower"),
    entry("sparse", content=b"0123456789" * 512,
          pax_headers={"GNU.sparse.size": "3000000", "GNU.sparse.numblocks": "3",
                       "GNU.sparse.name": "sparse",
                       "GNU.sparse.map": "4096,2560,1048576,2560,3000000,0"}),
    *(entry(f"many/{number}", content=b"%d" % number) for number in range(1000)),
]  # fmt: skip
UPPER: list[Entry] = [
    entry("./", DIRECTORY, mode=0o1755, mtime=6),
    entry("upper", content=b"now from the upper layer"),
    entry("many/7", SYMLINK, linkname="8"),
    entry("hard2", HARDLINK, linkname="bin/!mark"),
    entry("bin", DIRECTORY, mode=0o711, mtime=99),
]


@pytest.mark.mount
def test_a_mounted_image_is_what_tar_extracts(tmp_path: Path) -> None:
    need_erofs(tmp_path)
    tars = [tar(*LOWER), tar(*UPPER)]
    real = tmp_path / "real"
    real.mkdir()
    for data in tars:
        command = ["tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
        subprocess.run([*command, "-C", str(real)], input=data, check=True, timeout=60)
    tree = tree_of(tars)
    with (tmp_path / "image").open("wb") as file:
        data = write_image(tree, RAW, file).data
    write_data(data, tmp_path / "data", device_of_tars(tree, tars, data))
    with mounted_image(tmp_path / "image", tmp_path / "mnt", tmp_path / "data") as point:
        found, theirs = facts(point), facts(real)
        # Implied directories have the time of the extraction in a tree of tar's.
        for side in (found, theirs):
            for path in (b"x", b"many"):
                side.pop(path)
        assert "\n".join(differences(found, theirs)) == ""


@pytest.mark.mount
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(stacks())
def test_linux_shows_the_merged_tree(stack: list[list[LayerEntry]]) -> None:
    """The trees of test_erofs.py: each path, without `--links inside`."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        need_erofs(directory)
        try:
            tree = merge([LayerIndex(entries, None, 0, "none") for entries in stack], Limits())
        except OcifsError:
            return
        with (directory / "image").open("wb") as file:
            data = write_image(tree, RAW, file).data
        write_data(data, directory / "data", device_of(tree, data.pieces))
        device = directory / "data" if data.size else None
        rows = expected(tree, None, inside=False)
        with mounted_image(directory / "image", directory / "mnt", device) as point:
            found = shown(os.fsencode(point))
        assert found.keys() == rows.keys()
        for path, row in rows.items():
            assert found[path] == row, path


def shown(root: bytes) -> dict[bytes, Row]:
    """The rows of a mounted image."""
    found, names = dict[bytes, Row](), dict[int, set[bytes]]()
    todo = [b""]
    while todo:
        path = todo.pop()
        place = root + b"/" + path if path else root
        status = os.lstat(place)
        same = names.setdefault(status.st_ino, set())
        same.add(path)
        kind, target, content, size = stat.S_IFMT(status.st_mode), b"", b"", status.st_size
        if kind == stat.S_IFDIR:
            size = 0
            below = os.listdir(place)
            todo += [path + b"/" + name if path else name for name in below]
        elif kind == stat.S_IFLNK:
            target = os.readlink(place)
        elif kind == stat.S_IFREG:
            with open(place, "rb") as file:
                content = both_ends(
                    size, lambda start, stop: os.pread(file.fileno(), stop - start, start)
                )
        found[path] = Row(
            status.st_mode,
            (status.st_uid, status.st_gid),
            status.st_mtime_ns,
            size,
            target,
            status.st_rdev,
            {
                os.fsencode(name): os.getxattr(place, name, follow_symlinks=False)
                for name in os.listxattr(place, follow_symlinks=False)
            },
            content,
        )
    return {
        path: replace(row, same=frozenset(names[os.lstat(root + b"/" + path).st_ino]))
        for path, row in found.items()
    }


def test_fsck_finds_no_fault(tmp_path: Path) -> None:
    fsck = tool("fsck.erofs", tmp_path / "home", optional=True)
    tars = [tar(*LOWER), tar(*UPPER)]
    tree = tree_of(tars)
    with (tmp_path / "image").open("wb") as file:
        data = write_image(tree, RAW, file).data
    write_data(data, tmp_path / "data", device_of_tars(tree, tars, data))
    target = tmp_path / "extracted"
    fsck(f"--device={tmp_path / 'data'}", tmp_path / "image")
    fsck(f"--device={tmp_path / 'data'}", f"--extract={target}", tmp_path / "image")
    assert (target / "bin/suid").read_bytes() == b"s" * 5000
    assert (target / "many/9").read_bytes() == b"9"
