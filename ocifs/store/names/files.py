"""What the names of one registry last meant, on disk: a small JSON file for each name and each
credential.

    {"host": …, "owner": …, "key": "tag team/app:v1", "value": […], "at": 1700000000.0}

`owner` is the identity (`registry/auth/identity.py`) that the registry answered. A tag or a
manifest that one credential saw does not exist for another one until the registry has answered that
one as well.

Rules that hold here: everything blocks, and runs in worker threads; a file that is damaged, or of
another format, is not there; that something cannot be written is no error for the reader who asked.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ocifs.errors import Malformed, OcifsError
from ocifs.oci.digest import Digest
from ocifs.store.disk import Disk, read_small

log = logging.getLogger("ocifs.store")

_ABOUT = {
    "tag": ":",
    "tags": "",
    "manifest": "@",
}  # kinds of keys, and what ends a repository's name in them
_LOOKED_AT = 10_000  # files that are searched for a digest


class NameFiles:
    """The files of one registry."""

    def __init__(self, disk: Disk, host: str) -> None:
        self._disk = disk
        self._host = host
        self._directory = disk.name(host, Digest.of(b"")).parent

    def path(self, owner: str, key: str) -> Path:
        """Where it is written what a key last meant to an owner."""
        return self._disk.name(self._host, Digest.of(f"{owner}\n{key}".encode()))

    def last(self, owner: str, key: str, within: float | None = None) -> object:
        """What a key last meant; None if that is not known, or is older than `within` seconds."""
        kept = _record(self._disk.read(self.path(owner, key)))
        if (
            kept.get("key") != key
            or kept.get("owner") != owner
            or not _fits(key, kept.get("value"))
        ):
            return None
        at = kept.get("at")
        if within is not None and not (
            isinstance(at, int | float) and 0 <= time.time() - at < within
        ):
            return None
        return kept["value"]

    def write(self, owner: str, key: str, value: object) -> None:
        """Keep what a name means, for times without the registry."""
        record = {
            "host": self._host,
            "owner": owner,
            "key": key,
            "value": value,
            "at": round(time.time(), 3),
        }
        try:
            self._disk.write(self.path(owner, key), json.dumps(record).encode())
        except OcifsError as error:
            log.warning("what %s means could not be kept: %s", key, error)

    def forget(self, owner: str, key: str) -> None:
        """The registry said that there is no such name: it must not come back when nobody can be
        asked.
        """
        try:
            self._disk.remove(self.path(owner, key))
        except OcifsError as error:
            log.warning("what %s meant could not be forgotten: %s", key, error)

    def any(self) -> bool:
        """Whether anything of the registry is known, to anybody."""
        return next(self._paths(), None) is not None

    def repositories(self, owners: Collection[str]) -> tuple[str, ...]:
        """The repositories that names known to these owners are about."""
        found = set()
        for path in self._paths():
            kept = _read(path)
            kind, _, name = str(kept.get("key")).partition(" ")
            if kind in _ABOUT and kept.get("owner") in owners:
                found.add(name.partition(_ABOUT[kind])[0] if _ABOUT[kind] else name)
        return tuple(sorted(found))

    def names_blob(self, owner: str, repository: str, digest: Digest) -> bool:
        """Whether a manifest of the repository that this owner has seen names a blob."""
        start, wanted = f"manifest {repository}@", str(digest).encode()
        for number, path in enumerate(self._paths()):
            kept = _read(path) if number < _LOOKED_AT else {}
            key = str(kept.get("key"))
            if kept.get("owner") == owner and key.startswith(start):
                try:
                    manifest = Digest.parse(key.removeprefix(start))
                    if wanted in (read_small(self._disk.whole(manifest)) or b""):
                        return True
                except Malformed:
                    continue
        return False

    def _paths(self) -> Iterator[Path]:
        """The files of all names. A directory that cannot be listed has none."""
        with suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    yield Path(entry.path)

    def relative(self, owner: str, keys: Iterable[str]) -> frozenset[str]:
        """The paths of keys below `names/`, whether anything is known of them yet or not."""
        return frozenset("/".join(self.path(owner, key).parts[-2:]) for key in keys)


def _read(path: Path) -> dict[str, object]:
    return _record(read_small(path))


def _record(body: bytes | None) -> dict[str, object]:
    try:
        kept = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _fits(key: str, value: object) -> bool:
    """Whether what was kept has the shape that its key calls for: the file may be damaged, or
    somebody else's.
    """
    if key.startswith("manifest "):
        return isinstance(value, str)
    if not isinstance(value, list):
        return False
    if key.startswith("tag "):
        return (
            len(value) == 3
            and [type(each) for each in value] == [str, str, int]
            and value[2] >= 0
            and _is_digest(value[1])
        )
    return all(isinstance(each, str) for each in value)


def _is_digest(text: str) -> bool:
    try:
        return Digest.parse(text).verifiable
    except Malformed:
        return False
