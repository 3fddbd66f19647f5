"""Ctrl-C on a real terminal, while a registry is slow: the status, a clean line, and how to
continue.

The registry sends a part of the content that each command waits for, and then nothing.
"""

from __future__ import annotations

import json
import os
import pty
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from tests.registry.conftest import nobodys_home  # noqa: F401 (a fixture, for all tests here)
from tests.support import starter
from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.support.serving import serving

PATIENCE = 60
# The terminal on standard input becomes the controlling terminal, as after a login.
OWN_SESSION = "import os, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
DONE = "512.0 KiB of 1.0 MiB"
ADVICE = "run the same command again to continue\r\n"

FIRST, LAYER = b"1" * (512 << 10), b"2" * (512 << 10)


def digest(content: bytes) -> str:
    return str(Digest.of(content))


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": "application/x.slow",
        "config": descriptor(mediatype.OCI_EMPTY, b"{}"),
        "layers": [descriptor("application/octet-stream", each) for each in (FIRST, LAYER)],
    }
).encode()


def registry(request: Request) -> Reply:
    """`slow/app` with the tags `1` and `2`. The second layer and the tag `2` stop half-way."""
    path = request.target.partition("?")[0].removeprefix("/v2/slow/app/")
    if path == "tags/list":
        return http(200, json.dumps({"name": "slow/app", "tags": ["1", "2"]}).encode())
    if path in ("manifests/1", "manifests/2", f"manifests/{digest(MANIFEST)}"):
        body = b"" if request.method == "HEAD" else MANIFEST
        reply = http(
            200,
            body,
            content_type=mediatype.OCI_MANIFEST,
            content_length=str(len(MANIFEST)),
            docker_content_digest=digest(MANIFEST),
        )
        return Reply(reply.data[: -len(MANIFEST) // 2], "stall") if path[-2:] == "/2" else reply
    for content in (FIRST, b"{}"):
        if path == f"blobs/{digest(content)}":
            return http(200, content)
    if path == f"blobs/{digest(LAYER)}":
        half = LAYER[: len(LAYER) // 2]
        return Reply(http(200, half, content_length=str(len(LAYER))).data, "stall")
    return http(200 if request.target == "/v2/" else 404)


# The words of each command, and what its line shows while it waits.
COMMANDS: dict[str, tuple[Callable[[str, Path], list[str]], str]] = {
    "prefetch": (lambda app, place: ["prefetch", f"{app}:1"], DONE),
    "export": (lambda app, place: ["export", f"{app}:1", f"oci:{place}/x"], DONE),
    "find": (lambda app, place: ["find", app], "1 of 2 tags"),
}


def interrupted(words: list[str], awaited: str, cache: Path) -> tuple[int, str]:
    """Press Ctrl-C when the terminal shows a text. The status, and the output after the key."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TERM": "xterm"}
    file, terminal = pty.openpty()
    with starter.new_interpreters():
        process = starter.start(words, environment, (terminal, terminal, terminal), OWN_SESSION)
    os.close(terminal)
    seen, pressed_at = b"", -1
    deadline = time.monotonic() + PATIENCE
    try:
        while select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            seen += os.read(file, 1 << 16)
            if pressed_at < 0 and awaited.encode() in seen:
                pressed_at = len(seen)
                os.write(file, b"\x03")
        raise AssertionError(f"the command did not end in {PATIENCE} s: {seen!r}")
    except OSError:  # EIO: the other end is closed
        assert pressed_at >= 0, seen
        return process.wait(PATIENCE) or 0, seen[pressed_at:].decode()
    finally:
        os.close(file)
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_leaves_one_clean_line_on_how_to_continue(name: str, tmp_path: Path) -> None:
    make, awaited = COMMANDS[name]
    with fault_server(registry) as server:
        words = make(f"{server.host}/slow/app", tmp_path)
        status, shown = interrupted(words, awaited, tmp_path / "cache")
    assert status == 130, shown
    removed, _, last = shown.rpartition("\r\x1b[K")
    assert last == f"ocifs: interrupted after {awaited}; {ADVICE}", shown
    # All before it is in the same line of the terminal, and removed with it.
    assert "\n" not in removed and "Traceback" not in removed


def test_ctrl_c_before_anything_is_known(tmp_path: Path) -> None:
    silent: Handler = lambda request: Reply(b"", "stall")  # noqa: E731
    with fault_server(silent) as server:
        app = f"{server.host}/slow/app:1"
        status, shown = interrupted(["prefetch", app], f"reading {app}", tmp_path / "cache")
    assert (status, shown.rpartition("\r\x1b[K")[2]) == (130, f"ocifs: interrupted; {ADVICE}")


def test_the_advice_is_true(tmp_path: Path) -> None:
    """The same command fetches only the rest."""
    is_well = threading.Event()

    def handler(request: Request) -> Reply:
        if is_well.is_set() and request.target.endswith(digest(LAYER)):
            return serving(LAYER, Digest.of(LAYER))(request)
        return registry(request)

    with fault_server(handler) as server:
        words = ["prefetch", f"{server.host}/slow/app:1"]
        assert interrupted(words, DONE, tmp_path)[0] == 130
        is_well.set()
        before = len(server.requests)
        done = starter.run(words, {**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
        blobs = [each.target for each in server.requests[before:] if "/blobs/" in each.target]
    assert done.returncode == 0, done.stderr
    assert blobs and {target.rpartition("/")[2] for target in blobs} == {digest(LAYER)}
