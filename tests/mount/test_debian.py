"""A real Debian in three layers with real deletions, pushed in four formats.

Every format has the same tree, path by path, in which programs run. `tests/support/debian.py`
builds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mount.test_rootfs_mount import AS_IT_IS, unpacked
from tests.support.debian import FORMS, PURGED, Debian, debian_image
from tests.support.mount import Mounted, mounted
from tests.support.oracle import Facts, differences, facts
from tests.support.podman import podman, run
from tests.support.registry import Registry, running_registry
from tests.support.views import root_of
from tests.support.waiting import unmount

pytestmark = [
    pytest.mark.timeout(600),  # if the image is not cached, the first test builds it
    pytest.mark.mount,
    pytest.mark.servers,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can unpack owners and devices to compare with"
    ),
]


@pytest.fixture(scope="module")
def debian() -> Debian:
    return debian_image()


@pytest.fixture(scope="module")
def registry(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry"), debian.data) as running:
        yield running


@pytest.fixture(scope="module")
def their_root(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root filesystem that umoci unpacks."""
    place = tmp_path_factory.mktemp("umoci") / "unpacked"
    yield unpacked(debian.layout, place)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def theirs(their_root: Path) -> dict[bytes, Facts]:
    return facts(their_root)


@pytest.fixture(scope="module", params=FORMS)
def mount(
    request: pytest.FixtureRequest,
    debian: Debian,
    registry: Registry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Mounted]]:
    """A mount of each format, shared by all tests, with the name of the format."""
    place = tmp_path_factory.mktemp("mount")
    with mounted(
        debian.source(registry, request.param), place / "mnt", place / "cache", AS_IT_IS
    ) as running:
        os.listdir(running.path / "rootfs")  # the root's attributes are unknown before
        yield request.param, running


def out(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_it_is_what_umoci_unpacks(mount: tuple[str, Mounted], theirs: dict[bytes, Facts]) -> None:
    form, running = mount
    summary = (running.path / "summary.txt").read_text()
    assert (f"[{form}]" in summary) == (form in ("zstd:chunked", "estargz"))
    expected = theirs
    if form == "estargz":  # the format rounds times to seconds
        expected = {
            path: replace(known, mtime_ns=round(known.mtime_ns, -9))
            for path, known in theirs.items()
        }
    assert len(expected) > 3000
    assert dict(expected[b"etc/passwd"].xattrs)["user.binary"] == bytes(range(256))
    assert expected[b"opt/sample/tool"].names == (b"opt/sample/tool", b"opt/sample/tool-too")
    assert differences(facts(running.path / "rootfs"), expected) == []


@pytest.mark.parametrize("form", FORMS)
def test_the_kernel_shows_the_same_tree_in_which_programs_run(
    debian: Debian, registry: Registry, theirs: dict[bytes, Facts], tmp_path: Path, form: str
) -> None:
    source, where, cache = debian.source(registry, form), tmp_path / "mnt", tmp_path / "cache"
    with root_of("kernel", source, where, cache, AS_IT_IS) as (root, _):
        expected = theirs
        if form == "estargz":  # the format rounds times to seconds
            expected = {
                path: replace(known, mtime_ns=round(known.mtime_ns, -9))
                for path, known in theirs.items()
            }
        assert differences(facts(root), expected) == []
        assert out("chroot", root, "/bin/ls", "-A", "/usr/share/doc") == "README\n"
        assert out("chroot", root, "/usr/bin/python3", "-c", "print(6 * 7)") == "42\n"


def test_podman_runs_a_writable_root_of_the_kernel(
    debian: Debian, registry: Registry, tmp_path: Path
) -> None:
    script = "echo here > /etc/new; cat /etc/new; rm -r /usr/share/doc; test ! -e /usr/share/doc"
    options, cache = [*AS_IT_IS, "--overlay", "tmpfs"], tmp_path / "cache"
    source = debian.source(registry, "gzip")
    with root_of("kernel", source, tmp_path / "mnt", cache, options) as (root, _):
        with podman() as program:
            assert run(program, str(root), "/bin/sh", "-c", script) == b"here\n"
        assert (root / "etc/new").read_text() == "here\n"


def test_programs_run_in_it(mount: tuple[str, Mounted]) -> None:
    root = mount[1].path / "rootfs"
    listed = out("chroot", root, "/bin/ls", "-A", "/usr/share/doc")
    assert listed == "README\n"
    script = (
        "use POSIX; opendir(my $d, '/etc/pam.d') and die;"
        " print join(' ', map { $_ * $_ } 1..4), ' ', (getpwuid(0))[0]"
    )
    # perl opens /dev/null for a script on its command line, and the mount is nodev.
    inside = 'mount --bind /dev "$0/dev" && exec chroot "$0" /usr/bin/perl -e "$1"'
    assert out("unshare", "--mount", "sh", "-c", inside, root, script) == "1 4 9 16 root"
    script = (
        "import os, re"
        "; print(len(re.findall('(?m)^root:', open('/etc/passwd').read())), os.getcwd())"
    )
    assert out("chroot", root, "/usr/bin/python3", "-c", script) == "1 /\n"
    assert (
        out("chroot", root, "/bin/sh", "-c", "grep -c . /etc/passwd | sed 's/[0-9][0-9]*/counted/'")
        == "counted\n"
    )


def test_its_packages_are_those_that_are_left(mount: tuple[str, Mounted]) -> None:
    root = mount[1].path / "rootfs"
    listed = out(
        "dpkg-query",
        f"--admindir={root}/var/lib/dpkg",
        "-W",
        "-f",
        "${Package} ${db:Status-Status}\n",
    )
    known = dict(line.split() for line in listed.splitlines())
    assert known["dpkg"] == known["ocifs-sample"] == "installed"
    assert not set(PURGED) & {name for name, state in known.items() if state == "installed"}


# Commands whose output is compared. The tar has every byte, name, owner, mode and attribute.
WALKS = (
    "tar --format=posix --pax-option=delete=atime,delete=ctime,exthdr.name=%f --sort=name --xattrs"
    " --xattrs-include=* -c . | sha256sum",
    "grep -rac --devices=skip e . | sort",
    "find . -newer usr/share/doc/README -printf '%p %y %m %U:%G %t %l\\n' | sort",
    "find . -type f -links +1 | sort",
    "find . -perm /7000 -printf '%p %m\\n' | sort",
    "find . -type f -size +100k | sort | xargs md5sum",
)


@pytest.mark.parametrize("mount", ["gzip"], indirect=True)
def test_tools_say_the_same_of_it(mount: tuple[str, Mounted], their_root: Path) -> None:
    for walk in WALKS:
        ours, theirs = (
            subprocess.run(
                ["bash", "-o", "pipefail", "-c", walk], cwd=root, capture_output=True, check=True
            ).stdout
            for root in (mount[1].path / "rootfs", their_root)
        )
        assert ours == theirs, walk
        assert len(ours) > 60


@pytest.mark.parametrize("mount", ["gzip"], indirect=True)
@pytest.mark.parametrize("command", ["rsync -aHX {}/ {}", "cp -a {} {}"])
def test_copies_are_the_same(
    mount: tuple[str, Mounted], theirs: dict[bytes, Facts], tmp_path: Path, command: str
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(
        command.format(mount[1].path / "rootfs", copy).split(), check=True, capture_output=True
    )
    assert differences(facts(copy), theirs) == []
    shutil.rmtree(copy)


@pytest.fixture
def over(mount: tuple[str, Mounted], tmp_path: Path) -> Iterator[Path]:
    """A writable overlayfs on the root filesystem."""
    place = tmp_path / "over"
    (place / "merged").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "upper", place], check=True)
    try:
        for name in ("merged", "upper", "work"):
            (place / name).mkdir(exist_ok=True)
        options = f"lowerdir={mount[1].path}/rootfs,upperdir={place}/upper,workdir={place}/work"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, place / "merged"], check=True
        )
        try:
            yield place / "merged"
        finally:
            unmount(place / "merged")
    finally:
        unmount(place)


