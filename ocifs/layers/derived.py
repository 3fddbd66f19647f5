"""Small derived things on a DerivedCache: they are made again if they are missing or damaged, and not kept
if the disk fails.

Worker threads of a mount call this.

Rules that hold here:

- An error of the cache's disk is logged, and never an error of the tree.
- Bytes that cannot be decoded, in whatever way, are as good as missing.
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
    shelf: DerivedCache, kind: str, key: Digest, decode: Callable[[bytes], T | None]
) -> T | None:
    """A thing as `decode` makes it of the cached bytes, or None."""
    try:
        file = shelf.find(kind, key)
        if file is None:
            return None
        with file:
            data = file.read()
    except (OSError, OcifsError) as error:
        log.warning("cannot read %s of %s from the cache, it is made again: %s", kind, key, error)
        return None
    try:
        return decode(data)
    except Exception as error:  # decoders check a checksum, and then believe the shape
        log.warning("%s of %s in the cache is damaged, it is made again: %r", kind, key, error)
        return None


def save(shelf: DerivedCache, kind: str, key: Digest, data: bytes) -> None:
    """Keep a thing. If the disk fails it is made again when it is next needed."""
    try:
        with shelf.put(kind, key) as file:
            file.write(data)
    except (OSError, OcifsError) as error:
        log.warning("cannot keep %s of %s in the cache: %s", kind, key, error)
