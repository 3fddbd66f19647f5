"""Podman with a storage of its own, told to be content with what it finds: any kind of cgroups, and
no right to raise limits.

Rules that hold here: nothing of it is left after the block; the runtime is runc, since Debian 12's
crun refuses to run where both versions of cgroups are mounted.
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
    """The program, with its storage in a directory of its own: it takes no path of more than 50
    characters.
    """
    with tempfile.TemporaryDirectory(prefix="ocifs-podman-") as place:
        home = Path(place)
        (home / "config.json").write_text(
            "{}"
        )  # it insists on the file of credentials that DOCKER_CONFIG names
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
    """Run a command in a directory as a root filesystem, `…:O` for one under an overlay; what it
    printed.
    """
    files = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limits = ("--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=1024:1024")
    return program("run", "--rm", "--network", "none", *limits, "--rootfs", root, *command)
