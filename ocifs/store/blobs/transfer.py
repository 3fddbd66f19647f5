"""The bytes of one answer, from the connection to the disk.

Called in the event loop. One task reads pieces from the stream while another one writes the batch
before, in a worker thread. A batch consists of whole blocks.

- No more than the size of the blob is written.
- Bytes that arrived before a connection was lost are written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import trio

from ocifs.content import Blob, BlobStream
from ocifs.errors import IntegrityError, Unreachable
from ocifs.store.batches import WriteBatches
from ocifs.store.blobs.blockmap import BLOCK

Pieces: TypeAlias = list[bytes | memoryview]


async def carry(
    blob: Blob,
    stream: BlobStream,
    write: Callable[[int, Pieces], Awaitable[None]],
    batches: WriteBatches,
    arrived: Callable[[int], None],
) -> None:
    """Call `write` with each batch of a stream and its offset, `arrived` with the length of each
    piece.

    Raises the error that ended the stream, or that of `write`.
    """
    # A block is cached as a whole with its checksum, so a stream must start at one.
    if stream.total not in (None, blob.size) or stream.start % BLOCK:
        raise IntegrityError(
            f"{blob.digest} is served with {stream.total} bytes, its descriptor has {blob.size}"
        )
    # Without a buffer: at most one batch is written while the next one is gathered.
    send, receive = trio.open_memory_channel[Pieces](0)

    async def write_batches() -> None:
        position = stream.start
        async with receive:
            async for batch in receive:
                await write(position, batch)
                position += sum(map(len, batch))

    with batches.transfer():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_batches)
            async with send:
                lost = await _gather(blob, stream, send, batches, arrived)
    if lost is not None:
        raise lost


async def _gather(
    blob: Blob,
    stream: BlobStream,
    send: trio.MemorySendChannel[Pieces],
    batches: WriteBatches,
    arrived: Callable[[int], None],
) -> Unreachable | None:
    """Send the pieces of a stream in batches of whole blocks.

    Returns the error of a lost connection, so that the bytes before it are written first.
    """
    pending: Pieces = []
    length = 0
    position = stream.start
    lost = None
    # The channel is broken if writing failed; then the error of the writer is raised.
    with suppress(trio.BrokenResourceError):
        try:
            async for piece in stream:
                arrived(len(piece))
                pending.append(piece)
                length += len(piece)
                position += len(piece)
                if position > blob.size:
                    raise IntegrityError(f"{blob.digest} is longer than in its descriptor")
                if length >= batches.size:
                    pending, length = await _send_blocks(pending, length, send)
        except Unreachable as error:
            lost = error
        # The last block of a blob may be short. Other incomplete blocks are dropped.
        if position == blob.size and pending:
            await send.send(pending)
        elif length >= BLOCK:
            await _send_blocks(pending, length, send)
    return lost


async def _send_blocks(
    pending: Pieces, length: int, send: trio.MemorySendChannel[Pieces]
) -> tuple[Pieces, int]:
    """Send the whole blocks of `length` pending bytes. Returns the rest, and its length."""
    left = length % BLOCK
    rest: Pieces = []
    while left:
        # A view, since slices of bytes are copies.
        last = memoryview(pending.pop())
        if len(last) > left:
            pending.append(last[:-left])
            last = last[-left:]
        rest.insert(0, last)
        left -= len(last)
    await send.send(pending)
    return rest, length % BLOCK