@pytest.mark.parametrize("mount", ["gzip"], indirect=True)
def test_an_overlay_over_it_can_be_changed(
    mount: tuple[str, Mounted], over: Path, theirs: dict[bytes, Facts]
) -> None:
    merged = facts(over)
    merged[b""] = replace(merged[b""], mtime_ns=theirs[b""].mtime_ns)  # the upper directory's
    assert differences(merged, theirs) == []
    with (over / "etc/passwd").open("a") as file:
        file.write("added:x:1000:1000::/:/bin/sh\n")
    assert os.getxattr(over / "etc/passwd", "user.binary") == bytes(range(256))
    assert out("chroot", over, "/usr/bin/perl", "-e", "print((getpwnam('added'))[2])") == "1000"
    shutil.rmtree(over / "usr/share/doc")
    # overlayfs does not rename a directory of the lower layer, so mv copies it.
    out("mv", over / "etc/apt", over / "etc/apt-too")
    os.link(over / "opt/sample/tool", over / "opt/sample/another")
    listed = out("dpkg", f"--root={over}", "--force-all", "--purge", "ocifs-sample")
    assert "ocifs-sample" in listed
    assert not (over / "opt/sample/tool").exists()
    # dpkg has removed the setuid bit from this hard link of a purged file.
    another = over / "opt/sample/another"
    assert another.read_bytes() == b"#!/bin/sh\n" and another.stat().st_mode & 0o7777 == 0o600
    assert (over / "etc/apt-too/sources.list").exists() and not (over / "usr/share/doc").exists()
    root = mount[1].path / "rootfs"
    assert (root / "etc/passwd").read_bytes().count(b"added") == 0
    assert sorted(os.listdir(root / "opt/sample")) == ["null", "pipe", "tool", "tool-too"]


@pytest.mark.parametrize("mount", ["gzip"], indirect=True)
def test_podman_runs_it(mount: tuple[str, Mounted]) -> None:
    script = (
        "id -u; echo here > /etc/new; cat /etc/new; rm -r /usr/share/doc"
        "; grep -c root: /etc/passwd; test ! -e /usr/share/doc"
    )
    with podman() as program:
        done = run(program, f"{mount[1].path}/rootfs:O", "/bin/sh", "-c", script)
    assert done == b"0\nhere\n1\n"
    assert not (mount[1].path / "rootfs/etc/new").exists()
