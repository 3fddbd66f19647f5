"""Root filesystems in a real mount, compared path by path with the output of umoci."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import shutil
import stat
import subprocess
import sysconfig
import tarfile
import tempfile
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, tar
from tests.support.image import make_layout
from tests.support.mount import mounted, run_ocifs
from tests.support.oracle import Facts, differences, facts
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.views import VIEWS, root_of

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can unpack owners and devices to compare with"
    ),
]

AS_IT_IS = ["--owner", "keep", "--links", "raw"]
T1, T2, T3 = 1_500_000_000, 1_600_000_000, 1_700_000_000
DICE = random.Random(5)
BIG = DICE.randbytes(3_000_000)

BASE = tar(
    entry("./", DIRECTORY, mtime=T1, mode=0o755),
    entry("etc/", DIRECTORY, mtime=T1),
    entry("etc/passwd", content=b"root:x:0:0\n", mtime=T1, uid=0, gid=42),
    entry("etc/motd", content=b"first\n", mtime=T1),
    entry("etc/motd", content=b"the second of this name\n", mtime=T2),
    entry("usr", DIRECTORY, mtime=T1, mode=0o2755),
    entry("usr/bin", DIRECTORY, mtime=T1),
    entry("usr/bin/su", content=b"s" * 70_000, mode=0o4755, mtime=T1),
    entry("usr/bin/su-too", HARDLINK, linkname="usr/bin/su", mtime=T1),
    entry("usr/bin/ping", content=b"p" * 512, mtime=T1, pax_headers={"mtime": f"{T1}.123456789"}),
    entry("bin", SYMLINK, linkname="usr/bin", mtime=T1),
    entry("bin/sh", content=b"through a link\n", mtime=T1),
    entry("etc/localtime", SYMLINK, linkname="/usr/share/zoneinfo/UTC", mtime=T1),
    entry("etc/up", SYMLINK, linkname="../../../../../etc/passwd", mtime=T1),
    entry("dev", DIRECTORY, mtime=T1),
    entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, mtime=T1),
    entry("dev/sda", tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o660, gid=6, mtime=T1),
    entry("run", DIRECTORY, mtime=T1),
    entry("run/pipe", tarfile.FIFOTYPE, mode=0o600, mtime=T1),
    entry("tmp", DIRECTORY, mode=0o1777, mtime=T1),
    entry("big", content=BIG, uid=1000, gid=1000, mtime=T1),
    entry("empty", mtime=T1),
    entry("n" * 255, content=b"long\n", mtime=T1),
    entry("deep", DIRECTORY, mtime=T1),
    *[entry("deep" + "/d" * depth, DIRECTORY, mtime=T1) for depth in range(1, 120)],
    entry("deep" + "/d" * 119 + "/file", content=b"deep\n", mtime=T1),
    entry("uid", content=b"u", uid=2_000_000_000, gid=2_000_000_001, mtime=T1),
    entry("name with\nnewline", content=b"n", mtime=T1),
    entry("srv", DIRECTORY, mtime=T1),
    *[
        entry(f"srv/{number}", content=DICE.randbytes(number * 37), mtime=T1 + number)
        for number in range(200)
    ],
    entry("gone", DIRECTORY, mtime=T1),
    entry("gone/with", content=b"me", mtime=T1),
    entry("opaque", DIRECTORY, mtime=T1),
    entry("opaque/old", content=b"old", mtime=T1),
    entry("turn", content=b"a file", mtime=T1),
    entry("turned", DIRECTORY, mtime=T1),
    entry("turned/in", content=b"a directory", mtime=T1),
)
MIDDLE = tar(
    entry("./", DIRECTORY, mtime=T2, mode=0o711),
    entry(".wh.gone"),
    entry(".wh.never-there"),
    entry("opaque", DIRECTORY, mtime=T2, mode=0o700),
    entry("opaque/new", content=b"new", mtime=T2),
    entry("opaque/.wh..wh..opq"),
    entry("turn", DIRECTORY, mtime=T2),
    entry("turn/in", content=b"a directory now", mtime=T2),
    entry("turned", content=b"a file now", mtime=T2),
    entry("etc", DIRECTORY, mtime=T2),
    entry("etc/passwd-", HARDLINK, linkname="etc/passwd", mtime=T1),
    entry("etc/.wh.motd"),
    entry("bin/ls", content=b"through a lower link", mtime=T2),
    entry("usr/bin", DIRECTORY, mtime=T2, mode=0o750),
    entry("srv", DIRECTORY, mtime=T2),
    *[entry(f"srv/.wh.{number}") for number in range(0, 200, 3)],
    form=tarfile.GNU_FORMAT,
)
TOP = tar(
    entry("turn", content=b"a file again", mtime=T3),
    entry("gone", DIRECTORY, mtime=T3),
    entry("gone/back", content=b"again", mtime=T3),
    entry("etc/motd", SYMLINK, linkname="passwd", mtime=T3),
    entry("opaque", DIRECTORY, mtime=T3),
    entry("opaque/newer", HARDLINK, linkname="opaque/new", mtime=T3),
    entry(".wh.empty"),
    entry("srv/1", content=b"changed", mtime=T3),
    entry("etc", DIRECTORY, mtime=T3),
    entry("srv", DIRECTORY, mtime=T3),
    entry("", DIRECTORY, mtime=T3, mode=0o755),
    form=tarfile.USTAR_FORMAT,
)


def unpacked(layout: Path, where: Path) -> Path:
    """The root filesystem that umoci unpacks."""
    subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{layout}:v1", where],
        check=True,
        capture_output=True,
    )
    return where


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, Facts]:
    """The tree that umoci unpacks. It does not support zstd, so the layers are gzip."""
    place = tmp_path_factory.mktemp("umoci")
    return facts(unpacked(make_layout(place / "layout", [BASE, MIDDLE, TOP]), place / "unpacked"))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "compressions", [["+gzip"], ["+zstd", "", "+xz"], ["+bzip2", "+zstd"]], ids=" ".join
)
def test_an_image_of_many_corners_is_what_umoci_unpacks(
    theirs: dict[bytes, Facts], tmp_path: Path, compressions: list[str], view: str
) -> None:
    source = f"oci:{make_layout(tmp_path / 'layout', [BASE, MIDDLE, TOP], compressions)}:v1"
    with root_of(view, source, tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as (root, _):
        assert differences(facts(root), theirs) == []


@pytest.mark.parametrize("said", ["", "+gzip", "+zstd"], ids=["tar", "gzip", "zstd"])
def test_the_bytes_of_a_layer_and_not_its_media_type_decide_its_compression(
    theirs: dict[bytes, Facts], tmp_path: Path, said: str
) -> None:
    layout = make_layout(
        tmp_path / "layout", [BASE, MIDDLE, TOP], ["+zstd", "", "+gzip"], said=said
    )
    with mounted(f"oci:{layout}:v1", tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as mount:
        os.listdir(mount.path / "rootfs")
        assert differences(facts(mount.path / "rootfs"), theirs) == []


@pytest.mark.parametrize("view", VIEWS)
def test_attributes_and_holes_are_what_umoci_unpacks(tmp_path: Path, view: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "tool").write_bytes(b"#!")
    with (source / "holes").open("wb") as file:
        for start in (1 << 20, 9 << 20, 11 << 20):
            file.seek(start)
            file.write(DICE.randbytes(5000))
        file.truncate(20 << 20)
    value = bytes(range(256))
    os.setxattr(source / "tool", "user.binary", value)
    os.setxattr(
        source / "tool",
        "security.capability",
        bytes.fromhex("0100000200200000000000000000000000000000"),
    )
    os.setxattr(source, "user.of-a-directory", b"yes")
    command = [
        "tar",
        "--format=posix",
        "--sparse",
        "--xattrs",
        "--xattrs-include=*",
        "-C",
        source,
        "-c",
        ".",
    ]
    layer = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(layer) < 1 << 20
    layout = make_layout(tmp_path / "layout", [layer])
    expected = facts(unpacked(layout, tmp_path / "unpacked"))
    assert dict(expected[b"tool"].xattrs)["user.binary"] == value
    source = f"oci:{layout}:v1"
    with root_of(view, source, tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as (root, _):
        assert differences(facts(root), expected) == []


def blobs_asked(registry: Registry) -> int:
    return registry.log.read_text(errors="replace").count("/blobs/sha256:")


def push_image(registry: Registry, repository: str, *tars: bytes) -> None:
    layers = [gzip.compress(each, mtime=0) for each in tars]
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {
            "mediaType": mediatype.OCI_CONFIG,
            "digest": push_blob(registry.url, repository, config),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": mediatype.OCI_LAYER_GZIP,
                "digest": push_blob(registry.url, repository, layer),
                "size": len(layer),
            }
            for layer in layers
        ],
    }
    push_manifest(registry.url, repository, manifest, "v1")


@pytest.mark.parametrize("view", VIEWS)
def test_attributes_that_root_alone_may_read_are_listed_to_root_alone(
    tmp_path: Path, view: str
) -> None:
    xattrs = {"SCHILY.xattr.trusted.a": "1", "SCHILY.xattr.user.b": "2"}
    layout = make_layout(tmp_path / "layout", [tar(entry("file", pax_headers=xattrs))])
    seen = {}
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        (copies := Path(place, "copies")).mkdir()
        copies.chmod(0o777)
        source, options = f"oci:{layout}:v1", ["--allow-other"]
        with root_of(view, source, Path(place, "mnt"), tmp_path / "cache", options) as (root, _):
            for user in (0, 65534):
                become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
                words = [*become, "getfattr", "-m", "-", "file"]
                seen[user] = subprocess.run(
                    words, cwd=root, capture_output=True, check=True
                ).stdout.split()[3:]
                subprocess.run(
                    [*become, "rsync", "-aX", "./", copies / str(user)],
                    cwd=root,
                    check=True,
                )
    assert seen == {0: [b"trusted.a", b"user.b"], 65534: [b"user.b"]}


@pytest.mark.parametrize("view", VIEWS)
def test_owners_and_modes_apply_to_all_users(tmp_path: Path, view: str) -> None:
    private = entry("private", DIRECTORY, mode=0o700, uid=65534, gid=65534)
    files = [
        entry("mine", content=b"m", mode=0o600, uid=65534, gid=65534),
        entry("roots", content=b"r", mode=0o640, uid=0, gid=0),
        entry("program", content=b"p", mode=0o711, uid=0, gid=0),
        entry("private/in", content=b"i", mode=0o644),
    ]
    layout = make_layout(tmp_path / "layout", [tar(private, *files)])
    look = "for f in mine roots program private/in; do cat $f; test -x $f && echo -n x; done"
    seen = {}
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # other users can enter it
        Path(place).chmod(0o755)
        for owner in ("user", "keep"):
            options = ["--allow-other", "--owner", owner]
            source, where = f"oci:{layout}:v1", Path(place, "mnt")
            with root_of(view, source, where, tmp_path / "cache", options) as (root, _):
                for user in (0, 65534):
                    words = [
                        "setpriv",
                        f"--reuid={user}",
                        f"--regid={user}",
                        "--clear-groups",
                        "sh",
                        "-c",
                        look,
                    ]
                    seen[owner, user] = subprocess.run(
                        words, cwd=root, capture_output=True, check=False
                    ).stdout
    assert seen == {
        ("user", 0): b"mrpxi",
        ("user", 65534): b"x",
        ("keep", 0): b"mrpxi",
        ("keep", 65534): b"mxi",
    }


def test_a_link_is_as_long_as_linux_has_them(tmp_path: Path) -> None:
    """symlink(2) rejects a longer target, so no tool can unpack such a layer."""
    longest, longer = (tar(entry("link", SYMLINK, linkname="l" * size)) for size in (4095, 4096))
    with mounted(
        f"oci:{make_layout(tmp_path / 'one', [longest])}:v1", tmp_path / "mnt", tmp_path / "cache"
    ) as mount:
        assert os.readlink(mount.path / "rootfs/link") == "l" * 4095
    with mounted(
        f"oci:{make_layout(tmp_path / 'two', [longer])}:v1", tmp_path / "mnt", tmp_path / "cache"
    ) as mount:
        with pytest.raises(OSError) as raised:
            os.listdir(mount.path / "rootfs")
        assert raised.value.errno == errno.EFBIG
        assert "layer_link_bytes" in (mount.path / ".ocifs/errors").read_text()


def test_prefetched_content_is_read_without_requests_for_blobs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with running_registry(tmp_path / "data") as registry:
        push_image(registry, "pre/app", BASE, MIDDLE)
        source = f"{registry.host}/pre/app:v1"
        assert run_ocifs("prefetch", source, cache=tmp_path / "cache").stdout == b""
        asked = blobs_asked(registry)
        run_ocifs("prefetch", source, "rootfs/big", "layers", cache=tmp_path / "cache")
        with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
            assert (mount.path / "rootfs/big").read_bytes() == BIG
            assert (mount.path / "rootfs/bin/sh").read_bytes() == b"through a link\n"
        assert blobs_asked(registry) == asked
        refused = run_ocifs(
            "prefetch", f"{registry.host}/pre", cache=tmp_path / "cache", check=False
        )
        assert refused.returncode == 1
        assert b"name one manifest" in refused.stderr


def test_a_path_is_prefetched_in_parts_when_the_index_is_cached(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    cache = tmp_path / "cache"
    with running_registry(tmp_path / "data") as registry:
        push_image(registry, "pre/app", BASE, MIDDLE)
        source = f"{registry.host}/pre/app:v1"
        run_ocifs("prefetch", source, cache=cache)
        for kind in ("blobs", "partial"):
            shutil.rmtree(cache / "ocifs/v1" / kind)
        run_ocifs("prefetch", source, "rootfs/usr/bin", cache=cache)
        kept = [
            path.stat() for path in (cache / "ocifs/v1/partial").rglob("*") if path.suffix != ".map"
        ]
        assert (
            sum(each.st_blocks * 512 for each in kept if stat.S_ISREG(each.st_mode)) < len(BIG) / 2
        )
        with mounted(source, tmp_path / "mnt", cache, ["--offline"]) as mount:
            assert (mount.path / "rootfs/usr/bin/su").read_bytes() == b"s" * 70_000
            assert (mount.path / "rootfs/bin/sh").read_bytes() == b"through a link\n"


def umoci(*arguments: str | Path) -> None:
    subprocess.run(["umoci", *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("view", VIEWS)
def test_a_real_system_in_layers_with_deletions_is_what_umoci_unpacks(
    tmp_path: Path, view: str
) -> None:
    """The layers have parts of this machine's system. umoci finds the changes and writes them."""
    layout, work = tmp_path / "layout", tmp_path / "work"
    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:v1")
    umoci("unpack", "--image", f"{layout}:v1", work)
    root = work / "rootfs"
    stdlib = sysconfig.get_path("stdlib")
    wanted = (
        "/etc",
        "/usr/share/zoneinfo",
        "/usr/share/perl5",
        f"{stdlib}/asyncio",
        f"{stdlib}/email",
    )
    parts = [part[1:] for part in wanted if Path(part).exists()]
    taken = subprocess.run(["tar", "-C", "/", "-c", *parts], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", root, "-x"], input=taken, check=True)
    umoci("repack", "--refresh-bundle", "--image", f"{layout}:v1", work)
    shutil.rmtree(root / "etc/alternatives", ignore_errors=True)
    shutil.rmtree(root / stdlib[1:] / "email")
    (root / stdlib[1:] / "asyncio").chmod(0o2711)
    # Not a link: umoci's layers would have whiteouts below it, which would delete from asyncio.
    (root / stdlib[1:] / "email").write_text("a file now\n")
    umoci("repack", "--refresh-bundle", "--image", f"{layout}:v1", work)
    (root / stdlib[1:] / "email").unlink()
    (root / stdlib[1:] / "email").mkdir()
    (root / "etc/alternatives").write_text("a file now\n")
    os.link(root / "etc/passwd", root / "etc/passwd-too")
    umoci("repack", "--image", f"{layout}:v1", work)
    theirs = facts(unpacked(layout, tmp_path / "unpacked"))
    source = f"oci:{layout}:v1"
    with root_of(view, source, tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as (shown, _):
        assert differences(facts(shown), theirs) == []
        again = subprocess.run(
            ["tar", "-C", shown, "-cf", "-", "."], capture_output=True, check=True
        )
        assert len(again.stdout) > 1 << 20
