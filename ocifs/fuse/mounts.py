"""The mounts of this machine, from the kernel's own table: which are ours, which are dead, who
keeps one busy.

Rules that hold here: the table is the truth, no pid file is; a dead mount is recognised by
ENOTCONN, which the kernel gives once the daemon's connection is gone; nothing here asks a live
mount for more than its root.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ocifs.errors import OcifsError, UsageError
from ocifs.fuse.holders import holders
from ocifs.oci.jsontext import load_json
from ocifs.programs import find_program
from ocifs.settings import MIB
from ocifs.userfiles import read_user_file

T = TypeVar("T")

FILESYSTEM = "fuse.ocifs"
_OCTAL = re.compile(r"\\([0-7]{3})")
_HELPER_TIMEOUT = 10.0
_ANSWER_TIMEOUT = 2.0
_STATUS_BYTES = 1 * MIB  # a longer status is cut off, and then not valid JSON
_NAMED = 8  # of those that keep a mount busy


@dataclass(frozen=True, slots=True)
class Mount:
    """One ocifs mount: where, and what is mounted there; the kernel's number for it, and its device
    as major:minor.
    """

    mountpoint: Path
    source: str
    number: int = field(default=0, compare=False)
    device: str = field(default="", compare=False)


def parse_mountinfo(text: str) -> list[Mount]:
    """The ocifs mounts in a mountinfo table (proc_pid_mountinfo(5)), in its order."""
    found = []
    for line in text.split("\n"):
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) > 4 and len(kinds) > 1 and kinds[0] == FILESYSTEM:
            number = int(fields[0]) if fields[0].isdecimal() else 0
            found.append(Mount(Path(_unescape(fields[4])), _unescape(kinds[1]), number, fields[2]))
    return found


def mounts() -> list[Mount]:
    """The ocifs mounts that this process can see."""
    return parse_mountinfo("\n".join(mount_table()))


def mount_table() -> list[str]:
    """The lines of the mount table.

    Names in it may have any character but a newline, other ends of lines included.
    """
    text = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape")
    return text.split("\n")[:-1]


def state_of(mountpoint: Path) -> str:
    """How a mount is: `answers`, `dead` (its daemon is gone), `silent` (it does not answer in
    time), or what stat says of it.
    """

    def look() -> str:
        try:
            mountpoint.stat()
            # The kernel answers stat from what it remembers, of a dead mount too; this it always
            # asks.
            os.statvfs(mountpoint)
        except OSError as error:
            return (
                "dead"
                if error.errno == errno.ENOTCONN
                else errno.errorcode.get(error.errno or 0, "unknown")
            )
        return "answers"

    return _with_timeout(look) or "silent"


def read_status(mountpoint: Path) -> dict[str, object]:
    """The status of a mount from `.ocifs/status.json`; empty if it is not there in time.

    The mount may be another user's and serve anything: a file without end, a FIFO, deep JSON.
    """

    def read() -> dict[str, object]:
        path = mountpoint / ".ocifs" / "status.json"
        try:
            status = load_json(read_user_file(path, _STATUS_BYTES + 1), "the status of a mount")
        except (OSError, ValueError, OcifsError):
            return {}
        return status if isinstance(status, dict) else {}

    return _with_timeout(read) or {}


def _with_timeout(look: Callable[[], T]) -> T | None:
    """What a look at a mount gives, or None where it does not come back in time."""
    found: list[T] = []
    # It may never come back, and keeps nobody from leaving.
    thread = threading.Thread(target=lambda: found.append(look()), daemon=True)
    thread.start()
    thread.join(_ANSWER_TIMEOUT)
    return found[0] if found else None


def is_dead(mountpoint: Path) -> bool:
    """Whether the daemon behind a mount is gone."""
    return state_of(mountpoint) == "dead"


def resolve_mount_point(path: Path) -> Path:
    """A mount point as the kernel's table has it; the last component is not looked at, since it may
    be a dead mount.
    """
    absolute = Path(os.path.abspath(path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def clear_dead_mount(mountpoint: Path) -> bool:
    """Take away the dead mounts of ours at a place; whether there were any.

    Raises UsageError when one cannot be taken away.
    """
    cleared = False
    # One may lie upon another, where each was mounted by something else than `ocifs mount`.
    for _ in [mount for mount in mounts() if mount.mountpoint == mountpoint]:
        if not is_dead(mountpoint):
            break
        unmount(mountpoint, lazy=True)
        cleared = True
    return cleared


def reject_live_mount(mountpoint: Path) -> None:
    """Raise UsageError where a mount of ours is at a place: another one would hide it, and the
    first `umount` would show it again.
    """
    here = [
        line
        for line in mount_table()
        if line.count(" ") > 4 and Path(_unescape(line.split(" ")[4])) == mountpoint
    ]
    for mount in parse_mountinfo("".join(here[-1:])):
        hint = f"`ocifs umount {mountpoint}` ends it"
        raise UsageError(f"{mount.source} is mounted at {mountpoint} already", hint=hint)


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """End a mount.

    Raises UsageError with the helper's own words when that fails, and who holds the mount.
    """
    try:
        done = subprocess.run(
            [*_unmount_command(lazy), "--", str(mountpoint)],
            capture_output=True,
            text=True,
            timeout=_HELPER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"cannot unmount {mountpoint}: {error}") from None
    except UsageError as error:  # no program that unmounts
        raise UsageError(f"cannot unmount {mountpoint}: {error}", hint=error.hint) from None
    if done.returncode != 0:
        raise UsageError(
            f"cannot unmount {mountpoint}: {done.stderr.strip()}", hint=busy_hint(mountpoint)
        )


def restrict(mountpoint: Path, flags: Sequence[str]) -> None:
    """Set flags of a mount (noexec, nosymfollow) beside ro, nosuid and nodev.

    Raises UsageError with the words of mount(8). Needs root. Blocks.
    """
    options = ",".join(("remount", "bind", "ro", "nosuid", "nodev", *flags))
    # -i runs no mount.ocifs, and `ignore` reads no options from fstab.
    command = [
        _program("mount"),
        "-i",
        "--options-mode",
        "ignore",
        "-o",
        options,
        "--",
        str(mountpoint),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_HELPER_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"cannot remount {mountpoint}: {error}") from None
    if done.returncode != 0:
        raise UsageError(f"cannot remount {mountpoint}: {done.stderr.strip()}")


def _unmount_command(lazy: bool) -> list[str]:
    """The command that may unmount: for root umount, for others FUSE's helper, by whichever of its
    names it is there.
    """
    if os.geteuid() == 0:
        return [_program("umount"), *(["-l"] if lazy else [])]
    return [_program("fusermount3", "fusermount"), "-u", *(["-z"] if lazy else [])]


def _program(*names: str) -> str:
    """The first of these programs that is there."""
    found = next(filter(None, map(find_program, names)), None)
    if found is None:
        raise UsageError(
            f"{names[0]} is not on the PATH",
            hint="apt install fuse3 mount, or dnf install fuse3 util-linux",
        )
    return found


def busy_hint(mountpoint: Path) -> str:
    """Who has something open below a mount, and what to do about it; empty when nobody is seen."""
    places = [Path(_unescape(line.split(" ")[4])) for line in mount_table() if line.count(" ") > 4]
    found = [f"the mount at {place}" for place in places if mountpoint in place.parents]
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            number, device = mount.number, mount.device
            # A process whose memory waits for a mount blocks readers of its /proc.
            found += map(str, _with_timeout(lambda: holders(mountpoint, number, device)) or [])  # noqa: B023 (called before the next turn)
    if not found:
        return ""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"in use by {', '.join(found[:_NAMED])}{more}; end them, or use --lazy to detach the mount now"


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
