"""A real registry for tests: Debian's docker-registry on a free loopback port, with deletion.

Rules that hold here:
- The process ends with the block.
- A wait has a deadline.
- Requests are counted in the registry's access log.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.ports import free_port

START_SECONDS = 60.0

CONFIG = """version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass(frozen=True)
class Registry:
    """A running registry. `host` is host:port, and `log` its log file."""

    host: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def stop(self) -> None:
        """Kill the registry, as a crash would."""
        self.process.kill()
        self.process.wait(60)

    def requests(self, method: str, path: str) -> int:
        """The number of requests in the access log with this method and exact path."""
        return self.log.read_text(errors="replace").count(f'"{method} {path} HTTP/')


@contextlib.contextmanager
def running_registry(
    directory: Path, data: Path | None = None, more: str = "", port: int = 0
) -> Iterator[Registry]:
    """Run a registry for the length of the block.

    Its storage is `data`, or else below `directory`. `more` is added to its configuration. `port`
    is the port of an earlier registry, or 0 for a free one.
    """
    port = port or free_port()
    config, log = directory / "config.yml", directory / "log"
    config.write_text(CONFIG.format(root=data or directory / "data", port=port) + more)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        registry = Registry(f"127.0.0.1:{port}", log, process)
        _wait(registry, process)
        yield registry
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(registry: Registry, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{registry.url}/v2/", trust_env=False, timeout=2).status_code in (
                200,
                401,
            ):
                return
        time.sleep(0.05)
    raise RuntimeError(
        f"docker-registry did not answer: {registry.log.read_text(errors='replace')}"
    )
