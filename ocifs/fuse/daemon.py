"""Into the background, and a parent that waits until the mount answers.

Rules that hold here: the fork comes before anything that starts a thread or an event loop; the
parent ends with status 0 only when the mount answered, else it says what the child said and ends
with the status that the child gave; until then the child stays in the process group that it was
started in: while autofs waits for a mount it lets that group alone pass the mount point (the
kernel's Documentation/filesystems/autofs.rst), and a daemon that had left it would wait for itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import sys
from pathlib import Path

from ocifs.errors import UsageError
from ocifs.printable import printable_lines

_READY = b"ready"


class Ready:
    """How the child tells the parent that waits for it. Says one thing once."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def ok(self, warnings: str = "") -> None:
        """The mount answers; from here on this process is a session of its own.

        The parent prints the warnings.
        """
        if self._pipe is not None:
            os.setsid()
        self._send(_READY + warnings.encode(errors="replace"))

    def fail(self, message: str, status: int) -> None:
        """The mount could not be made, and the parent is to end with this status."""
        self._send(f"{status} {printable_lines(message)}".encode(errors="replace"))

    def _send(self, text: bytes) -> None:
        if self._pipe is not None:
            with contextlib.suppress(
                BrokenPipeError
            ):  # whoever waited was interrupted; the mount goes on
                os.write(self._pipe, text[:4096])
            os.close(self._pipe)
            self._pipe = None


def detach(log_file: Path | None) -> Ready:
    """Go on in a child; the parent never returns from here.

    Raises UsageError where nothing can be written to the log file.
    """
    output = _open_log(log_file or Path(os.devnull))
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(writer)
        _relay_result(reader, child)
    os.close(reader)
    signal.signal(
        signal.SIGHUP, signal.SIG_IGN
    )  # a daemon has no terminal whose end it would share
    os.chdir("/")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for spare in {silence, output} - {0, 1, 2}:
        os.close(spare)
    return Ready(writer)


def _open_log(path: Path) -> int:
    """The log file, never through a symbolic link: in a directory of others that may lead to any
    file of this user's.
    """
    flags = (
        os.O_WRONLY
        | os.O_CREAT
        | os.O_APPEND
        | os.O_NOFOLLOW
        | os.O_NONBLOCK
        | os.O_NOCTTY
        | os.O_CLOEXEC
    )
    try:
        descriptor = os.open(path, flags, 0o600)
        _check_log(os.fstat(descriptor))
        os.set_blocking(descriptor, True)
        return descriptor
    except OSError as error:
        raise UsageError(
            f"the log cannot be written to {path}: {error.strerror}",
            hint="name another with --log-file",
        ) from None


def _check_log(found: os.stat_result) -> None:
    """Raise OSError for what is not to be appended to: a FIFO, another user's file, a further name
    of some file.
    """
    regular = stat.S_ISREG(found.st_mode)
    if not regular and not stat.S_ISCHR(found.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    if regular and (found.st_uid not in (0, os.geteuid()) or found.st_nlink > 1):
        raise OSError(errno.EPERM, "the file belongs to another user, or has other names")


def notify_systemd(state: str) -> None:
    """Tell systemd, where it started this process with Type=notify (sd_notify(3)); that nobody
    listens is no reason to fail.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.settimeout(1)
        sender.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)


def _relay_result(reader: int, child: int) -> None:
    """What the child says is what this process ends with."""
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    if said.startswith(_READY):
        os.write(2, said.removeprefix(_READY))
        os._exit(0)
    status, _, message = said.decode(errors="replace").partition(" ")
    if not status.isdigit():
        status, message = "1", f"the daemon (process {child}) ended before the mount was made"
    os.write(2, f"ocifs: {message}\n".encode())
    os._exit(int(status))
