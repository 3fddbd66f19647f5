"""Podman with its own storage, configured for any kind of cgroups and without raised limits.

Rules that hold here:
- Nothing remains after the block.
- The runtime is runc. Debian 12's crun fails if both versions of cgroups are mounted.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.support.tools import Tool, tool


@contextlib.contextmanager
def podman() -> Iterator[Tool]:
    """The program, with its storage in a short path: it allows at most 50 characters."""
    with tempfile.TemporaryDirectory(prefix="ocifs-podman-") as place:
        home = Path(place)
        (home / "config.json").write_text("{}")  # it requires the credentials file in DOCKER_CONFIG
        own = '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        (home / "containers.conf").write_text(own)
        storage = (
            f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/storage"\nrunroot = "{home}/run"\n'
        )
        (home / "storage.conf").write_text(storage)
        told = {
            "CONTAINERS_CONF": str(home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        }
        try:
            yield replace(tool("podman", home), environment=told)
        finally:
            subprocess.run(["umount", "-q", home / "storage/overlay"], check=False)


def run(program: Tool, root: str, *command: str) -> bytes:
    """Run a command with a directory as the root filesystem, and return its output.

    The suffix `:O` of `root` puts an overlay on the directory.
    """
    files = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limits = ("--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=1024:1024")
    return program("run", "--rm", "--network", "none", *limits, "--rootfs", root, *command)
