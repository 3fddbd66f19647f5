"""Generated stacks of layers, merged by ocifs and unpacked by umoci: the same trees, by path."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocifs.errors import Malformed
from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import MergedEntry
from ocifs.oci.digest import Digest
from ocifs.settings import Limits
from tests.layers.stacks import items
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, content, entry, members, tar
from tests.support.image import make_layout

# How many stacks a run looks at: an unpacking by umoci takes some 50 ms.
EXAMPLES = int(os.environ.get("OCIFS_STACKS", "60"))
Entry = tuple[tarfile.TarInfo, bytes]
PATHS = st.sampled_from(
    ["a", "b", "c", "n", "a/a", "a/b", "a/n", "b/a", "b/n", "a/b/c", "a/b/n", "l/a", "l/n"]
)
DIRECTORIES = st.sampled_from(["a", "b", "a/b", "l"])
# What every stack stands on, so that most of what is laid over it means something.
BASE: list[Entry] = [
    entry("a", DIRECTORY, mtime=1),
    entry("a/b", DIRECTORY, mtime=1),
    entry("b", DIRECTORY, mtime=1),
    *[
        entry(path, content=path.encode(), mtime=1)
        for path in ("a/a", "a/b/c", "a/b/d", "b/a", "b/c", "c", "base")
    ],
    entry("b/base", HARDLINK, linkname="base", mtime=1),
    entry("l", SYMLINK, linkname="a", mtime=1),
]


def _whiteout(path: str) -> str:
    parent, _, name = path.rpartition("/")
    return f"{parent}/.wh.{name}" if parent else f".wh.{name}"


def _entries(number: int) -> st.SearchStrategy[list[Entry]]:
    time = 1_000_000_000 + number
    one = st.one_of(
        st.builds(
            lambda path, data: entry(path, content=data, mtime=time), PATHS, st.binary(max_size=5)
        ),
        PATHS.map(lambda path: entry(path, DIRECTORY, mode=0o700 + number, mtime=time)),
        PATHS.map(lambda path: entry(_whiteout(path), mtime=time)),
        DIRECTORIES.map(lambda path: entry(f"{path}/.wh..wh..opq", mtime=time)),
        st.builds(
            lambda path, target: entry(path, HARDLINK, linkname=target, mtime=time),
            PATHS,
            st.sampled_from(["base", "c", "a/a", "b/base"]),
        ),
        st.sampled_from(["a", "/b", "../a/b", "nothing"]).map(
            lambda to: entry("l", SYMLINK, linkname=to, mtime=time)
        ),
    )
    return st.lists(one, max_size=5)


def _ours(tars: list[bytes]) -> dict[str, tuple[object, ...]]:
    layers = [LayerIndex(tuple(members(data)), Digest.of(data), len(data), "none") for data in tars]
    found = items(merge(layers, Limits()))
    names: dict[MergedEntry, list[str]] = {}
    for path, item in found.items():
        names.setdefault(item, []).append(path)
    return {
        path: _shown(item.entry, tars[item.layer], sorted(names[item]))
        for path, item in found.items()
    }


def _shown(member: LayerEntry, plain: bytes, names: list[str]) -> tuple[object, ...]:
    if member.kind is EntryKind.DIRECTORY:
        return ("d", member.mode)
    if member.kind is EntryKind.SYMLINK:
        return ("l", member.link.decode(), names)
    return ("f", member.mode, member.mtime_ns // 10**9, content(plain, member), names)


def _theirs(root: Path) -> dict[str, tuple[object, ...]]:
    paths = sorted(root.rglob("*"))
    names: dict[int, list[str]] = {}
    for path in paths:
        names.setdefault(path.lstat().st_ino, []).append(str(path.relative_to(root)))
    found: dict[str, tuple[object, ...]] = {}
    for path in paths:
        status = path.lstat()
        same, mode = sorted(names[status.st_ino]), status.st_mode & 0o7777
        if path.is_symlink():
            shown: tuple[object, ...] = ("l", os.readlink(path), same)
        elif path.is_dir():
            shown = ("d", mode)
        else:
            shown = ("f", mode, int(status.st_mtime), path.read_bytes(), same)
        found[str(path.relative_to(root))] = shown
    return found


def _is_defined(tars: list[list[Entry]]) -> bool:
    """Whether unpackers agree on a stack.

    Each name occurs once in a layer. No whiteout affects an entry of its own layer, and no entry is
    behind a link of its own layer: umoci applies whiteouts in the order of the tar, ocifs before
    the other entries.
    """
    for entries in tars:
        names = [info.name for info, _ in entries]
        if "l" in names and any(name.startswith("l/") for name in names):
            return False
        gone = [
            name.replace(".wh.", "") for name in names if ".wh." in name and ".wh..wh." not in name
        ]
        if any(name.startswith(f"{path}/") for path in gone for name in names):
            return False
        plain = [name.replace(".wh.", "") for name in names if ".wh..wh." not in name]
        if len(set(plain)) != len(plain):
            return False
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="without root umoci unpacks other modes")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(st.lists(st.integers(2, 4).flatmap(_entries), min_size=1, max_size=3).filter(_is_defined))
def test_any_stack_is_what_umoci_unpacks(stack: list[list[Entry]]) -> None:
    tars = [tar(*entries) for entries in [BASE, *stack]]
    with tempfile.TemporaryDirectory() as place:
        layout = make_layout(Path(place, "layout"), tars, [""])
        root = Path(place, "root")
        command = ["umoci", "raw", "unpack", "--image", f"{layout}:v1", root]
        done = subprocess.run(command, capture_output=True, check=False)
        try:
            ours = _ours(tars)
        except Malformed:
            assert done.returncode
            return
        if not done.returncode:
            assert ours == _theirs(root)
