"""The helper of mount(8), fstab and systemd, with real mounts in a mount namespace if possible."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ocifs.cli.mount_helper import sources, translate
from ocifs.oci import mediatype
from tests.support.image import make_layout
from tests.support.mount import mounted
from tests.support.push import push_manifest
from tests.support.registry import Registry
from tests.support.tars import a_tar

ROOT = Path(__file__).parents[2]


def test_options_become_those_of_mount() -> None:
    words = translate(
        "rw,noauto,_netdev,x-systemd.automount,allow_other,tag-ttl=5,repo=a/b,repo=c,plain_http,verbose"
    )
    assert words == [
        "--allow-other",
        "--tag-ttl=5",
        "--repo=a/b",
        "--repo=c",
        "--plain-http",
        "--verbose",
    ]


def test_sources_are_separated_by_commas() -> None:
    assert sources("ghcr.io,quay.io/team") == ["ghcr.io", "quay.io/team"]
    assert sources("none") == []
    assert sources("oci:/a,b:1") == ["oci:/a,b:1"]
    assert translate("any,ro") == ["--any"]


@pytest.mark.parametrize(
    "option", ["tag_tll=5", "timeout", "allow_other=1", "foreground", "password=x"]
)
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
    assert (
        helper("127.0.0.1:1/a/b:c", place, "-o", "rw,timeout=soon", cache=tmp_path).returncode == 1
    )
    assert helper("127.0.0.1:1/A//b:c", place, "-o", "rw", cache=tmp_path).returncode == 1
    assert helper("none", place, "-o", "rw", cache=tmp_path).returncode == 1
    # A missing mount point is a failed mount, not invalid usage: mount(8) also exits with 32.
    assert (
        helper("127.0.0.1:1/a/b:c", f"{place}/absent", "-o", "rw", cache=tmp_path).returncode == 32
    )
    assert helper(f"oci:{place}/absent", place, "-o", "rw", cache=tmp_path).returncode == 32
    assert helper("127.0.0.1:1/a/b:c", place, "-o", "rw", cache=tmp_path).returncode == 32
    assert (
        helper(
            "127.0.0.1:1/a/b:c", place, "-s", "-f", "-o", "rw,unknown", cache=tmp_path
        ).returncode
        == 0
    )
    assert not os.path.ismount(place)


def in_namespace(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace with `mount.ocifs` in /sbin.

    Skips if that is not possible.
    """
    program = place / "sbin" / "mount.ocifs"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ocifs.cli.mount_helper "$@"\n')
    program.chmod(0o755)
    # `mount -o remount MOUNTPOINT` finds the program by the type in the mount table.
    if not (program.parent / "mount.fuse.ocifs").exists():
        (program.parent / "mount.fuse.ocifs").symlink_to(program.name)
    over = (
        "set -e\n"
        f"mount -t overlay overlay -o lowerdir={place}/sbin:/usr/sbin /usr/sbin || exit 77\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", over + script],
        env={**os.environ, "XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"no overlay in a namespace here: {done.stderr}")
    return done


SCRIPT = """mount -t ocifs {host} {place}/mnt -o tag_ttl=5,x-systemd.automount
ls -A {place}/mnt
umount {place}/mnt
mount -a -T {place}/fstab
ls -A {place}/mnt
umount {place}/mnt
if grep -q "{place}/later" /proc/self/mounts; then exit 3; fi
mount -T {place}/fstab {place}/later
ls -A {place}/later
umount {place}/later
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_mount_and_fstab_mount_a_registry(registry: Registry, tmp_path: Path) -> None:
    for name in ("mnt", "later"):
        (tmp_path / name).mkdir()
    lines = ("mnt ocifs tag_ttl=5,_netdev,nofail", "later ocifs noauto,_netdev,x-systemd.automount")
    (tmp_path / "fstab").write_text(
        "".join(f"{registry.host} {tmp_path}/{line} 0 0\n" for line in lines)
    )
    done = in_namespace(SCRIPT.format(place=tmp_path, host=registry.host), tmp_path)
    assert (done.returncode, done.stdout.count(".ocifs")) == (0, 3), done.stderr


def test_systemd_hears_when_the_mount_answers(
    registry: Registry, tmp_path: Path, monkeypatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache"):
            assert listener.recv(100) == b"READY=1"


FSTAB = """{host} {place}/mnt ocifs noauto,x-systemd.automount,_netdev,allow_other,tag_ttl=5 0 0
{host},localhost {place}/two ocifs _netdev,nofail,x-systemd.mount-timeout=60 0 0
"""
GENERATOR = Path("/usr/lib/systemd/system-generators/systemd-fstab-generator")


@pytest.mark.skipif(not GENERATOR.exists(), reason="no systemd here")
def test_systemd_makes_sound_units_of_fstab_and_their_mount_is_made(
    registry: Registry, tmp_path: Path
) -> None:
    for name in ("units", "early", "late", "sbin", "mnt"):
        (tmp_path / name).mkdir()
    (tmp_path / "fstab").write_text(FSTAB.format(host=registry.host, place=tmp_path))
    environment = {**os.environ, "SYSTEMD_FSTAB": str(tmp_path / "fstab")}
    subprocess.run(
        [GENERATOR, *(tmp_path / name for name in ("units", "early", "late"))],
        env=environment,
        check=True,
    )
    units = sorted(
        path for path in (tmp_path / "units").glob("*") if path.suffix in (".mount", ".automount")
    )
    assert [path.suffix for path in units] == [".automount", ".mount", ".mount"]
    one, two = (path.stem for path in units[1:])
    wanted = {
        each.relative_to(tmp_path / "units")
        for each in (tmp_path / "units").glob("remote-fs.target.*/*")
    }
    assert wanted == {
        Path(
            "remote-fs.target.requires", f"{one}.automount"
        ),  # and not the mount, which waits for an access
        Path("remote-fs.target.wants", f"{two}.mount"),
    }
    done = subprocess.run(
        ["systemd-analyze", "verify", *units],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}/units:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [
        line
        for line in done.stderr.splitlines()
        if str(tmp_path) in line or one in line or two in line
    ]
    assert (done.returncode, said) == (0, [])
    if os.geteuid() != 0:
        return
    unit = dict(line.split("=", 1) for line in units[1].read_text().splitlines() if "=" in line)
    # systemd.mount(5): systemd runs mount(8) with the options of the unit.
    mount = f"mount {unit['What']} {unit['Where']} -t {unit['Type']} -o {unit['Options']}"
    done = in_namespace(
        f"{mount}\ngrep ' {tmp_path}/mnt fuse.ocifs ' /proc/self/mounts\numount {tmp_path}/mnt",
        tmp_path,
    )
    assert (done.returncode, done.stdout.split()[:1]) == (0, [registry.host]), done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_one(tmp_path: Path) -> None:
    text = (ROOT / "scripts/packaging/systemd/user/ocifs@.service").read_text()
    unit = tmp_path / "ocifs@work.service"
    lines = text.replace("%h/.local/bin/ocifs", "/bin/true").splitlines(keepends=True)
    unit.write_text(
        "".join(line for line in lines if not line.startswith("Documentation="))
    )  # not installed here
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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("noexec", ["--noexec"]),
        ("user", ["--noexec"]),
        ("users,exec", []),
        ("exec,user=me", ["--noexec"]),
        ("rw,nosuid,nodev,noexec,user=me,exec", []),
        ("nosymfollow", ["--nosymfollow"]),
        ("nosymfollow,symfollow", []),
        (
            "noexec,nosymfollow,iversion,nomand,uhelper=udisks2,helper=x",
            ["--noexec", "--nosymfollow"],
        ),
    ],
)
def test_flags_of_mount_are_those_of_the_last_option_about_them(
    options: str, words: list[str]
) -> None:
    assert translate(options) == words


EMPTY = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
TWICE = """mount -a -T {place}/fstab
mount -a -T {place}/fstab
cat /proc/self/mountinfo
while read -r source point rest; do umount "$point"; done <{place}/fstab
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_mount_a_succeeds_twice_for_every_form_of_source(
    registry: Registry, tmp_path: Path
) -> None:
    """mount(8), -a: mounted file systems are skipped."""
    layout = make_layout(tmp_path / "lay out", [a_tar(x=b"x")])
    push_manifest(registry.url, "mounted/twice", EMPTY, "v1")
    sources = {
        "host": registry.host,
        "slash": f"{registry.host}/",
        "scheme": f"docker://{registry.host}/mounted/twice",
        "short": "alpine",
        "hub": "index.docker.io/library/alpine",
        "several": f"{registry.host},localhost",
        "none": "none",
        "layout": f"oci:{str(layout).replace(' ', chr(92) + '040')}",
        "tagged": f"oci:{str(layout).replace(' ', chr(92) + '040')}:v1",
    }
    lines = []
    for name, source in sources.items():
        (tmp_path / name).mkdir()
        more = ",any" if name == "none" else ""
        lines.append(f"{source} {tmp_path}/{name} ocifs _netdev,nofail,timeout=1{more} 0 0\n")
    (tmp_path / "fstab").write_text("".join(lines))
    done = in_namespace(TWICE.format(place=tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    mounted_at = [
        line
        for line in done.stdout.splitlines()
        if f" {tmp_path}/" in line and "fuse.ocifs" in line
    ]
    assert len(mounted_at) == len(sources), done.stdout


REMOUNT = """mount -t ocifs {host} {place}/mnt -o noexec
grep {place}/mnt /proc/self/mountinfo
mount -o remount,exec {place}/mnt
grep {place}/mnt /proc/self/mountinfo
mount -t ocifs -o remount,ro,nosymfollow {host} {place}/mnt
grep {place}/mnt /proc/self/mountinfo
ls -A {place}/mnt
mount.ocifs {host} {place} -o remount,ro || echo status $?
umount {place}/mnt
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_noexec_reaches_the_kernel_and_remount_changes_it(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "mnt").mkdir()
    done = in_namespace(REMOUNT.format(place=tmp_path, host=registry.host), tmp_path)
    assert done.returncode == 0, done.stderr
    flags = [
        set(line.split(" ")[5].split(","))
        for line in done.stdout.splitlines()
        if f" {tmp_path}/mnt " in line
    ]
    always = {"ro", "nosuid", "nodev"}
    changing = [{"noexec", "nosymfollow"} & each for each in flags]
    assert changing == [{"noexec"}, set(), {"nosymfollow"}]
    assert all(always <= each for each in flags)
    assert ".ocifs" in done.stdout
    assert "status 32" in done.stdout


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="nosymfollow needs root, or a new libfuse")
def test_a_program_of_a_noexec_mount_is_not_run_and_nosymfollow_follows_nothing(
    tmp_path: Path,
) -> None:
    script = b"#!/bin/sh\necho ran\n"
    layout = make_layout(tmp_path / "layout", [a_tar(program=script)])
    flags = ["--noexec", "--nosymfollow", "--view", "rootfs", "--fsname", "a name, with a comma"]
    with mounted(f"oci:{layout}:v1", tmp_path / "mnt", tmp_path / "cache", flags) as mount:
        assert (mount.path / "program").read_bytes() == script
        found = [
            each
            for each in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(mount.path) in each
        ]
        fields = found[0].split(" ")
        assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} <= set(fields[5].split(","))
        assert "a\\040name,\\040with\\040a\\040comma" in fields
