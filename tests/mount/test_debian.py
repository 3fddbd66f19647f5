"""A real Debian in three layers with real deletions, pushed in four forms: one tree, path by path, which programs live in.

See `tests/support/debian.py` for what it is made of.
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
from tests.support.registry import Registry, running_registry

pytestmark = [
    pytest.mark.mount,
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack owners and devices to compare with"),
]


@pytest.fixture(scope="module")
def debian() -> Debian:
    return debian_image()


@pytest.fixture(scope="module")
def registry(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry"), debian.data) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bytes, Facts]]:
    place = tmp_path_factory.mktemp("umoci") / "unpacked"
    yield facts(unpacked(debian.layout, place))
    shutil.rmtree(place)


@pytest.fixture(scope="module", params=FORMS)
def mount(
    request: pytest.FixtureRequest, debian: Debian, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Mounted]]:
    """One mount a form for all tests, with the name of the form."""
    place = tmp_path_factory.mktemp("mount")
    with mounted(debian.source(registry, request.param), place / "mnt", place / "cache", AS_IT_IS) as running:
        os.listdir(running.path / "rootfs")  # before that nobody knows the attributes of the root itself
        yield request.param, running


def out(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_it_is_what_umoci_unpacks(mount: tuple[str, Mounted], theirs: dict[bytes, Facts]) -> None:
    form, running = mount
    summary = (running.path / "summary.txt").read_text()
    assert (f"[{form}]" in summary) == (form in ("zstd:chunked", "estargz"))
    expected = theirs
    if form == "estargz":  # the format keeps times to the second, rounded
        expected = {path: replace(known, mtime_ns=round(known.mtime_ns, -9)) for path, known in theirs.items()}
    assert len(expected) > 3000
    assert dict(expected[b"etc/passwd"].xattrs)["user.binary"] == bytes(range(256))
    assert expected[b"opt/sample/tool"].names == (b"opt/sample/tool", b"opt/sample/tool-too")
    assert differences(facts(running.path / "rootfs"), expected) == []


def test_programs_run_in_it(mount: tuple[str, Mounted]) -> None:
    root = mount[1].path / "rootfs"
    listed = out("chroot", root, "/bin/ls", "-A", "/usr/share/doc")
    assert listed == "README\n"
    script = (
        "use POSIX; opendir(my $d, '/etc/pam.d') and die; print join(' ', map { $_ * $_ } 1..4), ' ', (getpwuid(0))[0]"
    )
    # perl opens /dev/null for a script on its command line, and the mount is nodev.
    inside = 'mount --bind /dev "$0/dev" && exec chroot "$0" /usr/bin/perl -e "$1"'
    assert out("unshare", "--mount", "sh", "-c", inside, root, script) == "1 4 9 16 root"
    assert out("chroot", root, "/bin/sh", "-c", "grep -c . /etc/passwd | sed 's/[0-9][0-9]*/counted/'") == "counted\n"


def test_its_packages_are_those_that_are_left(mount: tuple[str, Mounted]) -> None:
    root = mount[1].path / "rootfs"
    listed = out("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${db:Status-Status}\n")
    known = dict(line.split() for line in listed.splitlines())
    assert known["dpkg"] == known["ocifs-sample"] == "installed"
    assert not set(PURGED) & {name for name, state in known.items() if state == "installed"}


def test_tools_walk_it(mount: tuple[str, Mounted], theirs: dict[bytes, Facts], tmp_path: Path) -> None:
    root = mount[1].path / "rootfs"
    assert (
        out("grep", "-rl", "--devices=skip", "What was here is gone", root / "usr/share")
        == f"{root}/usr/share/doc/README\n"
    )
    newer = out("find", root, "-newer", root / "usr/share/doc/README", "-printf", "%P\n").splitlines()
    assert "etc/pam.d" in newer
    assert "usr/bin/perl" not in newer
    listed = subprocess.run(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE, check=True).stdout
    packed = subprocess.run(["tar", "-t"], input=listed, capture_output=True, check=True).stdout
    assert len(packed.splitlines()) == len(theirs)


@pytest.mark.parametrize("mount", ["gzip"], indirect=True)
@pytest.mark.parametrize("command", ["rsync -aHX {}/ {}", "cp -a {} {}"])
def test_copies_are_the_same(
    mount: tuple[str, Mounted], theirs: dict[bytes, Facts], tmp_path: Path, command: str
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(command.format(mount[1].path / "rootfs", copy).split(), check=True, capture_output=True)
    assert differences(facts(copy), theirs) == []
    shutil.rmtree(copy)
