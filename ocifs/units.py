"""Numbers of bytes and seconds as people read and write them: pure functions, any thread."""

from __future__ import annotations

import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kKmMgGtT]?)(?:i?[bB])?)", re.ASCII)


def parse_size(text: str) -> int | None:
    """The bytes of `500M`, `20GiB` or `1.5T`, or None for any other text.

    K, M, G and T are powers of 1,024, with or without `iB`.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def format_size(count: object) -> str:
    """A number of bytes with its unit. Anything but a number is shown as 0 B."""
    value = float(count) if isinstance(count, int | float) else 0.0
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def format_duration(seconds: object) -> str:
    """A time span in its largest unit that gives at least 2."""
    value = int(seconds) if isinstance(seconds, int | float) else 0
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value // length} {unit}"
    return f"{value} s"
