"""Registries other than Debian's: distribution 3, go-containerregistry's with and without the
referrers API, olareg.

Rules that hold here: each on a loopback port of its own, ended with the block; one that is not
there skips the test by its name, in CI it fails. olareg is optional: it is tested where somebody
has it, since not every Go proxy gives it.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.registry import CONFIG, START_SECONDS, running_registry
from tests.support.tools import tool

KINDS = ("docker-registry", "registry", "crane", "referring", "olareg")


@contextlib.contextmanager
def running(kind: str, directory: Path) -> Iterator[str]:
    """`host:port` of an empty registry of that kind, that takes whatever is pushed."""
    if kind == "docker-registry":
        with running_registry(directory) as registry:
            yield registry.host
        return
    port = free_port()
    program = tool(kind, directory, optional=kind == "olareg").path
    (directory / "config.yml").write_text(CONFIG.format(root=directory / "data", port=port))
    commands = {
        "registry": ["serve", str(directory / "config.yml")],
        "crane": ["registry", "serve", "--address", f"127.0.0.1:{port}"],
        "referring": [f"127.0.0.1:{port}"],
        "olareg": ["serve", "--addr", "127.0.0.1", "--port", str(port), "--store-type", "mem"],
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, *commands[kind]], stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if (
                httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False, timeout=2).status_code
                == 200
            ):
                return
        time.sleep(0.02)  # there is no event to wait for
    raise RuntimeError("a registry did not answer")
