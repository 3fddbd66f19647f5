"""Rebased links have the same targets as the original links have in a chroot of the image."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.layers.tars import DIRECTORY, SYMLINK, entry, tar
from tests.support.image import make_layout
from tests.support.mount import Mounted, mounted

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root"),
]

TREES = 40
SEED = 29
# Reads trees with paths from standard input, and prints the inode and mode of each target, or its
# errno. A child process handles each tree.
LOOK = """
import json, os, sys
found = []
for tree, paths in json.load(sys.stdin):
    ours, theirs = os.pipe()
    if not os.fork():
        os.chdir(tree)
        if sys.argv[1] == "as the root":
            os.chroot(".")
        each = {}
        for path in paths:
            try:
                status = os.stat(path)
                each[path] = [status.st_ino, status.st_mode]
            except OSError as error:
                each[path] = error.errno
        with open(theirs, "w") as out:
            json.dump(each, out)
        os._exit(0)
    os.close(theirs)
    with open(ours) as answer:
        found.append(json.load(answer))
    os.wait()
print(json.dumps(found))
"""
Found = dict[str, list[int] | int]


def tangle(dice: random.Random) -> tuple[bytes, list[str]]:
    """A tar of directories, files and links, and the paths of the links.

    The links lead to entries, to each other, to missing names and outside of the tree.
    """
    directories, files, links = [""], [], []
    for number in range(15):
        directories.append(
            f"{dice.choice(directories)}/d{number % 5}-{dice.randrange(3)}".lstrip("/")
        )
    directories = list(dict.fromkeys(directories))
    files = [f"{dice.choice(directories)}/f{number}".lstrip("/") for number in range(10)]
    entries = [entry(path, DIRECTORY) for path in directories if path]
    entries += [entry(path, content=path.encode()) for path in files]
    for number in range(40):
        known = [*directories, *files, *links]
        names = [os.path.basename(path) for path in known if path]
        target = {
            0: lambda known=known: "/" + dice.choice(known),
            1: lambda known=known: "../" * dice.randrange(6) + dice.choice(known),
            2: lambda names=names: "/".join(
                dice.choices([*names, "..", "..", "."], k=dice.randrange(1, 5))
            ),
            3: lambda names=names: (
                "/" + "/".join(dice.choices([*names, "..", ".."], k=dice.randrange(1, 5)))
            ),
        }[dice.randrange(4)]()
        links.append(f"{dice.choice(directories)}/l{number}".lstrip("/"))
        entries.append(
            entry(
                links[-1], SYMLINK, linkname=(target + dice.choice(["", "", "", "/", "/."])) or "."
            )
        )
    return tar(*entries), links


def look(mount: Mounted, made: list[tuple[bytes, list[str]]], how: str) -> list[Found]:
    asked = json.dumps(
        [
            (str(mount.path / f"layers/{number}/tree"), links)
            for number, (_, links) in enumerate(made)
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", LOOK, how], input=asked, capture_output=True, check=True, text=True
    )
    found: list[Found] = json.loads(done.stdout)
    return found


def test_links_have_the_targets_of_a_process_with_this_root(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    made = [tangle(dice) for _ in range(TREES)]
    source = f"oci:{make_layout(tmp_path / 'layout', [data for data, _ in made])}:v1"
    with mounted(source, tmp_path / "raw", tmp_path / "cache", ["--links", "raw"]) as raw:
        expected = look(raw, made, "as the root")
    with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
        assert look(mount, made, "from without") == expected
        for number, found in enumerate(expected):
            tree = mount.path / f"layers/{number}/tree"
            assert all(
                (tree / path).resolve().is_relative_to(tree)
                for path in found
                if isinstance(found[path], list)
            )
    assert sum(isinstance(one, list) for found in expected for one in found.values()) > TREES * 5
