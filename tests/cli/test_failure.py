"""The exit statuses and messages of commands, as a shell sees them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.image import make_layout
from tests.support.mount import run_ocifs

WRONG = [
    ["mount", "127.0.0.1:1", "{place}/file"],
    ["mount", "-f", "127.0.0.1:1", "{place}/file"],
    ["mount", "127.0.0.1:1", "{place}/absent"],
    ["mount", "oci:{place}/absent", "{place}/mnt"],
    ["mount", "127.0.0.1:1/Bad", "{place}/mnt"],
    ["ls", "127.0.0.1:1/Bad"],
    ["ls", "--no-such-option", "127.0.0.1:1"],
    ["umount", "{place}/mnt"],
    ["no-such-command"],
]
FAILED = [
    ["ls", "127.0.0.1:1/team/app:v1"],
    ["mount", "127.0.0.1:1/team/app:v1", "{place}/mnt"],
    ["mount", "-f", "127.0.0.1:1/team/app:v1", "{place}/mnt"],
]


@pytest.mark.parametrize(
    "arguments", [*((words, 2) for words in WRONG), *((words, 1) for words in FAILED)], ids=str
)
def test_a_command_ends_with_the_status_that_is_documented(
    tmp_path: Path, arguments: tuple[list[str], int]
) -> None:
    words, status = arguments
    (tmp_path / "file").touch()
    (tmp_path / "mnt").mkdir()
    done = run_ocifs(
        *(word.format(place=tmp_path) for word in words), cache=tmp_path / "cache", check=False
    )
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    assert done.stderr and b"Traceback" not in done.stderr
    assert not os.path.ismount(tmp_path / "mnt")


def test_a_reader_that_has_read_enough_is_no_traceback(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [bytes(4 << 20)], [""])
    cat = [
        sys.executable,
        "-m",
        "ocifs",
        "cat",
        f"oci:{layout}:v1",
        "layers/0/blob",
        "--cache-dir",
        str(tmp_path / "c"),
    ]
    with subprocess.Popen(cat, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == bytes(4)
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (1, b"")


def test_ctrl_c_ends_a_command_as_shells_expect(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "ocifs",
            "ls",
            host,
            "--cache-dir",
            str(tmp_path),
        ]
        # A suite that a shell runs in the background ignores SIGINT, and so would its children.
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                connection = listener.accept()[0]  # the command waits for the response
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=120)[1]
                connection.close()
            finally:
                process.kill()
    assert (process.returncode, said.strip()) == (130, b"")


def test_ctrl_c_ends_the_daemon_of_a_mount_that_is_not_made_yet(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        source = f"127.0.0.1:{listener.getsockname()[1]}/a/b:c"
        words = ["mount", source, str(tmp_path / "mnt"), "--cache-dir", str(tmp_path / "cache")]
        command = ["env", "--default-signal=INT", sys.executable, "-m", "ocifs", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
            connection = listener.accept()[0]
            connection.settimeout(60)
            os.killpg(process.pid, signal.SIGINT)
            while connection.recv(4096):  # until the daemon, which sent the request, has ended
                pass
            connection.close()
            said = process.communicate(timeout=120)[1]
    assert (process.returncode, said.strip()) == (130, b"")
    assert not os.path.ismount(tmp_path / "mnt")
