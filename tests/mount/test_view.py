"""A mount of one reference with its root filesystem, or its files, at the mount point."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.layers.tars import DIRECTORY, SYMLINK, entry, tar
from tests.mount.test_registry_mount import push_files
from tests.support.image import make_layout
from tests.support.mount import mounted, run_ocifs
from tests.support.oracle import differences, facts
from tests.support.registry import Registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

LAYERS = [
    tar(
        entry("./", DIRECTORY, mode=0o711, mtime=1_000_000_000),
        entry("etc", DIRECTORY),
        entry("etc/a", content=b"a"),
    ),
    tar(entry("etc/b", content=b"b"), entry("etc/.wh.a"), entry("top", SYMLINK, linkname="/etc/b")),
]


def test_a_root_filesystem_is_the_mount_itself(tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    layout = make_layout(tmp_path / "layout", LAYERS)
    source = f"oci:{layout}:v1"
    cache = tmp_path / "cache"
    with (
        mounted(source, tmp_path / "whole", cache) as whole,
        mounted(source, tmp_path / "mnt", cache, ["--view", "rootfs"]) as mount,
    ):
        # The root has its own mode and time after the first access, in both views.
        assert (
            sorted(os.listdir(mount.path))
            == sorted(os.listdir(whole.path / "rootfs"))
            == ["etc", "top"]
        )
        assert differences(facts(mount.path), facts(whole.path / "rootfs")) == []
        assert mount.path.stat().st_mode & 0o777 == 0o711
        assert (mount.path / "top").read_bytes() == b"b"
        assert (mount.path / ".ocifs/version").read_bytes()
        assert str(mount.path).encode() in run_ocifs("status", cache=cache).stdout


def test_a_payload_is_the_mount_itself(registry: Registry, tmp_path: Path) -> None:
    push_files(registry, "view/app", "v1", b"one", b"two")
    source = f"{registry.host}/view/app:v1"
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", ["--view", "files"]) as mount:
        assert sorted(path.read_bytes() for path in mount.path.iterdir()) == [b"one", b"two"]
        subprocess.run(["cp", "-a", f"{mount.path}/.", tmp_path / "copy"], check=True)
        assert len(os.listdir(tmp_path / "copy")) == 2


@pytest.mark.parametrize(
    ("source", "view", "said"),
    [
        ("{}/view/app:v1", "rootfs", b"an artifact of the kind artifact has no rootfs/"),
        ("{}/view/app", "files", b"--view files needs a reference"),
    ],
)
def test_an_invalid_view_is_an_error_of_the_command(
    registry: Registry, tmp_path: Path, source: str, view: str, said: bytes
) -> None:
    push_files(registry, "view/app", "v1", b"one")
    (tmp_path / "mnt").mkdir()
    arguments = ("mount", source.format(registry.host), str(tmp_path / "mnt"), "--view", view)
    done = run_ocifs(*arguments, cache=tmp_path / "cache", check=False)
    assert done.returncode == 2
    assert said in done.stderr
