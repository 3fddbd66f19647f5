"""The last answers of one registry, on disk: a small JSON file for each name and each credential.

    {"host": …, "owner": …, "key": "tag team/app:v1", "value": […], "at": 1700000000.0}

`owner` is the identity that the registry answered (`registry/auth/identity.py`). A tag or a
manifest that one credential has seen does not exist for another one, until the registry has
answered that one as well.

- Everything here blocks, and is called from worker threads.
- A file that is damaged or of another format counts as missing.
- A file that cannot be written is not an error for the reader.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ocifs.errors import Malformed, OcifsError
from ocifs.oci.digest import Digest
from ocifs.store.disk import Disk, read_small

log = logging.getLogger("ocifs.store")

# Kinds of keys, and the character that ends the repository's name in them.
_DELIMITERS = {"tag": ":", "tags": "", "manifest": "@"}
_SEARCHED = 10_000  # the most files that are searched for a digest


class NameFiles:
    """The files of one registry."""

    def __init__(self, disk: Disk, host: str) -> None:
        self._disk = disk
        self._host = host
        # Any key: only the directory of the path is used.
        self._directory = disk.name(host, Digest.of(b"")).parent

    def path(self, owner: str, key: str) -> Path:
        """The path of the last answer for a key and an owner."""
        return self._disk.name(self._host, Digest.of(f"{owner}\n{key}".encode()))

    def last(self, owner: str, key: str, within: float | None = None) -> object:
        """The last answer, or None if there is none, or it is older than `within` seconds."""
        record = _parse(self._disk.read(self.path(owner, key)))
        if (
            record.get("key") != key
            or record.get("owner") != owner
            or not _fits(key, record.get("value"))
        ):
            return None
        at = record.get("at")
        if within is not None and not (
            # A time in the future means that the clock was set back, so the age is unknown.
            isinstance(at, int | float) and 0 <= time.time() - at < within
        ):
            return None
        return record["value"]

    def write(self, owner: str, key: str, value: object) -> None:
        """Store an answer, for times without the registry."""
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
            log.warning("cannot cache the answer for %s: %s", key, error)

    def forget(self, owner: str, key: str) -> None:
        """Remove an answer, since the registry reported that the name does not exist.

        Otherwise the name would come back during an outage.
        """
        try:
            self._disk.remove(self.path(owner, key))
        except OcifsError as error:
            log.warning("cannot remove the cached answer for %s: %s", key, error)

    def any(self) -> bool:
        """Whether there is an answer of the registry, for any owner."""
        return next(self._paths(), None) is not None

    def repositories(self, owners: Collection[str]) -> tuple[str, ...]:
        """The repositories with an answer for one of these owners, sorted."""
        repositories = set()
        for path in self._paths():
            record = _read(path)
            kind, _, name = str(record.get("key")).partition(" ")
            if kind in _DELIMITERS and record.get("owner") in owners:
                delimiter = _DELIMITERS[kind]
                repositories.add(name.partition(delimiter)[0] if delimiter else name)
        return tuple(sorted(repositories))

    def names_blob(self, owner: str, repository: str, digest: Digest) -> bool:
        """Whether a manifest of the repository that this owner has seen names a blob."""
        prefix, name = f"manifest {repository}@", str(digest).encode()
        for path in islice(self._paths(), _SEARCHED):
            record = _read(path)
            key = str(record.get("key"))
            if record.get("owner") == owner and key.startswith(prefix):
                try:
                    manifest = Digest.parse(key.removeprefix(prefix))
                    if name in (read_small(self._disk.whole(manifest)) or b""):
                        return True
                except Malformed:
                    continue
        return False

    def _paths(self) -> Iterator[Path]:
        """The files of all answers. A directory that cannot be listed has none."""
        with suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    yield Path(entry.path)

    def relative(self, owner: str, keys: Iterable[str]) -> frozenset[str]:
        """The paths of keys below `names/`. The files may not exist yet."""
        return frozenset("/".join(self.path(owner, key).parts[-2:]) for key in keys)


def _read(path: Path) -> dict[str, object]:
    return _parse(read_small(path))


def _parse(body: bytes | None) -> dict[str, object]:
    try:
        record = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _fits(key: str, value: object) -> bool:
    """Whether an answer has the form that its key requires. The file may have been modified."""
    if key.startswith("manifest "):
        return isinstance(value, str)
    if not isinstance(value, list):
        return False
    if key.startswith("tag "):
        return (
            len(value) == 3
            and [type(field) for field in value] == [str, str, int]
            and value[2] >= 0
            and _is_digest(value[1])
        )
    return all(isinstance(name, str) for name in value)


def _is_digest(text: str) -> bool:
    try:
        return Digest.parse(text).verifiable
    except Malformed:
        return False
