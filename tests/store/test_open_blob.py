"""The states of an open blob, and the moment at which its files are closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocifs.content import Blob
from ocifs.errors import IntegrityError
from ocifs.oci.digest import Digest
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.blobs.open_blob import (
    BlobState,
    Damaged,
    OpenBlob,
    Partial,
    Rejected,
    Whole,
    open_files,
)
from ocifs.store.disk import Disk

CONTENT = os.urandom(2 * BLOCK + 7)
BLOB = Blob("a/b", Digest.of(CONTENT), len(CONTENT))
REJECTED = Rejected(IntegrityError("other content"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "cache")


def opened(disk: Disk, state: BlobState, closed: list[bool] | None = None) -> OpenBlob:
    blocks = BlobBlocks(disk, BLOB.digest, BLOB.size)
    return OpenBlob(
        BLOB, blocks, state, lambda: (closed if closed is not None else []).append(True)
    )


def fetched(disk: Disk) -> BlobBlocks:
    """A blob that was fetched and verified, and not yet moved."""
    blocks = BlobBlocks(disk, BLOB.digest, BLOB.size)
    blocks.write(0, [CONTENT])
    assert blocks.verify()
    return blocks


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Partial(served=False), Partial(served=True)),
        (Partial(served=True), Partial(served=True)),
        (Damaged(served=False), Damaged(served=True)),
        (Whole(), Whole()),
        (REJECTED, REJECTED),
    ],
)
async def test_only_bytes_that_are_not_verified_count_as_served(
    disk: Disk, before: BlobState, after: BlobState
) -> None:
    blob = opened(disk, before)
    blob.mark_served()
    assert blob.state == after
    assert blob.is_served is isinstance(after, Partial | Damaged)
    blob.retire()


def test_the_state_follows_from_the_files(disk: Disk) -> None:
    def look() -> BlobState:
        blocks, state = open_files(disk, BLOB, lambda: None)
        blocks.close()
        return state

    assert look() == Partial(served=False)
    blocks = fetched(disk)
    assert look() == Partial(served=True)
    blocks.place()
    assert look() == Whole()
    blocks.map.clear(1)
    assert look() == Damaged()
    blocks.close()


async def test_files_are_closed_once_after_the_last_user(disk: Disk) -> None:
    closed: list[bool] = []
    blob = opened(disk, Partial(served=False), closed)
    blob.acquire()
    with blob.used():
        blob.retire()
    assert not closed
    os.fstat(blob.blocks.fd)
    blob.release()
    assert closed == [True]
    blob.retire()
    assert closed == [True]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(blob.blocks.fd)
