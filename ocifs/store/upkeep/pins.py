"""Pins: digests and names that are never evicted.

Called from worker threads. A pin is a file of its own, `pins/<hash>.json`, so that several
processes may pin at the same time.

- A pin that cannot be read protects nothing.
- A pin protects items that are cached now or later. It fetches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ocifs.errors import Malformed
from ocifs.oci.digest import Digest
from ocifs.store.disk import CacheDirectory, Disk, disk_error


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned reference, as the user wrote it, and the digests and names that it protects.

    Names are paths below `names/`.
    """

    what: str
    digests: frozenset[Digest]
    names: frozenset[str] = frozenset()


def _path(directory: CacheDirectory, what: str) -> Path:
    return directory.root / "pins" / f"{Digest.of(what.encode()).encoded}.json"


def put_pin(disk: Disk, pin: Pin) -> None:
    """Store a pin, replacing one with the same text. Raises CacheFull, CacheFailed."""
    value = {"what": pin.what, "digests": sorted(map(str, pin.digests)), "names": sorted(pin.names)}
    disk.write(_path(disk, pin.what), json.dumps(value).encode())


def remove_pin(disk: Disk, what: str) -> bool:
    """Remove a pin; whether there was one. Raises CacheFailed."""
    path = _path(disk, what)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise disk_error(error, path) from None
    return True


def pins(directory: CacheDirectory) -> list[Pin]:
    """Every pin that can be read, sorted by its text."""
    paths = (directory.root / "pins").glob("*.json")
    parsed = [_parse(directory.read(path) or b"") for path in paths]
    return sorted((pin for pin in parsed if pin is not None), key=lambda pin: pin.what)


def _parse(body: bytes) -> Pin | None:
    try:
        value = json.loads(body)
        return Pin(
            str(value["what"]),
            frozenset(map(Digest.parse, value["digests"])),
            _texts(value.get("names", ())),
        )
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError, Malformed):
        return None


def _texts(values: Iterable[object]) -> frozenset[str]:
    return frozenset(map(str, values))
