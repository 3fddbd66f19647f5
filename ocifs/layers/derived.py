"""Loads and saves small derived files: indexes, trees, attributes of roots.

Worker threads of a mount call this.

Rules:

- An error of the cache's disk is logged, and never becomes an error of the tree.
- A file that cannot be decoded is treated as missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ocifs.content import DerivedCache
from ocifs.errors import OcifsError
from ocifs.oci.digest import Digest

log = logging.getLogger("ocifs.layers")

T = TypeVar("T")


def load(
    derived: DerivedCache, kind: str, key: Digest, decode: Callable[[bytes], T | None]
) -> T | None:
    """Return the decoded file, or None if it is missing or damaged."""
    try:
        file = derived.find(kind, key)
        if file is None:
            return None
        with file:
            data = file.read()
    except (OSError, OcifsError) as error:
        log.warning("cannot read %s of %s from the cache, creating it again: %s", kind, key, error)
        return None
    try:
        return decode(data)
    # Decoders verify a checksum, and rely on the structure after that.
    except Exception as error:
        log.warning("%s of %s in the cache is damaged, creating it again: %r", kind, key, error)
        return None


def save(derived: DerivedCache, kind: str, key: Digest, data: bytes) -> None:
    """Write a file. After an error of the disk it is created again when it is next needed."""
    try:
        with derived.put(kind, key) as file:
            file.write(data)
    except (OSError, OcifsError) as error:
        log.warning("cannot save %s of %s in the cache: %s", kind, key, error)
