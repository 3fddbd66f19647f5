"""Ports for servers that cannot choose one themselves.

Rules that hold here:
- A port is outside of the range of outgoing connections, so no client takes it in the meantime.
- It is random, so parallel suites rarely try the same one.
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress

FIRST, LAST = 20_000, 32_000  # Linux's default range for clients begins at 32768


def free_port(address: str = "127.0.0.1") -> int:
    """A port without a server."""
    for _ in range(100):
        port = random.SystemRandom().randint(FIRST, LAST)
        with suppress(OSError), socket.socket() as probe:
            probe.bind((address, port))
            return port
    raise RuntimeError(f"no free port between {FIRST} and {LAST}")
