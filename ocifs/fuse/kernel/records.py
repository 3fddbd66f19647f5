"""Records of the mounts that the kernel serves, in /run/ocifs: the mount table does not show that
an EROFS or overlay mount is one of ocifs.

    /run/ocifs/<id>/record.json        source and mount point; readable by all users
    /run/ocifs/<id>/private/           other users cannot enter it
    /run/ocifs/<id>/private/control    the daemon's socket: status and errors
    /run/ocifs/<id>/private/...        mount points, while a mount is made

Commands read records; the process that mounts writes them. Everything here blocks, with a timeout
for each access to a daemon.

- A record is valid only together with a line of the mount table that has its device, its type and
  its source. A stale record is therefore never taken for a mount.
- A daemon has died if its socket refuses connections. A mount without a daemon needs none.
- The directory is on a tmpfs, so a reboot removes all records.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ocifs.errors import OcifsError
from ocifs.fuse.kernel import syscalls
from ocifs.oci.jsontext import load_json
from ocifs.settings import KIB
from ocifs.userfiles import read_user_file

DIRECTORY = Path("/run/ocifs")
_RECORD, _CONTROL, _PRIVATE = "record.json", "control", "private"
# The mount points in the private directory, in the order of unmounting.
_MOUNT_POINTS = ("lower", "tmpfs", "fuse")
_LEFT_AFTER = 600.0  # seconds after which a directory without a record is a leftover
_RECORD_BYTES = 64 * KIB
# More records than a machine has mounts; they are read for each command.
_MAX_RECORDS = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """One mount. `device` is major:minor, or empty while the mount is made. `kind` is the type in
    the mount table.

    `source` is the source in the mount table. `pid` is 0 for a mount without a daemon.
    `status` is the static part of its status.
    """

    place: Path = field(compare=False)
    mountpoint: str
    source: str
    device: str
    kind: str
    pid: int
    namespace: int
    status: Mapping[str, object] = field(default_factory=dict, compare=False)

    @property
    def control(self) -> Path:
        """The path of the daemon's socket."""
        return control_of(self.place)

    @property
    def has_daemon(self) -> bool:
        """Whether the mount needs a daemon."""
        return self.pid != 0


def create_place(directory: Path = DIRECTORY) -> Path:
    """Create the directory of a new mount, with its private directory. Raises OSError."""
    directory.mkdir(mode=0o755, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="", dir=directory))
    private_of(place).mkdir(mode=0o700)
    # Records are readable by all users, like the mount table.
    place.chmod(0o755)
    return place


def private_of(place: Path) -> Path:
    """The directory that only the user of the mount can enter."""
    return place / _PRIVATE


def control_of(place: Path) -> Path:
    """The path of the socket of a mount's daemon."""
    return private_of(place) / _CONTROL


def write(record: Record) -> None:
    """Write a record. It appears complete, or not at all. Raises OSError."""
    values = dataclasses.asdict(record)
    del values["place"]
    temporary = record.place / f"{_RECORD}.tmp"
    temporary.write_text(json.dumps(values, indent=2) + "\n")
    temporary.chmod(0o644)
    temporary.rename(record.place / _RECORD)


def remove(place: Path) -> None:
    """Remove the directory of an ended mount, and detach mounts in it."""
    for path in (place / _RECORD, control_of(place)):
        with contextlib.suppress(OSError):
            path.unlink()
    private = private_of(place)
    for name in _MOUNT_POINTS:
        with contextlib.suppress(OSError):
            syscalls.detach(private / name)
    # Links and directories only. Nothing is ever mounted there.
    shutil.rmtree(private / "names", ignore_errors=True)
    # Not a recursive removal: it would delete from a file system that could not be detached.
    for directory in (*(private / name for name in _MOUNT_POINTS), private, place):
        with contextlib.suppress(OSError):
            directory.rmdir()


def all_records(directory: Path = DIRECTORY) -> Iterator[Record]:
    """The records of this machine. Unreadable ones are skipped."""
    try:
        places = sorted(directory.iterdir())
    except OSError:
        return
    for place in places[:_MAX_RECORDS]:
        record = _read(place)
        if record is not None:
            yield record


def _read(place: Path) -> Record | None:
    try:
        values = load_json(read_user_file(place / _RECORD, _RECORD_BYTES), "a record of a mount")
    except (OSError, ValueError, OcifsError):
        return None
    if not isinstance(values, dict):
        return None
    texts = [values.get(name) for name in ("mountpoint", "source", "device", "kind")]
    numbers = [values.get(name) for name in ("pid", "namespace")]
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(number, int) for number in numbers
    ):
        return None
    status = values.get("status")
    mountpoint, source, device, kind = texts
    pid, number = numbers
    return Record(
        place,
        str(mountpoint),
        str(source),
        str(device),
        str(kind),
        int(str(pid)),
        int(str(number)),
        status if isinstance(status, dict) else {},
    )


def namespace() -> int:
    """The number of this process's mount namespace."""
    return os.stat("/proc/self/ns/mnt").st_ino


def sweep(mounted: Collection[Path], directory: Path = DIRECTORY) -> None:
    """Remove leftovers of killed daemons and ended mounts.

    `mounted`: the places of the mounts in the mount table of this namespace.
    """
    here = namespace()
    try:
        places = sorted(directory.iterdir())
    except OSError:
        return
    for place in places[:_MAX_RECORDS]:
        if place in mounted:
            continue
        record = _read(place)
        is_over = _is_left(place) if record is None else _has_ended(record)
        if is_over and (record is None or record.namespace == here):
            remove(place)


def _has_ended(record: Record) -> bool:
    """Whether the mount of a record, which is not in the mount table, is not being made either."""
    if record.device:
        return not record.has_daemon or daemon_state(record) == "dead"
    return not Path(f"/proc/{record.pid}").exists()


def _is_left(place: Path) -> bool:
    """Whether a directory without a record is too old for a mount that is being made."""
    try:
        return time.time() - place.stat().st_mtime > _LEFT_AFTER
    except OSError:
        return False


def daemon_state(record: Record, timeout: float = 2.0) -> str:
    """`answers`, `dead`, `silent`, or the name of another errno."""
    if not record.has_daemon:
        return "answers"
    try:
        return "answers" if ask(record, "version", timeout, KIB) else "silent"
    except (ConnectionRefusedError, FileNotFoundError):
        return "dead"
    except PermissionError:
        return "EACCES"
    except OSError:
        return "silent"


def status_without_daemon(record: Record) -> dict[str, object]:
    """The status of a mount without a daemon: that of its start, and its age."""
    started = record.status.get("started")
    age = time.time() - started if isinstance(started, int | float) else 0.0
    return {**record.status, "seconds": round(max(0.0, age), 1), "daemon": False}


def ask(record: Record, name: str, timeout: float, limit: int) -> bytes:
    """The content of a control file, up to a number of bytes. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        client.connect(str(record.control))
        client.sendall(f"{name}\n".encode())
        content = bytearray()
        while len(content) < limit:
            piece = client.recv(64 * KIB)
            if not piece:
                break
            content += piece
        return bytes(content)
