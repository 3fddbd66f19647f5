"""Verification of a cache: every byte is hashed and compared again.

Called from worker threads.

- A corrupt item is removed, also while it is in use. Processes that have it open can still read it.
- A blob that another process is writing is skipped.
- An item that cannot be compared with anything counts as unknown, never as good.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ocifs.errors import IntegrityError, OcifsError
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import verify_manifest
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.disk import Disk
from ocifs.store.upkeep.eviction import remove
from ocifs.store.upkeep.inventory import LEFTOVER, NAME, PARTIAL, SMALL, WHOLE, Item

Expect: TypeAlias = Callable[[Item], Digest | None]
"""The digest that derived data should have, or None if it is unknown. Raises IntegrityError."""


@dataclass(slots=True)
class Findings:
    """The result: counts of `good` and `unknown` items, and the `wrong` ones with the reason."""

    good: int = 0
    unknown: int = 0
    wrong: list[tuple[Item, str]] = field(default_factory=list)


def verify(
    disk: Disk, items: list[Item], expect: Expect, progress: Callable[[int], None]
) -> Findings:
    """Verify each item. `progress` is called with the number of bytes after each read."""
    findings = Findings()
    for item in items:
        if item.kind == LEFTOVER:
            continue
        try:
            good = _is_good(disk, item, expect, progress)
        except FileNotFoundError:
            continue  # evicted meanwhile
        except OSError as error:
            findings.wrong.append((item, f"cannot be read: {error.strerror}"))
            continue
        except IntegrityError as error:
            if item.kind != PARTIAL:  # its damaged blocks were cleared, the others are good
                remove(item, forced=True)
            findings.wrong.append((item, str(error)))
            continue
        findings.good += good
        findings.unknown += not good
    return findings


def _is_good(disk: Disk, item: Item, expect: Expect, progress: Callable[[int], None]) -> bool:
    """Whether an item is known to be good.

    Raises IntegrityError if it is corrupt, and OSError.
    """
    if item.kind == NAME:
        _check_name(item.paths[0])
        return True
    if item.kind == PARTIAL:
        return _check_partial(disk, item)
    expected = item.digest if item.kind == WHOLE else expect(item)
    if expected is None:
        # Counted as if it were read, so that the progress reaches the total.
        progress(item.length)
        return False
    if not _hashes_to(item.paths[0], expected, progress):
        if item.kind != WHOLE or item.length > 8 * SMALL:
            raise IntegrityError("does not match its digest")
        # The digest of a signed manifest of schema 1 is that of its payload.
        verify_manifest(item.paths[0].read_bytes(), expected)
    return True


def _hashes_to(path: Path, digest: Digest, progress: Callable[[int], None]) -> bool:
    hasher = digest.hasher()
    with path.open("rb") as file:
        while piece := file.read(MIB):
            hasher.update(piece)
            progress(len(piece))
    return hasher.hexdigest() == digest.encoded


def _check_name(path: Path) -> None:
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise IntegrityError("is not valid JSON") from None
    if not isinstance(record, dict) or not {"key", "value"} <= record.keys():
        raise IntegrityError("is not a record of a name")


def _check_partial(disk: Disk, item: Item) -> bool:
    """Compare the cached blocks with their checksums. False: another process uses the blob."""
    assert item.digest is not None
    # The map comes last in `paths`. Each process that has the blob open holds a lock on it.
    if _is_locked(item.paths[-1]):
        return False
    # A partial file is sparse, and as long as the whole blob.
    try:
        blocks = BlobBlocks(disk, item.digest, item.length)
    except OcifsError:
        return False
    try:
        before = sum(map(blocks.has, range(blocks.count)))
        blocks.check(0, blocks.count)
        lost = before - sum(map(blocks.has, range(blocks.count)))
    finally:
        blocks.close()
    if lost:
        raise IntegrityError(f"{lost} of {before} blocks of {BLOCK} bytes are damaged")
    return True


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        # Closing the descriptor also releases the lock.
        os.close(descriptor)
    return False
