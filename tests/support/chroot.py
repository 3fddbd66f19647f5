"""A minimal Debian for installation tests: this machine's release, with Python and FUSE.

Rules that hold here:
- The system is built once, and cached for later runs. The cached file is complete, because it is
  renamed into place.
- A change of the recipe builds it again.
- If the mirrors of the system cannot be reached, the test is skipped by name, and fails in CI.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = "python3,fuse3,ca-certificates,mount"
SLIM = (
    'cd "$1" && rm -rf usr/share/doc/* usr/share/locale/* usr/share/man/*'
    " var/cache/apt/*.bin var/lib/apt/lists/*"
)
_KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocifs-dev"

_SCRIPT = """
set -e
cd "$1"
tar -x -f "$2" --exclude './dev/*'
mount --bind . . && cd "$PWD"
mount -t proc proc proc
mount -t tmpfs dev dev
for device in null:1:3 zero:1:5 urandom:1:9 fuse:10:229; do
  IFS=: read -r name major minor <<<"$device"
  mknod -m 666 "dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd dev/fd
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \\
  DEBIAN_FRONTEND=noninteractive bash -euc "$3"
"""


def base_tar() -> Path:
    """The system as a tar. Building it takes about 60 seconds."""
    made_by = hashlib.sha256(f"{PACKAGES} {SLIM}".encode()).hexdigest()[:8]
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    place = _KEPT / f"base-{release}-{made_by}.tar"
    if place.exists():
        return place
    _KEPT.mkdir(parents=True, exist_ok=True)
    making = _KEPT / f"base-making-{os.getpid()}.tar"
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        f"--include={PACKAGES}",
        f"--customize-hook={SLIM}",
    ]
    command += [release, str(making)]
    if shutil.which(command[0]) is None:
        assert not os.environ.get("CI"), "mmdebstrap must be there in CI: see scripts/setup"
        pytest.skip("mmdebstrap is not installed")
    done = subprocess.run(command, capture_output=True, check=False, timeout=400)
    if done.returncode:
        making.unlink(missing_ok=True)
        assert not os.environ.get("CI"), done.stderr.decode()
        pytest.skip(f"mmdebstrap makes no Debian here: {done.stderr.decode()[-300:]}")
    for older in _KEPT.glob("base-*.tar"):
        if older != making:
            older.unlink()
    making.rename(place)
    return place


def in_chroot(root: Path, script: str, seconds: int = 100) -> str:
    """Unpack the system into `root`, run a bash script in it, and return its output.

    The script has its own namespaces, so its mounts and processes end with it.
    """
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["bash", "-c", _SCRIPT, "chroot", str(root), str(base_tar()), script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
