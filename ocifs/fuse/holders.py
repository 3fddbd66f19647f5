"""The processes that keep a mount busy: by their working directory, open files or mapped files.

Called by commands, in a thread. Blocks.

Rules that hold here:

- The mount itself is never accessed, since it may be dead or hang. /proc records the mount of an
  open file and the device of a mapped one.
- Processes that this user may not inspect are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Characters of a command line to show.
_SHOWN = 60


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A process, the command that it runs, and how it holds the mount: `stands in it`, `has a file
    open`, `has a file mapped`.
    """

    pid: int
    command: str
    use: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid}, {self.use})"


def holders(mountpoint: Path, mount_id: int, device: str) -> list[Holder]:
    """The processes that hold a mount. `device`: major:minor, as mountinfo has it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            use = next(_uses(process, mountpoint, mount_id, device), "")
            if use:
                found.append(Holder(int(process.name), _command(process), use))
    return sorted(found)


def _uses(process: Path, mountpoint: Path, mount_id: int, device: str) -> Iterator[str]:
    for link in (process / "cwd", process / "root"):
        if _is_within(link, mountpoint):
            yield "stands in it"
    # The process may have ended, or belong to another user.
    with suppress(OSError):
        for descriptor in (process / "fdinfo").iterdir():
            if _field(descriptor, "mnt_id:") == str(mount_id):
                yield "has a file open"
    major, _, minor = device.partition(":")
    with suppress(OSError, ValueError):
        # Device numbers are hexadecimal in maps (proc_pid_maps(5)) and decimal in mountinfo.
        wanted = f"{int(major):02x}:{int(minor):02x}"
        for line in (process / "maps").read_text(errors="replace").splitlines():
            if line.split(" ", 4)[3:4] == [wanted]:
                yield "has a file mapped"


def _is_within(link: Path, mountpoint: Path) -> bool:
    try:
        target = os.readlink(link)
    except OSError:
        return False
    return target == str(mountpoint) or target.startswith(f"{mountpoint}/")


def _field(path: Path, name: str) -> str:
    """One field of a file of lines like `mnt_id:	29` (proc_pid_fdinfo(5))."""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return line.removeprefix(name).strip()
    return ""


def _command(process: Path) -> str:
    with suppress(OSError):
        # A process can make this megabytes long.
        with (process / "cmdline").open("rb") as file:
            words = file.read(4 * _SHOWN).replace(b"\0", b" ").decode(errors="replace").strip()
        text = words or (process / "comm").read_text().strip()
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return "?"
