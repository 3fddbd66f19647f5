"""Reads as a program makes them, each a handful of system calls."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def read_at(directory: int, name: str) -> bytes:
    """A small file of an open directory."""
    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def read_whole(path: Path) -> bytes:
    """A whole file. Python's own `read` returns None for EAGAIN."""
    with path.open("rb", buffering=0) as file:
        found = file.readall()
    if found is None:
        raise BlockingIOError(errno.EAGAIN, "the registry asks for patience", str(path))
    return found


def read_span(descriptor: int, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file, fewer only at its end."""
    found = bytearray()
    while start + len(found) < stop:
        piece = os.pread(descriptor, stop - start - len(found), start + len(found))
        if not piece:
            break
        found += piece
    return bytes(found)
