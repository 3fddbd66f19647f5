"""Starts ocifs quickly: a process that has imported everything forks for each command.

Half of the processor time of the suite was the start of interpreters. A fork takes 20 ms instead
of 0.5 s, and is a process of its own all the same: with its own arguments, environment, directory,
standard files and status.

Rules that hold here:
- Only pytest uses this (`enable`), and only tests.support.mount. Other programs that mount, such as
  scripts/bench, start a new interpreter, and so do the tests of the command line itself.
- A variable that is read when an interpreter starts (`AT_START`) needs a new interpreter, and so
  does a test that measures memory (`new_interpreters`).
- With OCIFS_TESTS_SPAWN in the environment of pytest, every start is of a new interpreter.
- The server has one thread, and imports nothing that starts one.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import re
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any  # requests are JSON

AT_START = re.compile(r"PYTHON|LD_|LC_|LANG|MALLOC_|GLIBC_|OPENSSL_|TZ$")
LONGEST = 1 << 18  # bytes of a request
_SPAWN = "OCIFS_TESTS_SPAWN"
_enabled: list[dict[str, str]] = []  # the environment of the server


def enable() -> None:
    """Use the server in this process, from now on. It gets the environment of this moment."""
    if not os.environ.get(_SPAWN):
        _enabled.append(dict(os.environ))


@contextlib.contextmanager
def new_interpreters() -> Iterator[None]:
    """Start new interpreters for the length of the block."""
    before = _enabled[:]
    _enabled.clear()
    try:
        yield
    finally:
        _enabled[:] = before


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    files: Sequence[int] = (0, 1, 2),
    before: str = "",
) -> Process:
    """Start `ocifs` with these arguments and standard files, in the current directory.

    `before` is code that the process runs first.
    """
    if _enabled and _at_start(environment) == _at_start(_enabled[0]):
        return _server().start(arguments, environment, files, before)
    command = [sys.executable, "-m", "ocifs"]
    if before:
        command = [sys.executable, "-c", f"{before}\nfrom ocifs.__main__ import main\nmain()"]
    stdin, stdout, stderr = files
    return subprocess.Popen(
        [*command, *arguments], env=dict(environment), stdin=stdin, stdout=stdout, stderr=stderr
    )


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    seconds: float = 60,
    before: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run `ocifs` with these arguments to its end, which has a deadline, and return its output."""
    reading, threads = [os.pipe(), os.pipe()], ThreadPoolExecutor(2)
    process = start(arguments, environment, (0, reading[0][1], reading[1][1]), before)
    outputs = [threads.submit(_read, ours, theirs) for ours, theirs in reading]
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        threads.shutdown(wait=False)
    stdout, stderr = (each.result(seconds) for each in outputs)
    return subprocess.CompletedProcess(["ocifs", *arguments], status, stdout, stderr)


def _read(ours: int, theirs: int) -> bytes:
    """All that is written to a pipe by the process that has its other end."""
    os.close(theirs)
    with open(ours, "rb") as file:
        return file.read()


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if AT_START.match(name)}


class Started:
    """A process of the server, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, args: Sequence[str], report: int) -> None:
        self.pid = pid
        self.args = list(args)
        self.returncode: int | None = None
        self._report = report  # the server writes the status here

    def __del__(self) -> None:
        if self._report >= 0:
            os.close(self._report)

    def poll(self) -> int | None:
        """The status if the process has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the status."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._report, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            data = os.read(self._report, 4)
            assert len(data) == 4, "the process that starts ocifs has ended"
            (self.returncode,) = struct.unpack("i", data)
            os.close(self._report)
            self._report = -1
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Started | subprocess.Popen[bytes]


class Server:
    """The server of this process, and the connection to it. Threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.support.starter", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                cwd=Path(__file__).parents[2],
                env=_enabled[0],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        files: Sequence[int],
        before: str,
    ) -> Started:
        [mask] = re.findall(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.M)
        request: dict[str, object] = {"arguments": list(arguments)}
        request |= {"environment": dict(environment)}
        request |= {"directory": os.getcwd(), "umask": int(mask, 8), "before": before}
        report, theirs = os.pipe()
        try:
            with self._lock:
                message = json.dumps(request).encode()
                socket.send_fds(self._socket, [message], [*files, theirs])
                answer = self._socket.recv(16)
        finally:
            os.close(theirs)
        assert answer, "the process that starts ocifs has ended"
        return Started(int(answer), ["ocifs", *arguments], report)


@functools.cache
def _server() -> Server:
    return Server()


def serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each request, until the client has ended. Returns only in a child: its request."""
    selector = selectors.DefaultSelector()
    selector.register(connection, selectors.EVENT_READ)
    children: dict[int, tuple[int, int]] = {}  # pid and report of each, by its descriptor
    while True:
        for key, _ in selector.select():
            if key.fileobj != connection:
                selector.unregister(key.fileobj)
                _report(key.fd, *children.pop(key.fd))
                continue
            data, files, *_ = socket.recv_fds(connection, LONGEST, 4)
            if not data:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                selector.close()
                connection.close()
                request: dict[str, Any] = json.loads(data)
                _become(request, files[:3])
                return request
            child = os.pidfd_open(pid)
            children[child] = (pid, files[3])
            selector.register(child, selectors.EVENT_READ)
            connection.send(str(pid).encode())
            for each in files[:3]:
                os.close(each)


def _report(child: int, pid: int, report: int) -> None:
    """Pass on the status of a child that has ended."""
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(report, struct.pack("i", os.waitstatus_to_exitcode(status)))
    os.close(report)
    os.close(child)


def _become(request: dict[str, Any], files: Sequence[int]) -> None:
    """Take on the environment, directory and standard files of a request."""
    for number, each in enumerate(files):
        os.dup2(each, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    os.umask(request["umask"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _stream(number, getattr(sys, f"__{name}__"))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _stream(descriptor: int, at_start: io.TextIOWrapper) -> io.TextIOWrapper:
    """A standard stream, as the interpreter of the server has opened it."""
    return io.TextIOWrapper(
        open(descriptor, f"{at_start.mode}b", closefd=False),
        at_start.encoding,
        at_start.errors,
        line_buffering=at_start.line_buffering or os.isatty(descriptor),
        write_through=at_start.write_through,  # PYTHONUNBUFFERED
    )


def import_everything() -> None:
    """Import all modules of ocifs, except the entry point and the one that needs fsspec."""
    import ocifs

    for module in pkgutil.walk_packages(ocifs.__path__, "ocifs."):
        if module.name not in ("ocifs.__main__", "ocifs.filesystem"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # shared with the children, as long as nothing changes it


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    import_everything()
    request = serve(connection)
    import ocifs.__main__ as program

    sys.argv[:] = [program.__file__, *request["arguments"]]
    exec(request["before"], {})
    program.main()


if __name__ == "__main__":
    main()
