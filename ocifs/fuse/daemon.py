"""Starts the daemon: a child that serves the mount, and a parent that waits until the mount
answers.

Rules that hold here:

- The fork happens before any thread or event loop is started.
- The parent exits with 0 only after the mount has answered. Otherwise it prints the child's message
  and exits with the child's status.
- Until then the child stays in its process group. While autofs waits for a mount, only that group
  may pass the mount point (the kernel's Documentation/filesystems/autofs.rst). A daemon in another
  group would wait for itself.
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
    """The child's end of the pipe to the waiting parent. Only the first message is sent."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def ok(self, warnings: str = "") -> None:
        """Report that the mount answers, and start a session. The parent prints the warnings."""
        if self._pipe is not None:
            os.setsid()
        self._send(_READY + warnings.encode(errors="replace"))

    def fail(self, message: str, status: int) -> None:
        """Report that mounting failed. The parent exits with this status."""
        self._send(f"{status} {printable_lines(message)}".encode(errors="replace"))

    def _send(self, text: bytes) -> None:
        if self._pipe is not None:
            # The parent may have been interrupted. The mount continues.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, text[:4096])
            os.close(self._pipe)
            self._pipe = None


def detach(log_file: Path | None) -> Ready:
    """Fork, and return in the child only. Raises UsageError if the log file cannot be written."""
    # Opened before the fork: the parent reports the error, and a relative path is still valid.
    output = _open_log(log_file or Path(os.devnull))
    reader, writer = os.pipe()
    # Otherwise both processes would write the buffered text.
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        # With a copy of this end, the parent could not notice the death of the child.
        os.close(writer)
        _relay_result(reader, child)
    os.close(reader)
    # A daemon must survive the terminal that started it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A working directory would keep its file system from being unmounted.
    os.chdir("/")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # If the standard streams were closed, these may have one of their numbers.
    for spare in {silence, output} - {0, 1, 2}:
        os.close(spare)
    return Ready(writer)


def _open_log(path: Path) -> int:
    """Open the log file, never through a symbolic link: in a directory that others can write, a
    link may point to any file of this user.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a reader. `_check_log` then rejects the FIFO.
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
        # O_NONBLOCK was for opening only: a write must not fail with EAGAIN.
        os.set_blocking(descriptor, True)
        return descriptor
    except OSError as error:
        raise UsageError(
            f"cannot write the log to {path}: {error.strerror}",
            hint="choose another file with --log-file",
        ) from None


def _check_log(status: os.stat_result) -> None:
    """Raise OSError for a FIFO, another user's file, or a file with hard links."""
    regular = stat.S_ISREG(status.st_mode)
    if not regular and not stat.S_ISCHR(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    if regular and (status.st_uid not in (0, os.geteuid()) or status.st_nlink > 1):
        raise OSError(errno.EPERM, "the file belongs to another user, or has other names")


def notify_systemd(state: str) -> None:
    """Notify systemd, if it started this process with Type=notify (sd_notify(3)). Errors are
    ignored.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.settimeout(1)
        # `@` stands for the NUL byte of an abstract socket (sd_notify(3)).
        sender.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)


def _relay_result(reader: int, child: int) -> None:
    """Exit with the message and the status that the child sends."""
    with os.fdopen(reader, "rb") as pipe:
        result = pipe.read()
    if result.startswith(_READY):
        os.write(2, result.removeprefix(_READY))
        # The exit handlers belong to the child, so the parent skips them.
        os._exit(0)
    status, _, message = result.decode(errors="replace").partition(" ")
    if not status.isdigit():
        status, message = "1", f"the daemon (process {child}) ended before the mount was made"
    os.write(2, f"ocifs: {message}\n".encode())
    os._exit(int(status))
