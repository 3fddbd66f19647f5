"""The control socket of a mount that the kernel serves, in place of `.ocifs/`: such a mount shows
the files of the image only.

A task of the mount, in the event loop. A client sends the name of a control file and a newline, and
receives its content.

- The content is created from memory for each request, and never waits.
- A client that is silent or does not read is dropped after a few seconds.
- Only the user of the mount can enter the directory of the socket.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from ocifs.concurrency import guarded

_SECONDS = 5.0
_NAME_BYTES = 64
# More clients wait for their turn.
_CLIENTS = 32


async def open_control(path: Path) -> trio.SocketListener:
    """Listen at a path in a private directory. Raises OSError."""
    bound = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await bound.bind(str(path))
        bound.listen(_CLIENTS)
    except BaseException:
        bound.close()
        raise
    return trio.SocketListener(bound)


async def serve_control(
    listener: trio.SocketListener, files: Mapping[bytes, Callable[[], bytes]]
) -> None:
    """Answer clients until cancelled."""
    limiter = trio.CapacityLimiter(_CLIENTS)

    async def answer(stream: trio.SocketStream) -> None:
        async with limiter, stream:
            await guarded("answering a status request", _answer, stream, files)

    await trio.serve_listeners(answer, [listener])


async def _answer(stream: trio.SocketStream, files: Mapping[bytes, Callable[[], bytes]]) -> None:
    with trio.move_on_after(_SECONDS):
        name = b""
        while b"\n" not in name and len(name) <= _NAME_BYTES:
            piece = await stream.receive_some(_NAME_BYTES)
            if not piece:
                return
            name += piece
        render = files.get(name.partition(b"\n")[0])
        try:
            await stream.send_all(render() if render is not None else b"")
        except trio.BrokenResourceError:
            # The client has left.
            return
