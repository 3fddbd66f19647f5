"""Images pushed by Podman, in each of its formats, have the tree that Podman itself shows."""

from __future__ import annotations

import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, tar
from tests.mount.test_rootfs_mount import AS_IT_IS
from tests.support.image import make_layout
from tests.support.mount import mounted
from tests.support.oracle import Facts, differences, facts
from tests.support.podman import podman
from tests.support.registry import running_registry
from tests.support.tools import Tool

pytestmark = [
    pytest.mark.servers,
    pytest.mark.mount,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can unpack owners and devices to compare with"
    ),
]
FORMS = ("gzip", "zstd", "zstd:chunked")
T = {"mtime": 1_700_000_000}
LOWER = tar(
    entry("./", DIRECTORY, mode=0o755, **T),
    entry("etc", DIRECTORY, mode=0o2750, gid=42, **T),
    entry("etc/passwd", content=b"root:x:0:0\n", pax_headers={"mtime": "1700000000.123456789"}),
    entry("etc/gone", content=b"x", **T),
    entry("etc/localtime", SYMLINK, linkname="/usr/share/zoneinfo/UTC", **T),
    entry(
        "su",
        content=b"s" * 70_000,
        mode=0o4755,
        pax_headers={"SCHILY.xattr.user.kind": "tool"},
        **T,
    ),
    entry("su-too", HARDLINK, linkname="su", mode=0o4755, **T),
    entry("big", content=random.Random(7).randbytes(1_000_000), uid=1000, gid=1000, **T),
    entry("dev", DIRECTORY, **T),
    entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, **T),
    entry("dev/pipe", tarfile.FIFOTYPE, mode=0o600, **T),
    entry("old", DIRECTORY, **T),
    entry("old/file", content=b"old", **T),
    entry("turn", content=b"a file", **T),
    entry("n" * 255, content=b"long", **T),
)
UPPER = tar(
    entry("etc", DIRECTORY, mode=0o755, **T),
    entry("etc/.wh.gone", **T),
    entry("old", DIRECTORY, mode=0o700, **T),
    entry("old/.wh..wh..opq", **T),
    entry("old/new", content=b"new", **T),
    entry("turn", DIRECTORY, **T),
    entry("turn/in", content=b"a directory now", **T),
)


@pytest.fixture(scope="module")
def program() -> Iterator[Tool]:
    with podman() as running:
        yield running


@pytest.fixture(scope="module")
def image(program: Tool, tmp_path_factory: pytest.TempPathFactory) -> str:
    layout = make_layout(tmp_path_factory.mktemp("layout"), [LOWER, UPPER])
    return program("pull", "-q", f"oci:{layout}:v1").decode().strip()


@pytest.fixture(scope="module")
def theirs(program: Tool, image: str) -> dict[bytes, Facts]:
    found = facts(Path(program("image", "mount", image).decode().strip()))
    program("image", "unmount", image)
    del found[b""]
    return found


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_what_podman_shows(
    program: Tool, image: str, theirs: dict[bytes, Facts], tmp_path: Path, form: str
) -> None:
    with running_registry(
        tmp_path
    ) as registry:  # a separate one: Podman would reuse existing blobs of another format
        target = f"{registry.host}/podman:v1"
        program(
            "push",
            "-q",
            "--tls-verify=false",
            "--compression-format",
            form,
            image,
            f"docker://{target}",
        )
        with mounted(target, tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as mount:
            assert ("[zstd:chunked]" in (mount.path / "summary.txt").read_text()) == (
                form == "zstd:chunked"
            )
            os.listdir(mount.path / "rootfs")
            ours = facts(mount.path / "rootfs")
            assert ours.pop(b"").mode == 0o40755  # Podman chooses the mode and time of the root
            assert differences(ours, theirs) == []
