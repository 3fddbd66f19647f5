"""The root directory of a root filesystem, copied by real programs.

It is copied before its first access, and after an access in an earlier mount.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layers.tars import DIRECTORY, entry, tar
from tests.support.image import make_layout
from tests.support.mount import Mounted, mounted, run_ocifs

pytestmark = pytest.mark.mount

WHEN = 1_600_000_000
LAYERS = [
    tar(
        entry("./", DIRECTORY, mtime=WHEN, mode=0o751),
        entry("etc/hosts", content=b"hosts", mtime=WHEN),
    ),
    tar(entry("etc/motd", content=b"motd", mtime=WHEN)),
]
TREES = ["rootfs", "layers/0/tree"]


@pytest.fixture(params=["untouched", "kept"])
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted]:
    """A mount of an image that was never accessed, or was accessed by an earlier process."""
    source = f"oci:{make_layout(tmp_path / 'layout', LAYERS)}:v1"
    if request.param == "kept":
        run_ocifs("prefetch", source, *TREES, cache=tmp_path / "cache")
    with mounted(source, tmp_path / "mnt", tmp_path / "cache") as running:
        yield running


@pytest.mark.parametrize("tree", TREES)
def test_tar_has_the_root_as_it_is_and_does_not_find_it_changed(
    mount: Mounted, tmp_path: Path, tree: str
) -> None:
    parent, _, name = tree.rpartition("/")
    words = ["tar", "-C", mount.path / parent, "-cf", tmp_path / "out.tar", name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with tarfile.open(tmp_path / "out.tar") as archive:
        root = archive.getmember(name)
        assert (root.mode, root.mtime) == (0o751, WHEN)


def test_tar_of_a_mount_that_is_the_tree_has_its_root_as_it_is(tmp_path: Path) -> None:
    source = f"oci:{make_layout(tmp_path / 'layout', LAYERS)}:v1"
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", ["--view", "rootfs"]) as running:
        words = ["tar", "-C", tmp_path, "-cf", tmp_path / "out.tar", "mnt"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        with tarfile.open(tmp_path / "out.tar") as archive:
            root = archive.getmember("mnt")
            assert (root.mode, root.mtime) == (0o751, WHEN)
        assert stat.S_IMODE(running.path.stat().st_mode) == 0o751


def test_tar_finds_an_unvisited_manifest_unchanged(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", LAYERS)
    with mounted(f"oci:{layout}", tmp_path / "mnt", tmp_path / "cache") as running:
        words = ["tar", "-C", running.path / "_manifests", "-cf", tmp_path / "out.tar", "v1"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("copy", [["cp", "-a"], ["rsync", "-a"]], ids=lambda words: words[0])
@pytest.mark.parametrize("tree", TREES)
def test_a_copy_has_the_roots_mode_and_time_if_they_are_cached(
    mount: Mounted, tmp_path: Path, tree: str, copy: list[str], request: pytest.FixtureRequest
) -> None:
    subprocess.run([*copy, mount.path / tree, tmp_path / "copy"], check=True)
    copied = tmp_path / "copy" if copy[0] == "cp" else tmp_path / "copy" / Path(tree).name
    made = copied.stat()
    if "kept" in request.node.callspec.id:
        assert (stat.S_IMODE(made.st_mode), made.st_mtime) == (0o751, WHEN)
    # Both call stat before they open anything, and get provisional attributes. cp calls it again
    # for the mode at its end.
    else:
        assert stat.S_IMODE(made.st_mode) == {"cp": 0o751, "rsync": 0o755}[copy[0]]
    found = (mount.path / tree).stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o751, WHEN)


@pytest.mark.parametrize("tree", TREES)
def test_the_attributes_of_a_root_stay_known_over_repeated_lookups(
    mount: Mounted, tree: str
) -> None:
    os.listdir(mount.path / tree)
    for _ in range(3):
        assert stat.S_IMODE((mount.path / tree).stat().st_mode) == 0o751
        os.listdir((mount.path / tree).parent)


def test_the_command_line_shows_the_cached_attributes_of_a_root(tmp_path: Path) -> None:
    source, cache = f"oci:{make_layout(tmp_path / 'layout', LAYERS)}:v1", tmp_path / "cache"

    def root() -> bytes:
        [line] = [
            line
            for line in run_ocifs("ls", "-l", source, cache=cache).stdout.splitlines()
            if b"rootfs" in line
        ]
        return line

    assert root().startswith(b"drwxr-xr-x ")
    run_ocifs("ls", source, "rootfs", cache=cache)
    assert root().startswith(b"drwxr-x--x ") and b" 2020-09-13 12:26 " in root()
