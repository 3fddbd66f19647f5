"""Registries besides Debian's: distribution 3, olareg, and go-containerregistry's.

go-containerregistry's runs with and without the referrers API.

Rules that hold here:
- Each listens on a free loopback port, and ends with the block.
- A test with a missing registry is skipped by name, and fails in CI.
- olareg is optional, because not every Go proxy serves it.
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
    """`host:port` of an empty registry of that kind, which accepts all pushes."""
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
        time.sleep(0.02)  # there is no event for this
    raise RuntimeError("a registry did not answer")
