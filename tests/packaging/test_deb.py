"""The Debian package passes lintian, and is all that a fresh Debian needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.chroot import base_tar, in_chroot
from tests.support.installed import copy_demo, run

pytestmark = [
    pytest.mark.skipif(
        shutil.which("dpkg-deb") is None,
        reason="only Debian and its kin build and install packages",
    ),
    pytest.mark.timeout(500),  # building the base system, if none is cached
]


def test_lintian_has_no_complaints(package: Path) -> None:
    if shutil.which("lintian") is None:
        assert not os.environ.get("CI"), "lintian must be there in CI: see scripts/setup"
        pytest.skip("lintian is not installed")
    done = subprocess.run(
        [
            "lintian",
            "--allow-root",
            "--fail-on",
            "error,warning",
            "--tag-display-limit",
            "0",
            package,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_the_package_has_the_expected_files(package: Path) -> None:
    listed = run("dpkg-deb", "--contents", package)
    for name in (
        "/usr/bin/ocifs -> ../lib/ocifs/bin/ocifs",
        "/usr/sbin/mount.fuse.ocifs -> mount.ocifs",
        "/usr/sbin/mount.ocifs -> ../lib/ocifs/bin/mount.ocifs",
        "/etc/ocifs/config.toml",
        "/usr/lib/systemd/system/ocifs@.service",
        "/usr/lib/systemd/user/ocifs@.service",
        "/usr/share/bash-completion/completions/ocifs",
        "/usr/share/fish/vendor_completions.d/ocifs.fish",
        "/usr/share/man/man1/ocifs.1.gz",
        "/usr/share/man/man5/ocifs.toml.5.gz",
        "/usr/share/man/man8/mount.ocifs.8.gz",
        "/usr/share/zsh/vendor-completions/_ocifs",
    ):
        assert f" .{name}\n" in listed
    facts = run("dpkg-deb", "--field", package)
    assert "libfuse3-3" in facts and "python3 (<< " in facts and "fuse3, " in facts
    parts = run("dpkg-deb", "--info", package)
    assert not [script for script in ("postinst", "prerm", "preinst", "postrm") if script in parts]


def test_no_bytecode_is_ever_compared_with_its_source_or_rewritten(
    package: Path, tmp_path: Path
) -> None:
    run("dpkg-deb", "--extract", package, tmp_path)
    files = list((tmp_path / "usr/lib/ocifs/lib").rglob("*.pyc"))
    # PEP 552: 1 is a hash that is not checked, 0 is the time of the source.
    flags = {path: int.from_bytes(path.read_bytes()[4:8], "little") for path in files}
    assert files and [path for path, flag in flags.items() if flag != 1] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_its_units_are_units(package: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--extract", package, tmp_path / "root")
    for kind, unit in (("--system", "usr/lib/systemd/system"), ("--user", "usr/lib/systemd/user")):
        text = (tmp_path / "root" / unit / "ocifs@.service").read_text()
        assert "ExecStart=/usr/bin/ocifs mount --foreground %i\n" in text
        verified = tmp_path / "ocifs@work.service"
        # Neither the program nor its manual pages are installed on this machine.
        lines = text.replace("/usr/bin/ocifs", "/bin/true").splitlines(keepends=True)
        verified.write_text(
            "".join(line for line in lines if not line.startswith("Documentation="))
        )
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        done = subprocess.run(
            ["systemd-analyze", kind, "verify", verified],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


STEPS = """
dpkg --install /ocifs.deb >/dev/null
ocifs --version
/demo/scripts/demo --installed
python3 /demo/scripts/example.py /example
mkdir /mnt/reg
mount -t ocifs oci:/example /mnt/reg -o allow_other,tag_ttl=30
grep ' /mnt/reg fuse.ocifs ' /proc/self/mounts
cat /mnt/reg/_manifests/notes/layers/0/blob
umount /mnt/reg
echo 'timeout = 7' >>/etc/ocifs/config.toml
ocifs config show | grep ^timeout
/usr/lib/ocifs/bin/python -c "import ocifs; print(ocifs.open)"
mkdir -p /stranger/ocifs /stranger/encodings /mnt/other
for each in ocifs/__init__ ocifs/__main__ encodings/__init__ trio click re sitecustomize \\
  usercustomize; do
  echo 'open("/ran", "a").write(__file__ + "\n")' >/stranger/$each.py
done
cd /stranger
for path in "" : . /stranger; do
  PYTHONPATH=$path PYTHONUSERBASE=/stranger PYTHONHOME=$path PYTHONSTARTUP=/stranger/re.py \\
    ocifs ls oci:/example >/dev/null
  PYTHONPATH=$path mount -t ocifs oci:/example /mnt/other
  ocifs umount /mnt/other
done
test ! -e /ran && echo nothing of the stranger ran
cd /
dpkg --verify ocifs
dpkg --purge ocifs 2>&1
test ! -e /usr/lib/ocifs -a ! -e /etc/ocifs -a ! -e /usr/bin/ocifs && echo all of it is gone
"""


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a chroot")
def test_the_package_is_all_that_a_fresh_debian_needs(package: Path, tmp_path: Path) -> None:
    assert base_tar().exists()
    root = tmp_path / "root"
    root.mkdir()
    try:
        shutil.copy(package, root / "ocifs.deb")
        copy_demo(root / "demo")
        said = in_chroot(root, STEPS)
    finally:
        shutil.rmtree(root)
    assert said.count("Buy milk.") == 2  # from the demo, and from mount(8)
    assert "oci:/example /mnt/reg fuse.ocifs ro,nosuid,nodev" in said
    assert "timeout" in said and "/etc/ocifs/config.toml" in said
    assert [line for line in said.splitlines() if line.startswith("??")] == [
        "??5?????? c /etc/ocifs/config.toml"
    ]
    assert "nothing of the stranger ran\n" in said
    assert said.endswith("all of it is gone\n")
    assert "not removed" not in said and "not empty" not in said
