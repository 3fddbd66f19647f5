"""The number of the kernel's requests for paths and listings of a mount."""

from __future__ import annotations

import base64
import errno
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ocifs.layers.index.entry import LABELS
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


def requests_of(registry: Registry, place: Path, command: list[str], *options: str) -> list[int]:
    """The kernel's requests for extended attributes, of a command with the path of the root."""
    port = free_port()
    with mounted(
        registry.host, place / "mnt", place / "cache", ["--metrics", str(port), *options]
    ) as mount:
        root = mount.path / "costs/app:1/rootfs"
        assert (root / "d/7").read_bytes() == b"7\n"
        before = operations(port)
        subprocess.run([*command, root, place / "copy"], stdout=subprocess.DEVNULL, check=True)
        after = operations(port)
        return [after.get(name, 0) - before.get(name, 0) for name in ("getxattr", "listxattr")]


def test_a_listing_of_many_files_asks_for_few_extended_attributes(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    assert sum(requests_of(registry, tmp_path, ["ls", "-lR"])) < 10


def test_without_extended_attributes_a_copy_asks_for_none(
    registry: Registry, tmp_path: Path
) -> None:
    assert sum(requests_of(registry, tmp_path, ["cp", "-a"])) > FILES
    shutil.rmtree(tmp_path / "copy")
    # The first of each kind is answered by the daemon, which does not count it.
    assert requests_of(registry, tmp_path, ["cp", "-a"], "--no-xattrs") == [0, 0]
    assert (tmp_path / "copy/d/7").read_bytes() == b"7\n"


# user::rw-, user:1000:r--, group::r--, mask::r--, other::r-- (linux/posix_acl_xattr.h)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, number)
    for tag, permissions, number in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1000),
        (4, 4, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    )
)


def test_only_attributes_that_no_file_of_an_image_has_are_unsupported(
    registry: Registry, tmp_path: Path
) -> None:
    acl = {"LIBARCHIVE.xattr.system.posix_acl_access": base64.b64encode(ACL).decode()}
    user = {"SCHILY.xattr.user.x": "1"}
    push_gzip(registry, "costs/without", 1, tar(entry("a", **T), entry("b", pax_headers=user, **T)))
    push_gzip(registry, "costs/with", 1, tar(entry("a", **T), entry("b", pax_headers=acl, **T)))
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        place = mount.path / "costs"

        def error(path: str, name: str) -> str:
            with pytest.raises(OSError) as raised:
                os.getxattr(place / path, name)
            return errno.errorcode[raised.value.errno or 0]

        names = [*sorted(map(os.fsdecode, LABELS)), "security.capability", "user.y"]
        missing = {
            path: [error(path, name) for name in names]
            for path in ("without:1/rootfs/a", "without:1/rootfs/b", "with:1/rootfs/a", "without")
        }
        nothing, label = "ENODATA", "ENOTSUP"
        assert missing == {
            "without:1/rootfs/a": [label, label, label, nothing, nothing],
            "without:1/rootfs/b": [label, label, label, nothing, nothing],
            "with:1/rootfs/a": [nothing] * 5,
            "without": [label, label, label, nothing, nothing],
        }
        assert os.getxattr(place / "with:1/rootfs/b", "system.posix_acl_access") == ACL
        assert os.getxattr(place / "without:1/rootfs/b", "user.x") == b"1"
        listed = subprocess.run(
            ["ls", "-l", place / "with:1/rootfs"], capture_output=True, text=True, check=True
        ).stdout
        assert [line[10] for line in listed.splitlines() if line[-2:] in (" a", " b")] == [" ", "+"]
