"""What the kernel is given of a file before it asks, and when it is not."""

from __future__ import annotations

import errno
import os

import pyfuse3
import pytest

from ocifs.errors import IntegrityError
from ocifs.fuse.guard import Guard
from ocifs.fuse.inodes import Inode
from ocifs.fuse.operations import Operations
from ocifs.fuse.stats import Stats
from ocifs.settings import Timing
from ocifs.tree.base import FastNode, SimpleNode
from ocifs.tree.node import FILE, Attributes
from ocifs.tree.static import StaticDirectory

CONTENT = b"what is read next"


class Next(SimpleNode, FastNode):
    """A file that is always at hand and read next.

    `wrong`: its bytes are found to be wrong when they are read.
    """

    def __init__(self, *, changes: bool = False, wrong: bool = False) -> None:
        super().__init__("next", Attributes(FILE, len(CONTENT)))
        self.changes = changes
        self._wrong = wrong

    async def read(self, offset: int, size: int) -> bytes:
        if self._wrong:
            raise IntegrityError("other bytes")
        return CONTENT

    def readahead_nowait(self, limit: int) -> bytes | None:
        return CONTENT if len(CONTENT) <= limit else None


class Kernel:
    """What it was given, and how often it refused that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refuses: bool = False) -> None:
        self.given: list[tuple[int, int, bytes]] = []
        self.refused = 0
        self._refuses = refuses
        monkeypatch.setattr(pyfuse3, "notify_store", self._store)

    def _store(self, inode: int, offset: int, data: bytes) -> None:
        if self._refuses:
            self.refused += 1
            raise OSError(errno.ENOSYS, "not here")
        self.given.append((inode, offset, data))


def mounted(node: Next) -> tuple[Operations, Stats, Inode]:
    stats = Stats()
    operations = Operations(
        StaticDirectory("root", [(b"next", node)]), Guard(Timing(), stats), Timing()
    )
    return operations, stats, operations.inodes.add_lookup(node)


async def opened(operations: Operations, inode: Inode) -> pyfuse3.FileInfo:
    return await operations.open(inode, os.O_RDONLY, pyfuse3.RequestContext())


async def test_a_file_that_is_read_next_is_given_when_it_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch)
    operations, stats, inode = mounted(Next())
    assert (await opened(operations, inode)).keep_cache
    assert kernel.given == [(inode, 0, CONTENT)]
    assert stats.bytes_read == len(CONTENT)


async def test_of_a_file_that_somebody_has_open_nothing_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch)
    operations, _, inode = mounted(Next())
    first = await opened(operations, inode)
    second = await opened(operations, inode)
    assert len(kernel.given) == 1
    await operations.release(first.fh)
    third = await opened(operations, inode)
    assert len(kernel.given) == 1
    for handle in (second.fh, third.fh, third.fh):  # a handle that is closed twice counts once
        await operations.release(handle)
    await opened(operations, inode)
    assert len(kernel.given) == 2


async def test_of_a_file_that_changes_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    operations, _, inode = mounted(Next(changes=True))
    await opened(operations, inode)
    assert not kernel.given


async def test_of_a_file_that_was_found_wrong_the_pages_are_dropped_and_nothing_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch)
    operations, _, inode = mounted(Next(wrong=True))
    first = await opened(operations, inode)
    with pytest.raises(pyfuse3.FUSEError):
        await operations.read(first.fh, 0, 10)
    await operations.release(first.fh)
    kernel.given.clear()
    assert not (await opened(operations, inode)).keep_cache
    assert not kernel.given


async def test_a_kernel_that_takes_nothing_is_asked_once_and_the_file_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch, refuses=True)
    operations, stats, inode = mounted(Next())
    for _ in range(2):
        handle = (await opened(operations, inode)).fh
        assert await operations.read(handle, 0, 100) == CONTENT
        await operations.release(handle)
    assert kernel.refused == 1
    assert stats.bytes_read == 2 * len(CONTENT)
