"""The mounts of this machine, from the kernel's own table: which are ours, which are dead, who keeps one busy.

Rules that hold here: the table is the truth, no pid file is; a dead mount is recognised by ENOTCONN, which the kernel gives once the
daemon's connection is gone; nothing here asks a live mount for more than its root.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ocifs.errors import UsageError

T = TypeVar("T")

FILESYSTEM = "fuse.ocifs"
_OCTAL = re.compile(r"\\([0-7]{3})")
_HELPER_TIMEOUT = 10.0
_ANSWER_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Mount:
    """One ocifs mount: where, and what is mounted there."""

    mountpoint: Path
    source: str


def parse_mountinfo(text: str) -> list[Mount]:
    """The ocifs mounts in a mountinfo table (proc_pid_mountinfo(5)), in its order."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) > 4 and len(kinds) > 1 and kinds[0] == FILESYSTEM:
            found.append(Mount(Path(_unescape(fields[4])), _unescape(kinds[1])))
    return found


def mounts() -> list[Mount]:
    """The ocifs mounts that this process can see."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def state_of(mountpoint: Path) -> str:
    """How a mount is: `answers`, `dead` (its daemon is gone), `silent` (it does not answer in time), or what stat says of it."""

    def look() -> str:
        try:
            mountpoint.stat()
            # The kernel answers stat from what it remembers, of a dead mount too; this it always asks.
            os.statvfs(mountpoint)
        except OSError as error:
            return "dead" if error.errno == errno.ENOTCONN else errno.errorcode.get(error.errno or 0, "unknown")
        return "answers"

    return _in_time(look) or "silent"


def told_by(mountpoint: Path) -> dict[str, object]:
    """What a mount says of itself in `.ocifs/status.json`; empty where it says nothing in time."""

    def read() -> dict[str, object]:
        try:
            said = json.loads((mountpoint / ".ocifs" / "status.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    return _in_time(read) or {}


def _in_time(look: Callable[[], T]) -> T | None:
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


def real_place(path: Path) -> Path:
    """A mount point as the kernel's table has it; the last component is not looked at, since it may be a dead mount."""
    absolute = Path(os.path.abspath(path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def clear_dead_mount(mountpoint: Path) -> bool:
    """Take away a dead mount of ours; whether there was one. Raises UsageError when it cannot be taken away."""
    if mountpoint not in [mount.mountpoint for mount in mounts()] or not is_dead(mountpoint):
        return False
    unmount(mountpoint, lazy=True)
    return True


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """End a mount. Raises UsageError with the helper's own words when that fails."""
    root = os.geteuid() == 0
    command = ["umount", *(["-l"] if lazy else [])] if root else ["fusermount3", "-u", *(["-z"] if lazy else [])]
    try:
        done = subprocess.run(
            [*command, "--", str(mountpoint)], capture_output=True, text=True, timeout=_HELPER_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"cannot unmount {mountpoint}: {error}") from None
    if done.returncode != 0:
        raise UsageError(f"cannot unmount {mountpoint}: {done.stderr.strip()}", hint=busy_hint(mountpoint))


def busy_hint(mountpoint: Path) -> str:
    """Who has something open below a mount, and what to do about it; empty when nobody is seen."""
    names = sorted({f"{name} ({pid})" for pid, name in holders(mountpoint)})
    if not names:
        return ""
    return f"in use by {', '.join(names[:8])}; end them, or use --lazy to detach the mount now"


def holders(mountpoint: Path) -> list[tuple[int, str]]:
    """The processes that stand in a mount or have a file of it open, as far as this user may see."""
    found = []
    prefix = f"{mountpoint}/"
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            targets = [os.readlink(link) for link in links]
            name = (process / "comm").read_text().strip()
        except OSError:
            continue  # it ended, or belongs to somebody else
        if any(target == str(mountpoint) or target.startswith(prefix) for target in targets):
            found.append((int(process.name), name))
    return found


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
