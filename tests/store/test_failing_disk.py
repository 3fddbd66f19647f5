"""A disk that fails, in each call and with each errno: reads are right, from memory if necessary,
and no task ends the mount.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from ocifs.content import Blob
from ocifs.errors import CacheFailed, CacheFull
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from tests.store.source import MemorySource
from tests.store.test_blobs import caching, whole
from tests.store.test_damage import CONTENT, kept

ERRNOS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "ESTALE", "EACCES", "EMFILE", "ENOMEM", "EINVAL")
READS = ("pread", "preadv")
WRITES = ("pwrite", "pwritev", "ftruncate", "fsync", "fdatasync")
NAMES = ("open", "rename", "link", "unlink", "mkdir", "utime", "stat", "lstat")
CALLS = (*READS, *WRITES, *NAMES, "fcntl", "flock")


class Failing:
    """Calls on files below a directory fail with an errno: the first `times` calls, or all."""

    def __init__(self, directory: Path, calls: tuple[str, ...], number: int, times: int) -> None:
        self.directory = str(directory)
        self.calls = calls
        self.number = number
        self.left = times
        self.failed = 0

    def _concerns(self, target: object) -> bool:
        if isinstance(target, int):
            try:
                target = REAL["readlink"](f"/proc/self/fd/{target}")
            except OSError:
                return False
        return str(target).startswith(self.directory)

    def call(self, name: str, *arguments: Any, **more: Any) -> Any:
        if name in self.calls and self.left and self._concerns(arguments[0]):
            self.left -= 1
            self.failed += 1
            raise OSError(self.number, os.strerror(self.number))
        return REAL[name](*arguments, **more)


REAL: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(os, name)
        for name in (*READS, *WRITES, *NAMES, "write", "scandir", "readlink")
    },
    "fcntl": fcntl.fcntl,
    "flock": fcntl.flock,
}


@contextmanager
def failing(
    directory: Path, calls: tuple[str, ...], number: int, times: int = -1
) -> Iterator[Failing]:
    fails = Failing(directory, calls, number, times)

    def through(name: str) -> Callable[..., Any]:
        return lambda *arguments, **more: fails.call(name, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        for name in (*CALLS, "write", "scandir"):
            patch.setattr(fcntl if name in ("fcntl", "flock") else os, name, through(name))
        yield fails


async def read_in_pieces(blobs: CachedBlobs, blob: Blob, content: bytes) -> None:
    """Read out of order, so that hashes are computed in the background.

    The reads return the right bytes, or fail with an error of the disk.
    """
    for start in (
        9 * BLOCK,
        3 * BLOCK,
        0,
        6 * BLOCK,
        12 * BLOCK,
        15 * BLOCK,
        18 * BLOCK,
        21 * BLOCK,
        24 * BLOCK,
        30 * BLOCK,
        27 * BLOCK,
    ):
        with trio.fail_after(60):
            assert (
                await blobs.read_blob(blob, start, 3 * BLOCK) == content[start : start + 3 * BLOCK]
            )


def nothing_unexpected(caplog: pytest.LogCaptureFixture) -> None:
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("times", [1, -1], ids=["once", "always"])
@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EROFS", "ESTALE"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_blob_that_is_not_cached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, name: str, times: int
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        with failing(tmp_path, (call,), getattr(errno, name), times):
            await read_in_pieces(blobs, blob, CONTENT)
        assert await whole(blobs, blob) == CONTENT  # the disk is well again
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT
    nothing_unexpected(caplog)


@pytest.mark.parametrize("times", [3, -1], ids=["for a while", "always"])
@pytest.mark.parametrize("name", ["EIO", "EROFS"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("reopened", [False, True], ids=["open", "reopened"])
async def test_a_whole_blob(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    call: str,
    name: str,
    times: int,
    reopened: bool,
) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        path = await kept(blobs, blob, tmp_path)
        if not reopened:
            _drop_pages(path)
            with failing(tmp_path, (call,), getattr(errno, name), times):
                await read_in_pieces(blobs, blob, CONTENT)
    if reopened:
        _drop_pages(path)
        async with caching(source, tmp_path) as blobs:
            with failing(tmp_path, (call,), getattr(errno, name), times):
                await read_in_pieces(blobs, blob, CONTENT)
    async with caching(source, tmp_path) as blobs:
        assert await whole(blobs, blob) == CONTENT
    nothing_unexpected(caplog)


def _drop_pages(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize(
    "calls", [READS, WRITES, NAMES, CALLS], ids=["reads", "writes", "names", "everything"]
)
@pytest.mark.parametrize("name", ERRNOS)
async def test_a_disk_that_fails_in_many_calls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, calls: tuple[str, ...], name: str
) -> None:
    calls = tuple(call for call in calls if (call, name) != ("fcntl", "EACCES"))
    source = MemorySource()
    contents = [CONTENT, CONTENT[::-1], CONTENT[1:]]
    wanted = [source.put(content) for content in contents]
    async with caching(source, tmp_path) as blobs:
        await blobs.read_blob(wanted[0], 2 * BLOCK, 3 * BLOCK)
        await kept(blobs, source.put(CONTENT), tmp_path) if calls is READS else None
        with failing(tmp_path, calls, getattr(errno, name)) as fails:
            for blob, content in zip(wanted, contents, strict=True):
                await read_in_pieces(blobs, blob, content)
        assert fails.failed
        for blob, content in zip(wanted, contents, strict=True):
            assert await whole(blobs, blob) == content
    nothing_unexpected(caplog)


async def test_when_memory_takes_no_more_it_is_an_error_of_the_cache(tmp_path: Path) -> None:
    source = MemorySource()
    blob = source.put(CONTENT)
    async with caching(source, tmp_path) as blobs:
        overflow = blobs._opened.overflow
        overflow.most, overflow.forgets = 2 * BLOCK, False
        with failing(tmp_path, WRITES, errno.EIO), pytest.raises((CacheFailed, CacheFull)):
            await read_in_pieces(blobs, blob, CONTENT)
        assert await whole(blobs, blob) == CONTENT


async def test_errors_of_the_disk_name_the_cache(tmp_path: Path) -> None:
    from ocifs.store.disk import disk_error

    for name in ERRNOS:
        number = getattr(errno, name)
        error = disk_error(OSError(number, os.strerror(number)), Disk(tmp_path).root)
        assert isinstance(error, CacheFull if name in ("ENOSPC", "EDQUOT") else CacheFailed)
        assert error.hint
