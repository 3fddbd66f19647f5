"""`.ocifs/`: files that are made when they are looked at."""

from __future__ import annotations

from itertools import count

from ocifs.tree.control import LiveFile


async def test_who_reads_on_gets_the_end_of_what_was_begun() -> None:
    """`cat` reads until there is no more: what has grown by then is not appended to what it has."""
    numbers = count(9)
    file = LiveFile("key", lambda: f"read {next(numbers)} times\n".encode())
    first = await file.read(0, 100)
    assert first == b"read 9 times\n"
    assert await file.read(len(first), 100) == b""
    assert await file.read(0, 5) + await file.read(5, 100) == b"read 10 times\n"
