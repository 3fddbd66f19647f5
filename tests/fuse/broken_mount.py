"""Mounts a tree some of whose nodes raise what nobody thought of. Run as a program: MOUNTPOINT."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from ocifs.errors import IntegrityError, Unreachable
from ocifs.fuse.session import SessionOptions, serve
from ocifs.fuse.stats import Stats
from ocifs.settings import Timing
from ocifs.tree.base import SimpleNode, TextFile
from ocifs.tree.control import LiveFile
from ocifs.tree.node import DIRECTORY, FILE, Attributes, DirectoryEntry, Node
from ocifs.tree.static import StaticDirectory


class Raising(SimpleNode):
    """A file, or a directory, that raises at every use."""

    changes = False

    def __init__(self, key: str, error: Exception, mode: int = FILE) -> None:
        super().__init__(key, Attributes(mode, 10))
        self._error = error

    async def read(self, offset: int, size: int) -> bytes:
        raise self._error


class RaisingDirectory(Raising):
    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(key, error, DIRECTORY)

    async def lookup(self, name: bytes) -> Node:
        raise self._error

    async def entries(self) -> Sequence[DirectoryEntry]:
        raise self._error


def tree(stats: Stats) -> StaticDirectory:
    def report() -> bytes:
        facts = {
            "unexpected": stats.unexpected,
            "errors": stats.errors,
            "last": stats.report().decode(),
        }
        return json.dumps(facts).encode()

    nodes: list[tuple[bytes, Node]] = [
        (b"bug", Raising("bug", RuntimeError("nobody thought of this"))),
        (b"buggy", RaisingDirectory("buggy", RuntimeError("nor of this"))),
        (b"group", Raising("group", ExceptionGroup("several", [ValueError("one")]))),
        (b"gone", RaisingDirectory("gone", Unreachable("no route", hint="is the cable in?"))),
        (b"wrong", Raising("wrong", IntegrityError("other bytes"))),
        (b"good", TextFile("good", b"good\n")),
        (b"journal", LiveFile("journal", report)),
    ]
    return StaticDirectory("root", nodes)


if __name__ == "__main__":
    stats = Stats()
    options = SessionOptions(Path(sys.argv[1]), "broken")
    trio.run(serve, tree(stats), options, Timing(), stats, lambda: print("ready", flush=True))
