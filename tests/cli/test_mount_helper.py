"""mount(8), fstab and systemd: the helper, with mount itself in a namespace where that is allowed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ocifs.cli.mount_helper import sources, translate
from tests.support.mount import mounted
from tests.support.registry import Registry

ROOT = Path(__file__).parents[2]


def test_options_become_those_of_mount() -> None:
    words = translate("rw,noauto,_netdev,x-systemd.automount,allow_other,tag-ttl=5,repo=a/b,repo=c,plain_http,verbose")
    assert words == ["--allow-other", "--tag-ttl=5", "--repo=a/b", "--repo=c", "--plain-http", "--verbose"]


def test_sources_are_separated_by_commas() -> None:
    assert sources("ghcr.io,quay.io/team") == ["ghcr.io", "quay.io/team"]
    assert sources("none") == []
    assert sources("oci:/a,b:1") == ["oci:/a,b:1"]
    assert translate("any,ro") == ["--any"]


@pytest.mark.parametrize("option", ["tag_tll=5", "timeout", "allow_other=1", "foreground", "password=x"])
def test_an_option_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=option.partition("=")[0]):
        translate(option)


def helper(*words: str, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ocifs.cli.mount_helper", *words]
    return subprocess.run(
        command,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_helper_ends_as_mount_documents(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    place = str(tmp_path / "mnt")
    assert helper("127.0.0.1:1/a/b:c", place, "-o", "rw,tag_tll=5", cache=tmp_path).returncode == 1
    assert helper("127.0.0.1:1", cache=tmp_path).returncode == 1
    assert helper("127.0.0.1:1/a/b:c", f"{place}/absent", "-o", "rw", cache=tmp_path).returncode == 1
    assert helper("127.0.0.1:1/a/b:c", place, "-o", "rw", cache=tmp_path).returncode == 32
    assert helper("127.0.0.1:1/a/b:c", place, "-s", "-f", "-o", "rw,unknown", cache=tmp_path).returncode == 0
    assert not os.path.ismount(place)


SCRIPT = """set -e
mount -t overlay overlay -o lowerdir={place}/sbin:/usr/sbin /usr/sbin || exit 77
mount -t ocifs {host} {place}/mnt -o tag_ttl=5,x-systemd.automount
ls -A {place}/mnt
umount {place}/mnt
mount -a -T {place}/fstab
ls -A {place}/mnt
umount {place}/mnt
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_mount_and_fstab_mount_a_registry(registry: Registry, tmp_path: Path) -> None:
    for name in ("sbin", "mnt"):
        (tmp_path / name).mkdir()
    program = tmp_path / "sbin" / "mount.ocifs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ocifs.cli.mount_helper "$@"\n')
    program.chmod(0o755)
    (tmp_path / "fstab").write_text(f"{registry.host} {tmp_path}/mnt ocifs tag_ttl=5,_netdev,nofail 0 0\n")
    script = SCRIPT.format(place=tmp_path, host=registry.host)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"no overlay in a namespace here: {done.stderr}")
    assert (done.returncode, done.stdout.count(".ocifs")) == (0, 2), done.stderr


def test_systemd_hears_when_the_mount_answers(registry: Registry, tmp_path: Path, monkeypatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache"):
            assert listener.recv(100) == b"READY=1"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_one(tmp_path: Path) -> None:
    text = (ROOT / "scripts/packaging/systemd/ocifs@.service").read_text()
    unit = tmp_path / "ocifs@work.service"
    unit.write_text(text.replace("%h/.local/bin/ocifs", "/bin/true"))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
