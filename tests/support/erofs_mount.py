"""Mounts of EROFS images from plain files, for tests as root."""

from __future__ import annotations

import ctypes
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocifs.layers.erofs.writer import ImageOptions, write_image
from ocifs.layers.merge.apply import merge
from ocifs.settings import Limits

_LIBC = ctypes.CDLL(None, use_errno=True)
_READ_ONLY_NOSUID_NODEV = 1 | 2 | 4
_DETACH = 2


def _mount(image: Path, point: Path, options: str) -> int:
    """Returns the error number of mount(2), or 0."""
    arguments = (os.fsencode(image), os.fsencode(point), b"erofs")
    failed = _LIBC.mount(*arguments, _READ_ONLY_NOSUID_NODEV, options.encode() or None)
    return ctypes.get_errno() if failed else 0


@contextmanager
def mounted_image(image: Path, point: Path, device: Path | None = None) -> Iterator[Path]:
    """Mount an image while the block runs."""
    point.mkdir()
    error = _mount(image, point, f"device={device}" if device else "")
    assert not error, os.strerror(error)
    try:
        yield point
    finally:
        assert not _LIBC.umount2(os.fsencode(point), _DETACH)


def empty_image() -> bytes:
    """An image of an empty directory without a data device."""
    out = io.BytesIO()
    write_image(merge([], Limits()), ImageOptions(), out)
    return out.getvalue()


def need_erofs(directory: Path) -> None:
    """Skip the test if the kernel cannot mount an image that is a file in this directory."""
    image, point = directory / "probe.img", directory / "probe"
    image.write_bytes(empty_image())
    point.mkdir()
    if os.geteuid():
        pytest.skip("only root can mount EROFS")
    error = _mount(image, point, "")
    if error:
        pytest.skip(f"EROFS cannot be mounted here: {os.strerror(error)}")
    assert not _LIBC.umount2(os.fsencode(point), _DETACH)
