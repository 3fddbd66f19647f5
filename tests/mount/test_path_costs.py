"""The number of the kernel's requests for paths and listings of a mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ocifs.oci import mediatype
from tests.layers.tars import DIRECTORY, SYMLINK, entry, tar
from tests.mount.test_counts import operations, push_gzip
from tests.support.kernel import with_kernel_caches
from tests.support.mount import mounted
from tests.support.ports import free_port
from tests.support.registry import Registry, running_registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

FILES = 300
T = {"mtime": 1_700_000_000}
BASE = tar(
    entry("d", DIRECTORY, **T),
    *[entry(f"d/{number}", content=b"%d\n" % number, **T) for number in range(FILES)],
    entry("link", SYMLINK, linkname="d/7", **T),
    entry("out", SYMLINK, linkname="/d/8", **T),
    entry("long", SYMLINK, linkname="x/" * 2000, **T),
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push_gzip(running, "costs/app", 1, BASE)
        yield running


def move_tag(registry: Registry, repository: str, source: str, target: str) -> None:
    """Make one tag refer to the manifest of another."""
    place = f"{registry.url}/v2/{repository}/manifests/"
    accept = {"accept": mediatype.OCI_MANIFEST}
    manifest = httpx.get(place + source, headers=accept, trust_env=False).raise_for_status()
    headers = {"content-type": mediatype.OCI_MANIFEST}
    httpx.put(
        place + target, content=manifest.content, headers=headers, trust_env=False
    ).raise_for_status()


def test_a_path_through_a_reference_does_not_ask_for_the_links_target_again(
    registry: Registry, tmp_path: Path
) -> None:
    port = free_port()
    options = ["--metrics", str(port)]
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        root = mount.path / "costs/app:1/rootfs"
        assert (root / "d/7").read_bytes() == b"7\n"

        def attempt(number: int) -> None:
            before = operations(port).get("readlink", 0)
            for _ in range(3):
                subprocess.run(["ls", "-lR", root], stdout=subprocess.DEVNULL, check=True)
            # The three links of the image, and those that lead to it.
            assert operations(port).get("readlink", 0) - before < 10

        with_kernel_caches(attempt)


def test_links_have_their_targets_however_often_they_are_read(
    registry: Registry, tmp_path: Path
) -> None:
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        place = mount.path / "costs"
        for _ in range(3):
            assert os.readlink(place / "app:1") == "app/_manifests/1"
            assert os.readlink(place / "app/_tags/1") == "../_manifests/1"
            root = place / "app:1/rootfs"
            assert os.readlink(root / "link") == "d/7"
            assert os.readlink(root / "out") == "d/8"
            assert os.readlink(root / "long") == "x/" * 2000
            for path in (place / "app:1", *(root / name for name in ("link", "out", "long"))):
                # Some kernels cache as many bytes of a target as the size says.
                assert os.lstat(path).st_size == len(os.readlink(path))


def test_a_moved_tag_is_seen_through_its_reference_and_not_in_an_open_directory(
    registry: Registry, tmp_path: Path
) -> None:
    push_gzip(registry, "costs/moved", 1, BASE)
    options = ["--tag-ttl=0"]
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        root = mount.path / "costs/moved:1/rootfs"
        assert (root / "release").read_bytes() == b"1\n"
        inside = os.open(root, os.O_DIRECTORY)
        try:
            push_gzip(registry, "costs/moved", 2, BASE)
            move_tag(registry, "costs/moved", "2", "1")
            assert (root / "release").read_bytes() == b"2\n"
            file = os.open("release", os.O_RDONLY, dir_fd=inside)
            assert os.read(file, 10) == b"1\n"
            os.close(file)
        finally:
            os.close(inside)
