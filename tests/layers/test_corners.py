"""Every corner of tars and stacks, compared by path with umoci, GNU tar and bsdtar.

Rules:

- A difference that is not listed in `deliberate.py` fails. This includes layers that only one side
  rejects.
- umoci never gets a whiteout of `.`, `..` or nothing: version 0.4.7 deletes the directory above its
  target.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocifs.errors import Malformed
from ocifs.layers.index.entry import EntryKind, LayerEntry, LayerIndex
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import MergedEntry
from ocifs.oci.digest import Digest
from ocifs.settings import Limits
from tests.layers.corners import CORNERS
from tests.layers.deliberate import DANGEROUS, DIFFERENCES, REFUSES, TAKES
from tests.layers.tars import content, members
from tests.support.image import make_layout
from tests.support.oracle import Facts, facts

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can unpack owners and devices to compare with"
)
_TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}


def ours(tars: list[bytes]) -> dict[bytes, Facts]:
    """The merged tree of a stack, without the root. Raises Malformed."""
    layers = [LayerIndex(tuple(members(data)), Digest.of(data), len(data), "none") for data in tars]
    found = dict(_walk(merge(layers, Limits()).root))
    names: dict[MergedEntry, list[bytes]] = {}
    for path, item in found.items():
        names.setdefault(item, []).append(path)
    return {
        path: _shown(item.entry, tars[item.layer], sorted(names[item]))
        for path, item in found.items()
    }


def _walk(root: MergedEntry) -> Iterator[tuple[bytes, MergedEntry]]:
    todo = [(b"", root)]
    while todo:
        path, item = todo.pop()
        for name, child in (item.children or {}).items():
            below = path + b"/" + name if path else name
            yield below, child
            todo.append((below, child))


def _shown(member: LayerEntry, plain: bytes, names: list[bytes]) -> Facts:
    is_file, is_link, is_directory = (
        member.kind is kind for kind in (EntryKind.FILE, EntryKind.SYMLINK, EntryKind.DIRECTORY)
    )
    return Facts(
        mode=_TYPES[member.kind] | (0o777 if is_link else member.mode),
        owner=(member.uid, member.gid),
        size=member.size if is_file else len(member.link),
        mtime_ns=member.mtime_ns,
        nlink=0 if is_directory else len(names),
        rdev=member.rdev,
        target=member.link if is_link else b"",
        content=hashlib.sha256(content(plain, member)).hexdigest() if is_file else "",
        xattrs=tuple(sorted((name.decode(), value) for name, value in member.xattrs)),
        names=() if is_directory else tuple(names),
    )


def by_umoci(tars: list[bytes], place: Path) -> bool:
    """Unpack a stack; return whether the unpacker succeeded."""
    layout = make_layout(place / "layout", tars, [""])
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:v1", str(place / "unpacked")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _by(*command: str) -> Callable[[list[bytes], Path], bool]:
    def unpack(tars: list[bytes], place: Path) -> bool:
        (place / "unpacked").mkdir()
        done = subprocess.run(
            [*command, "-x", "-p", "-C", str(place / "unpacked"), "-f", "-"],
            input=tars[0],
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    return unpack


UNPACKERS = {
    "umoci": by_umoci,
    "tar": _by("tar", "--xattrs", "--xattrs-include=*"),
    "bsdtar": _by("bsdtar", "--xattrs"),
}


def differing(mine: dict[bytes, Facts], theirs: dict[bytes, Facts], begun: int) -> set[str]:
    """Each path with its differences: `+` is only in ocifs, `-` only in the unpacker.

    `begun`: later times are those of the unpacking, and not compared.
    """
    found = {f"+ {path.decode(errors='replace')}" for path in mine.keys() - theirs.keys()}
    found |= {f"- {path.decode(errors='replace')}" for path in theirs.keys() - mine.keys() - {b""}}
    for path in mine.keys() & theirs.keys():
        for field in Facts.__dataclass_fields__:
            one, other = getattr(mine[path], field), getattr(theirs[path], field)
            implied = (
                field == "mtime_ns"
                and stat.S_ISDIR(mine[path].mode)
                and one == 0
                and other >= begun
            )
            if one != other and not implied:
                found.add(f"{path.decode(errors='replace')} {field}")
    return found


def _cases() -> Iterator[object]:
    for name, tars in CORNERS.items():
        for unpacker in UNPACKERS:
            if (len(tars) == 1 or unpacker == "umoci") and (name, unpacker) not in DANGEROUS:
                yield pytest.param(name, unpacker, id=f"{name} by {unpacker}")


@pytest.mark.parametrize(("name", "unpacker"), list(_cases()))
def test_a_corner_is_what_others_unpack(name: str, unpacker: str) -> None:
    if shutil.which(unpacker) is None:
        assert not os.environ.get("CI"), f"{unpacker} must be there in CI: see scripts/setup"
        pytest.skip(f"{unpacker} is not installed")
    try:
        mine: dict[bytes, Facts] | None = ours(CORNERS[name])
    except Malformed:
        mine = None
    begun = time.time_ns() - 10**9  # the clock of files is coarser
    with (
        tempfile.TemporaryDirectory() as place
    ):  # pytest's own would be walked through, and some paths are too long for that
        theirs = (
            facts(Path(place, "unpacked"))
            if UNPACKERS[unpacker](CORNERS[name], Path(place))
            else None
        )
    if mine is None:
        assert theirs is None or (name, unpacker) in TAKES
    elif theirs is None:
        assert (name, unpacker) in REFUSES
    else:
        assert differing(mine, theirs, begun) <= DIFFERENCES.get((name, unpacker), frozenset())


def test_what_is_listed_as_a_difference_is_a_corner() -> None:
    listed = [*DIFFERENCES, *REFUSES, *TAKES, *DANGEROUS]
    assert {name for name, _ in listed} <= CORNERS.keys()
    assert {unpacker for _, unpacker in listed} <= UNPACKERS.keys()
