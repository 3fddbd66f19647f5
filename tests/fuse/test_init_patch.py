"""The reply to INIT, between a kernel and a libfuse that are the ends of sockets."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.fuse.init_patch import CACHE_SYMLINKS, InitPatch, with_flag

INIT, GETATTR = 26, 3
OTHER_FLAGS = 1 << 3 | 1 << 30


def request(flags: int = CACHE_SYMLINKS | OTHER_FLAGS, opcode: int = INIT) -> bytes:
    """A request as in linux/fuse.h: fuse_in_header, fuse_init_in."""
    body = struct.pack("=IIII", 7, 45, 1 << 17, flags) + bytes(48)
    return struct.pack("=IIQQIIII", 40 + len(body), opcode, 2, 0, 0, 0, 0, 0) + body


def reply(flags: int = OTHER_FLAGS, error: int = 0) -> bytes:
    """A reply: fuse_out_header, fuse_init_out."""
    body = struct.pack("=IIIIHHI", 7, 38, 1 << 17, flags, 12, 9, 1 << 20) + bytes(40)
    return struct.pack("=IiQ", 16 + len(body), error, 2) + body


def flags_of(message: bytes) -> int:
    return int(struct.unpack_from("=I", message, 28)[0])


@contextmanager
def session() -> Iterator[tuple[socket.socket, int]]:
    """The kernel's end, and the descriptor of a session."""
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel:
        kernel.settimeout(10)
        descriptor = ours.detach()
        try:
            yield kernel, descriptor
        finally:
            os.close(descriptor)


def exchange(asked: bytes, answer: bytes | None) -> bytes | None:
    """Pass a request and a reply through the patch. Returns the reply that the kernel receives."""
    with session() as (kernel, descriptor):
        patch = InitPatch()
        patch.before_wait(descriptor)
        kernel.send(asked)
        patch.before_receive(descriptor)
        assert os.read(descriptor, 1 << 20) == asked
        if answer is not None:
            os.write(descriptor, answer)
        patch.before_wait(descriptor)
        kernel.setblocking(False)
        try:
            received = kernel.recv(1 << 20)
        except BlockingIOError:
            received = None
        kernel.setblocking(True)
        # From now on the descriptor is the kernel's again.
        kernel.send(b"next")
        patch.before_receive(descriptor)
        assert os.read(descriptor, 100) == b"next"
        os.write(descriptor, b"answer")
        assert kernel.recv(100) == b"answer"
        patch.before_wait(descriptor)
        return received


def test_the_kernel_is_asked_to_cache_targets() -> None:
    received = exchange(request(), reply())
    assert received is not None
    assert flags_of(received) == OTHER_FLAGS | CACHE_SYMLINKS
    unflagged = bytearray(received)
    struct.pack_into("=I", unflagged, 28, OTHER_FLAGS)
    assert unflagged == reply()


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request(OTHER_FLAGS), reply()),  # the kernel does not offer it
        (request(opcode=GETATTR), reply()),
        (request()[:50], reply()),
        (request(), reply(error=-71)),
        (request(), reply()[:24]),  # as libfuse answers another major version
        (request(), reply() + b"more than its length"),
        (request(), b"short"),
        (request(), None),
    ],
)
def test_everything_else_is_passed_on_unchanged(asked: bytes, answer: bytes | None) -> None:
    assert exchange(asked, answer) == answer


@given(st.binary(max_size=200))
def test_any_reply_keeps_its_length_and_all_but_one_bit(answer: bytes) -> None:
    changed = with_flag(answer)
    assert len(changed) == len(answer)
    differing = int.from_bytes(changed, "little") ^ int.from_bytes(answer, "little")
    assert differing in (0, CACHE_SYMLINKS << 28 * 8)


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    exchange(request(), reply())
    exchange(request(), None)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_descriptors_the_mount_works_unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)
    patch = InitPatch()
    reading, writing = os.pipe()
    os.write(writing, b"asked")
    patch.before_receive(reading)
    assert os.read(reading, 100) == b"asked"
    patch.before_wait(reading)
    os.close(reading)
    os.close(writing)
