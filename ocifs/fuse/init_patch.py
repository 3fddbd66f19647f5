"""A patch of the first reply to the kernel: the kernel caches the targets of symbolic links.

A path through a link makes the kernel ask for the link's target at every system call, unless the
daemon sets FUSE_CACHE_SYMLINKS in its reply to INIT. libfuse has the flag since 3.10. pyfuse3 does
not let its users choose flags, so the reply is changed on its way:

    kernel --INIT--> session descriptor    1. the event loop finds it readable
                     = a socket            2. `before_receive` puts a socket in its place, with INIT
    libfuse <--------+                     3. libfuse reads INIT, and replies in the same turn
                     = the kernel again    4. `before_wait` changes the reply and passes it on

The worker patch (`worker_patch.py`) calls both, from the event loop. Nothing else can use the
descriptor in between, since libfuse answers INIT before it returns.

Rules that hold here:

- The flag is set only if the kernel offered it, and only in a reply that succeeded.
- A message or a reply of another form is passed on unchanged. The mount then works as without the
  patch: the kernel asks for each target.
- A target must not change while the kernel uses the link's inode. The key of a link contains its
  target, so another target is another inode (`ocifs.tree.base.SymlinkNode`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct

log = logging.getLogger("ocifs.fuse")

CACHE_SYMLINKS = 1 << 23
_INIT = 26
# The kernel refuses a read with less room than 8 KiB for any message.
_ROOM = 1 << 16
_OPCODE = struct.Struct("=I")
_OPCODE_AT = 4  # struct fuse_in_header: length, opcode
_FLAGS = struct.Struct("=I")
_OFFERED_AT = 40 + 12  # struct fuse_init_in, after the header: major, minor, max_readahead, flags
_REPLY = struct.Struct("=Ii")  # struct fuse_out_header: length, error, unique (8 bytes)
_CHOSEN_AT = 16 + 12  # struct fuse_init_out, after the header: the same fields


class InitPatch:
    """Changes the reply to INIT of one session."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._done = not enabled
        self._offered = False
        # The kernel's end and libfuse's end, while a socket is in the descriptor's place.
        self._kernel = -1
        self._socket: socket.socket | None = None

    def before_receive(self, descriptor: int) -> None:
        """Called when the descriptor is readable, before libfuse reads from it."""
        if self._done:
            return
        self._done = True
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            log.info("targets of links are not cached by the kernel: %s", error)
            return
        with theirs:
            kernel = -1
            try:
                kernel = os.dup(descriptor)
                message = os.read(kernel, _ROOM)
            except OSError:
                # libfuse meets the same error.
                ours.close()
                if kernel >= 0:
                    os.close(kernel)
                return
            ours.setblocking(False)
            ours.send(message)
            os.dup2(theirs.fileno(), descriptor, inheritable=False)
        self._offered = _is_offered(message)
        self._kernel, self._socket = kernel, ours

    def before_wait(self, descriptor: int) -> None:
        """Called after libfuse has read and answered, before the next wait."""
        if self._socket is None:
            return
        with self._socket as ours, contextlib.suppress(BlockingIOError):
            # The end of the socket that the descriptor replaced is closed only by dup2.
            reply = ours.recv(_ROOM)
            self._pass_on(reply)
        self._socket = None
        os.dup2(self._kernel, descriptor, inheritable=False)
        os.close(self._kernel)

    def _pass_on(self, reply: bytes) -> None:
        changed = with_flag(reply) if self._offered else reply
        if changed == reply:
            log.info("targets of links are not cached by the kernel, which does not offer it")
        os.write(self._kernel, changed)


def _is_offered(message: bytes) -> bool:
    """Whether a message is INIT and offers the flag."""
    if len(message) < _OFFERED_AT + _FLAGS.size:
        return False
    (opcode,) = _OPCODE.unpack_from(message, _OPCODE_AT)
    (offered,) = _FLAGS.unpack_from(message, _OFFERED_AT)
    return bool(opcode == _INIT and offered & CACHE_SYMLINKS)


def with_flag(reply: bytes) -> bytes:
    """A reply to INIT with the flag set, if it succeeded and has flags."""
    if len(reply) < _CHOSEN_AT + _FLAGS.size:
        return reply
    length, error = _REPLY.unpack_from(reply)
    if length != len(reply) or error:
        return reply
    (chosen,) = _FLAGS.unpack_from(reply, _CHOSEN_AT)
    flags = _FLAGS.pack(chosen | CACHE_SYMLINKS)
    return reply[:_CHOSEN_AT] + flags + reply[_CHOSEN_AT + _FLAGS.size :]
