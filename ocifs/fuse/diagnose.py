"""Diagnoses a failed mount: libfuse prints the reason to standard error, which a daemon lacks.

Called once after a failure, before the event loop has started to serve. Checks change nothing; the
first problem is reported, with a command that solves it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ocifs.programs import find_program

_FUSE = os.makedev(10, 229)  # the kernel's Documentation/admin-guide/devices.txt
_SYS_ADMIN = 21  # capability.h
NO_DIAGNOSIS = "run `ocifs doctor` to find the reason"


def diagnose_mount_failure(
    mountpoint: Path, *, allow_other: bool, device: Path = Path("/dev/fuse")
) -> str:
    """The reason that this process cannot mount there, and what to do about it."""
    problem = _check_device(device)
    if not problem:
        problem = _check_root() if os.geteuid() == 0 else _check_user(mountpoint, allow_other)
    return problem or NO_DIAGNOSIS


def _check_device(device: Path) -> str:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return (
            f"{device} is not there: modprobe fuse; "
            f"a container needs --device {device} --cap-add SYS_ADMIN"
        )
    except PermissionError:
        return (
            f"{device} may not be opened by this user: chmod 666 {device}; "
            f"a container needs --device {device}"
        )
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}; a container needs --device {device}"
    if device.stat().st_rdev != _FUSE:
        return f"{device} is not the kernel's FUSE device"
    return ""


def _check_root() -> str:
    allowed = re.search(
        r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    if allowed and not int(allowed[1], 16) >> _SYS_ADMIN & 1:
        return "root may not mount here: a container needs --device /dev/fuse --cap-add SYS_ADMIN"
    return ""


def _check_user(mountpoint: Path, allow_other: bool, conf: Path = Path("/etc/fuse.conf")) -> str:
    helper = find_program("fusermount3")
    if helper is None:
        return "fusermount3 is not on the PATH: apt install fuse3, or dnf install fuse3"
    status = os.stat(helper)
    if not (status.st_uid == 0 and status.st_mode & stat.S_ISUID):
        return f"{helper} is not setuid root: chmod u+s {helper}"
    if not os.access(mountpoint, os.W_OK):
        return f"only root may mount on a directory that it cannot write: {mountpoint}"
    if allow_other:
        try:
            lines = conf.read_text().splitlines()
        except OSError:
            lines = []
        if not any(line.strip() == "user_allow_other" for line in lines):
            return f"--allow-other needs the line user_allow_other in {conf}, or root"
    return ""
