"""The bytes of one answer on their way to the disk: one task moves pieces, another has them
written, in batches of whole blocks.

Rules that hold here: never more than the blob's size; what came before a connection was lost is
written all the same.
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
) -> None:
    """Give the pieces of a stream to `write`, each run with its offset.

    Raises what ends the stream or the writing.
    """
    if stream.total not in (None, blob.size) or stream.start % BLOCK:
        raise IntegrityError(
            f"{blob.digest} is served with {stream.total} bytes, its descriptor says {blob.size}"
        )
    send, receive = trio.open_memory_channel[Pieces](0)

    async def keep() -> None:
        position = stream.start
        async with receive:
            async for run in receive:
                await write(position, run)
                position += sum(map(len, run))

    with batches.transfer():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            async with send:
                lost = await _cut(blob, stream, send, batches)
    if lost is not None:
        raise lost


async def _cut(
    blob: Blob, stream: BlobStream, send: trio.MemorySendChannel[Pieces], batches: WriteBatches
) -> Unreachable | None:
    """Hand the pieces of a stream on in batches of whole blocks; what came before the connection was
    lost (returned) is kept.
    """
    pending: Pieces = []
    held = 0
    position = stream.start
    lost = None
    with suppress(
        trio.BrokenResourceError
    ):  # the writer has failed, and its error is the one to tell
        try:
            async for piece in stream:
                pending.append(piece)
                held += len(piece)
                position += len(piece)
                if position > blob.size:
                    raise IntegrityError(f"{blob.digest} has more bytes than its descriptor says")
                if held >= batches.size:
                    pending, held = await _send_blocks(pending, held, send)
        except Unreachable as error:
            lost = error
        if position == blob.size and pending:
            await send.send(pending)
        elif held >= BLOCK:
            await _send_blocks(pending, held, send)
    return lost


async def _send_blocks(
    pending: Pieces, held: int, send: trio.MemorySendChannel[Pieces]
) -> tuple[Pieces, int]:
    """Send the whole blocks of `held` pending bytes; what is left, and its length (less than a
    block).
    """
    left = held % BLOCK
    rest: Pieces = []
    while left:
        last = memoryview(pending.pop())
        if len(last) > left:
            pending.append(last[:-left])
            last = last[-left:]
        rest.insert(0, last)
        left -= len(last)
    await send.send(pending)
    return rest, held % BLOCK
