"""Root filesystems by both views: served by FUSE, and by the kernel as EROFS."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocifs.fuse.kernel.probe import probe
from tests.support.mount import Mounted, mounted

VIEWS = ("fuse", "kernel")
BY_KERNEL = ("--view", "rootfs", "--kernel", "always")


def require_kernel(place: Path | None = None) -> str:
    """Skip the test if the kernel cannot serve a mount with a cache there. Returns the method."""
    found = probe(place or Path(tempfile.gettempdir()))
    if not found.method:
        pytest.skip(f"EROFS cannot be mounted here: {found.reason}")
    return found.method


@contextmanager
def root_of(
    view: str, source: str, where: Path, cache: Path, options: Sequence[str] = ()
) -> Iterator[tuple[Path, Mounted]]:
    """A mount, and the directory of the root filesystem in it, with known attributes."""
    if view == "kernel":
        require_kernel(where.parent)
        with mounted(source, where, cache, [*options, *BY_KERNEL]) as mount:
            yield mount.path, mount
        return
    with mounted(source, where, cache, options) as mount:
        os.listdir(mount.path / "rootfs")  # the root's attributes are unknown before
        yield mount.path / "rootfs", mount
