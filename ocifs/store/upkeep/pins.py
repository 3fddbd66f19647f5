"""What is never evicted: digests, and what references led to when they were pinned.

A pin is a file of its own, `pins/<hash>.json`, so that processes may pin at the same time.

Rules that hold here: a pin that cannot be read pins nothing; a pin keeps what is here and what
comes later, and fetches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ocifs.errors import Malformed
from ocifs.oci.digest import Digest
from ocifs.store.disk import Disk, disk_error


@dataclass(frozen=True, slots=True)
class Pin:
    """What was pinned, as the user said it, and the digests and names (paths below `names/`) that
    this keeps.
    """

    what: str
    digests: frozenset[Digest]
    names: frozenset[str] = frozenset()


def _path(disk: Disk, what: str) -> Path:
    return disk.root / "pins" / f"{Digest.of(what.encode()).encoded}.json"


def put_pin(disk: Disk, pin: Pin) -> None:
    """Keep a pin; one of the same text is replaced. Raises CacheFull and the like."""
    value = {"what": pin.what, "digests": sorted(map(str, pin.digests)), "names": sorted(pin.names)}
    disk.write(_path(disk, pin.what), json.dumps(value).encode())


def remove_pin(disk: Disk, what: str) -> bool:
    """Take a pin away; whether there was one."""
    path = _path(disk, what)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise disk_error(error, path) from None
    return True


def pins(disk: Disk) -> list[Pin]:
    """Every pin that can be read, by what was pinned."""
    found = []
    for path in (disk.root / "pins").glob("*.json"):
        pin = _parse(disk.read(path) or b"")
        if pin is not None:
            found.append(pin)
    return sorted(found, key=lambda pin: pin.what)


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
