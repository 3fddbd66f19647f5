"""The ocifs mounts of this machine, from the kernel's mount table: their state, and how to end
them.

Called by commands, and once by `serve` in a worker thread. Blocks, with a timeout for each access
to a mount.

Rules that hold here:

- The mount table is the only list of mounts. There are no pid files. Mounts that the kernel serves
  also have a record, which identifies them in the table (`kernel/records.py`).
- A mount is dead if the kernel returns ENOTCONN: the daemon's connection is closed. For a mount
  that the kernel serves, the daemon's socket refuses connections.
- Of a live mount only the root and `.ocifs/status.json` are read.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ocifs.errors import OcifsError, UsageError
from ocifs.fuse.holders import holders
from ocifs.fuse.kernel import records
from ocifs.fuse.kernel.records import Record
from ocifs.oci.jsontext import load_json
from ocifs.programs import find_program
from ocifs.settings import MIB
from ocifs.userfiles import read_user_file

T = TypeVar("T")

FILESYSTEM = "fuse.ocifs"
# The kernel writes a space, tab, newline or backslash in the table as an octal escape.
_OCTAL = re.compile(r"\\([0-7]{3})")
# The mounting user, in the options of a FUSE mount.
_OWNER = re.compile(r"(?:^|,)user_id=(\d{1,10})(?:,|$)", re.ASCII)
# Seconds that umount or mount(8) may take, and that a mount may take to answer.
_HELPER_TIMEOUT = 10.0
_ANSWER_TIMEOUT = 2.0
# Lookups that the mount is waiting for end before it forgets a name: after `--timeout` by default.
_REFRESH_TIMEOUT = 60.0
# A longer status is cut off, and then invalid JSON.
_STATUS_BYTES = 1 * MIB
# The number of processes and mounts that a message lists.
_NAMED = 8


@dataclass(frozen=True, slots=True)
class Mount:
    """One ocifs mount. `number` is the kernel's mount ID; `device` is major:minor.

    `owner` is the user ID of the mounting user. `record` is that of a mount that the kernel serves.
    """

    mountpoint: Path
    source: str
    number: int = field(default=0, compare=False)
    device: str = field(default="", compare=False)
    record: Record | None = field(default=None, compare=False)
    owner: int = field(default=0, compare=False)


def parse_mountinfo(text: str, recorded: Iterable[Record] = ()) -> list[Mount]:
    """The ocifs mounts in a mountinfo table (proc_pid_mountinfo(5)), in its order.

    `recorded`: the records of mounts that the kernel serves.
    """
    found = []
    # The device is unknown while a mount is made.
    known = {(record.device or record.mountpoint, record.kind): record for record in recorded}
    for line in text.split("\n"):
        # A varying number of optional fields stands before the separator.
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(kinds) < 2:
            continue
        source = _unescape(kinds[1])
        record = known.get((fields[2], kinds[0])) or known.get((_unescape(fields[4]), kinds[0]))
        if kinds[0] == FILESYSTEM or (record is not None and record.source == source):
            number = int(fields[0]) if fields[0].isdecimal() else 0
            owner = _OWNER.search(kinds[-1])
            # Only root makes mounts that the kernel serves, and these have no user_id.
            user = int(owner[1]) if owner else 0
            path = Path(_unescape(fields[4]))
            found.append(Mount(path, source, number, fields[2], record, user))
    return found


def mounts() -> list[Mount]:
    """The ocifs mounts that this process can see."""
    return parse_mountinfo("\n".join(mount_table()), records.all_records())


def mount_table() -> list[str]:
    """The lines of the mount table. Names may have other line separators than a newline."""
    text = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape")
    return text.split("\n")[:-1]


def mount_state(mount: Mount) -> str:
    """The state of a mount: `answers`, `dead` (its daemon is gone), `silent` (no answer in time),
    or the name of another errno.
    """
    if mount.record is not None:
        return records.daemon_state(mount.record, _ANSWER_TIMEOUT)
    return state_of(mount.mountpoint)


def mount_status(mount: Mount) -> dict[str, object]:
    """The status that a mount reports; empty if it does not."""
    record = mount.record
    if record is None:
        return read_status(mount.mountpoint)
    if not record.has_daemon:
        return records.status_without_daemon(record)
    try:
        content = records.ask(record, "status.json", _ANSWER_TIMEOUT, _STATUS_BYTES)
        status = load_json(content, "the status of a mount")
    except (OSError, ValueError, OcifsError):
        return {}
    return status if isinstance(status, dict) else {}


def state_of(mountpoint: Path) -> str:
    """The state of a FUSE mount, as `mount_state`."""

    def look() -> str:
        try:
            mountpoint.stat()
            # The kernel answers stat from its cache, even if the mount is dead; not statvfs.
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
    """The status of a mount from `.ocifs/status.json`; empty if it cannot be read in time.

    The mount may be another user's and serve anything: an endless file, a FIFO, deep JSON.
    """

    def read() -> dict[str, object]:
        path = mountpoint / ".ocifs" / "status.json"
        try:
            status = load_json(read_user_file(path, _STATUS_BYTES + 1), "the status of a mount")
        except (OSError, ValueError, OcifsError):
            return {}
        return status if isinstance(status, dict) else {}

    return _with_timeout(read) or {}


def refresh(mountpoint: Path) -> str:
    """Make a mount ask its registries again, and wait until it has forgotten its names.

    Returns why that failed, or an empty text. The mount may be another user's and serve anything.
    """

    def read() -> str:
        path = mountpoint / ".ocifs" / "refresh"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.read(descriptor, 4096)
            finally:
                os.close(descriptor)
        except OSError as error:
            # A mount that the kernel serves shows one manifest: it has no names that can change.
            if error.errno == errno.ENOENT and not path.parent.exists():
                return ""
            return error.strerror or type(error).__name__
        return ""

    answer = _with_timeout(read, _REFRESH_TIMEOUT)
    return "no answer in time" if answer is None else answer


def _with_timeout(look: Callable[[], T], seconds: float = _ANSWER_TIMEOUT) -> T | None:
    """The result of a function that accesses a mount, or None if it does not return in time."""
    results: list[T] = []
    # A daemon thread: it may never return, and must not delay the exit of the process.
    thread = threading.Thread(target=lambda: results.append(look()), daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def is_dead(mountpoint: Path) -> bool:
    """Whether the daemon behind the mount on top at a mount point is gone."""
    found = [mount for mount in mounts() if mount.mountpoint == mountpoint]
    # Without a mount, the path itself is looked at.
    return (mount_state(found[-1]) if found else state_of(mountpoint)) == "dead"


def resolve_mount_point(path: Path) -> Path:
    """A mount point as in the mount table.

    The last component is not accessed, since it may be a dead mount.
    """
    absolute = Path(os.path.abspath(path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def clear_dead_mount(mountpoint: Path) -> bool:
    """Unmount the dead ocifs mounts at a mount point. Returns whether there were any.

    Raises UsageError if one cannot be unmounted.
    """
    cleared = False
    # Mounts can be stacked, if they were not made by `ocifs mount`.
    for _ in [mount for mount in mounts() if mount.mountpoint == mountpoint]:
        # The mount on top hides the others, so a live one ends the loop.
        if not is_dead(mountpoint):
            break
        # Programs may still have files of a dead mount open: umount would fail with EBUSY.
        unmount(mountpoint, lazy=True)
        cleared = True
    return cleared


def reject_live_mount(mountpoint: Path) -> None:
    """Raise UsageError if an ocifs mount is there: another mount would hide it, and the first
    `umount` would show it again.
    """
    lines = [
        line
        for line in mount_table()
        if line.count(" ") > 4 and Path(_unescape(line.split(" ")[4])) == mountpoint
    ]
    # The last line is the mount on top. Only that one would be hidden.
    for mount in parse_mountinfo("".join(lines[-1:]), records.all_records()):
        hint = f"run `ocifs umount {mountpoint}` first"
        raise UsageError(f"{mount.source} is already mounted at {mountpoint}", hint=hint)


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount. Raises UsageError with the helper's message and the processes that use the mount."""
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
    except UsageError as error:
        raise UsageError(f"cannot unmount {mountpoint}: {error}", hint=error.hint) from None
    if done.returncode != 0:
        raise UsageError(
            f"cannot unmount {mountpoint}: {done.stderr.strip()}", hint=busy_hint(mountpoint)
        )
    # The record of a mount without a daemon has no other end.
    sweep_records()


