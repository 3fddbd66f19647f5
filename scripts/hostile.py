"""Run the suite under hostile conditions, which must not change its result.

    scripts/hostile [--drop-caches SECONDS] [--load N] [--copies N] [--user NAME] [PYTEST ARGUMENTS]

The parent ignores SIGINT, SIGHUP and SIGQUIT, as for `nohup` and background jobs. There are two
other mounts of ocifs, one of them dead. In addition:

- `--drop-caches` drops the kernel's caches at random times (needs root).
- `--load` adds busy processes.
- `--copies` runs several suites in parallel.
- `--user` runs them as another user (needs root, and a clone that the user can read).

The exit status is that of the first failing suite.
"""

from __future__ import annotations

import argparse
import os
import pwd
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.image import make_layout
from tests.support.mount import mounted
from tests.support.tars import a_tar

IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
DROP = Path("/proc/sys/vm/drop_caches")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--drop-caches",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="mean time between two drops of the kernel's caches",
    )
    parser.add_argument(
        "--load", type=int, default=0, metavar="N", help="number of busy processes (default: none)"
    )
    parser.add_argument(
        "--copies", type=int, default=1, metavar="N", help="number of parallel suites (default: 1)"
    )
    parser.add_argument("--user", metavar="NAME", help="user for the suites")
    options, arguments = parser.parse_known_args()
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with tempfile.TemporaryDirectory(prefix="ocifs-hostile-") as place, ExitStack() as stack:
        stack.enter_context(other_mounts(Path(place)))
        stack.enter_context(page_cache_dropped(options.drop_caches))
        stack.enter_context(busy(options.load))
        suites = [run_suite(arguments, options.user, number) for number in range(options.copies)]
        return next((status for status in [suite.wait() for suite in suites] if status), 0)


@contextmanager
def other_mounts(place: Path) -> Iterator[None]:
    """Two other mounts: one that answers, and one with a killed daemon."""
    (place / "layout").mkdir()
    layout = make_layout(place / "layout", [a_tar(hello=b"hello")])
    source = f"oci:{layout}"
    with (
        mounted(source, place / "answers", place / "cache"),
        mounted(source, place / "dead", place / "cache") as dead,
    ):
        dead.kill()
        yield


@contextmanager
def page_cache_dropped(seconds: float) -> Iterator[None]:
    """Drop the kernel's pages, dentries and inodes at random times, `seconds` apart on average."""
    ended = threading.Event()

    def drop() -> None:
        while not ended.wait(random.expovariate(1 / seconds)):
            DROP.write_text("3")

    thread = threading.Thread(target=drop)
    if seconds:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that use all the CPU time that they get."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def run_suite(arguments: list[str], user: str | None, number: int) -> subprocess.Popen[bytes]:
    """Start one suite. The base directories in the output identify the parallel suites."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if user is not None:
        home = Path(tempfile.mkdtemp(prefix=f"ocifs-{user}-{number}-"))
        entry = pwd.getpwnam(user)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        command = [
            "setpriv",
            f"--reuid={entry.pw_uid}",
            f"--regid={entry.pw_gid}",
            "--clear-groups",
            *command,
        ]
        environment |= {"HOME": str(home), "USER": user, "TMPDIR": str(home)}
    return subprocess.Popen(command, env=environment)


if __name__ == "__main__":
    sys.exit(main())
