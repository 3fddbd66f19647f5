"""The commands that the suite starts by a fork behave as those of a new interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support import starter

SHOW = """
import json, os, resource, signal, stat, sys
streams = (sys.stdin, sys.stdout, sys.stderr)
handled = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT)
print(json.dumps({
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "arguments": sys.argv[1:],
    "umask": oct(os.umask(0o022)),
    "files": sorted(os.listdir("/proc/self/fd")),
    "kinds": [stat.S_IFMT(os.fstat(each).st_mode) for each in range(3)],
    "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
    "signals": [str(signal.getsignal(each)) for each in handled],
    "streams": [(each.encoding.lower(), each.errors, each.line_buffering) for each in streams],
    "groups": [os.getsid(0), os.getpgid(0)],
}))
"""
ENVIRONMENT = {**os.environ, "A": "é", "HOME": "/nowhere"}


@pytest.fixture(params=["fork", "new interpreter"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    with starter.new_interpreters() if request.param != "fork" else nullcontext():
        yield request.param


def test_a_fork_has_the_state_of_a_new_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        forked = starter.run(["--version"], ENVIRONMENT, before=SHOW)
        with starter.new_interpreters():
            new = starter.run(["--version"], ENVIRONMENT, before=SHOW)
    finally:
        os.umask(before)
    assert (forked.returncode, forked.stderr) == (0, b"") == (new.returncode, new.stderr)
    states = [json.loads(each.stdout.splitlines()[0]) for each in (forked, new)]
    assert states[0] == states[1]
    assert states[0]["umask"] == "0o27" and states[0]["environment"]["HOME"] == "/nowhere"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--help"], 0), (["no-such-command"], 2), (["ls", "127.0.0.1:1/a"], 1)],
)
def test_the_status_and_both_outputs_are_those_of_the_command(
    way: str, arguments: list[str], status: int
) -> None:
    done = starter.run(arguments, ENVIRONMENT)
    assert done.returncode == status
    assert bool(done.stdout) == (status == 0)
    assert bool(done.stderr) == (status != 0)


def test_a_process_can_be_waited_for_and_ended(way: str) -> None:
    hang = "import signal; print('begun', flush=True); signal.pause()"
    ours, theirs = os.pipe()
    process = starter.start(["--version"], ENVIRONMENT, (0, theirs, 2), hang)
    os.close(theirs)
    assert os.read(ours, 6).startswith(b"begun")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM == process.poll() == process.returncode
    process.kill()  # of an ended process
    os.close(ours)


def test_a_variable_that_is_read_at_the_start_needs_a_new_interpreter() -> None:
    for name in ("PYTHONPATH", "LD_PRELOAD", "LC_ALL", "MALLOC_ARENA_MAX", "TZ"):
        process = starter.start(["--version"], {**ENVIRONMENT, name: ""}, (0, 2, 2))
        assert isinstance(process, subprocess.Popen), name
        assert process.wait(60) == 0
    process = starter.start(["--version"], ENVIRONMENT, (0, 2, 2))
    assert not isinstance(process, subprocess.Popen) and process.wait(60) == 0