def sweep_records() -> None:
    """Remove leftovers of killed daemons and ended mounts from /run/ocifs."""
    records.sweep([mount.record.place for mount in mounts() if mount.record is not None])


def restrict(mountpoint: Path, flags: Sequence[str]) -> None:
    """Add flags to a mount (noexec, nosymfollow), which has ro, nosuid and nodev. Needs root.

    Raises UsageError with the message of mount(8).
    """
    # A bind remount replaces all flags of the mount, also the present ones (mount(2)).
    options = ",".join(("remount", "bind", "ro", "nosuid", "nodev", *flags))
    # -i does not run mount.ocifs, and `ignore` does not read options from fstab.
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
    """The command that may unmount: umount for root, libfuse's helper for others."""
    if os.geteuid() == 0:
        return [_program("umount"), *(["-l"] if lazy else [])]
    return [_program("fusermount3", "fusermount"), "-u", *(["-z"] if lazy else [])]


def _program(*names: str) -> str:
    """The first of these programs that is installed."""
    found = next(filter(None, map(find_program, names)), None)
    if found is None:
        raise UsageError(
            f"{names[0]} is not on the PATH",
            hint="apt install fuse3 mount, or dnf install fuse3 util-linux",
        )
    return found


def busy_hint(mountpoint: Path) -> str:
    """The processes and mounts that use a mount, and what to do; empty if none are visible."""
    # A mount below the mount point also makes umount(2) fail with EBUSY.
    places = [Path(_unescape(line.split(" ")[4])) for line in mount_table() if line.count(" ") > 4]
    found = [f"the mount at {place}" for place in places if mountpoint in place.parents]
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            number, device = mount.number, mount.device
            # Reading /proc of a process blocks while its memory waits for a mount.
            found += map(str, _with_timeout(lambda: holders(mountpoint, number, device)) or [])  # noqa: B023 (called before the next turn)
    if not found:
        return ""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    users = ", ".join(found[:_NAMED])
    return f"in use by {users}{more}; end them, or use --lazy to detach the mount now"


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
