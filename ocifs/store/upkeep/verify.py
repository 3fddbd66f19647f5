"""Whether what lies in a cache is still what it was: every byte is hashed again.

Rules that hold here: what is wrong is taken away, also while it is in use (who has it open keeps
what they have); what another process is writing is passed over; what nobody can say anything about
is counted as such, never as good.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ocifs.errors import IntegrityError, OcifsError
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import verify_manifest
from ocifs.settings import MIB
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.partial import Partial
from ocifs.store.disk import Disk
from ocifs.store.upkeep.eviction import remove
from ocifs.store.upkeep.inventory import LEFTOVER, NAME, PARTIAL, SMALL, WHOLE, Item

# What a derived thing's own digest is to be: None where nobody can say. Raises IntegrityError where
# that can be seen to be wrong.
Expect = Callable[[Item], Digest | None]


@dataclass(slots=True)
class Findings:
    """What was looked at: `good` and `unknown` are counts of things, `wrong` says what of which
    thing was dropped.
    """

    good: int = 0
    unknown: int = 0
    wrong: list[tuple[Item, str]] = field(default_factory=list)


def verify(
    disk: Disk, items: list[Item], expect: Expect, progress: Callable[[int], None]
) -> Findings:
    """Look at each thing; `progress` is told bytes (of `length`) as they are read."""
    findings = Findings()
    for item in items:
        if item.kind == LEFTOVER:
            continue
        try:
            known = _look(disk, item, expect, progress)
        except FileNotFoundError:
            continue  # evicted meanwhile
        except OSError as error:
            findings.wrong.append((item, f"cannot be read: {error.strerror}"))
            continue
        except IntegrityError as error:
            if item.kind != PARTIAL:  # of a partial blob only the damaged blocks go, and have gone
                remove(item, forced=True)
            findings.wrong.append((item, str(error)))
            continue
        findings.good += known
        findings.unknown += not known
    return findings


def _look(disk: Disk, item: Item, expect: Expect, progress: Callable[[int], None]) -> bool:
    """Whether anybody can say that a thing is good.

    Raises IntegrityError where it is not, and OSError.
    """
    if item.kind == NAME:
        _check_name(item.paths[0])
        return True
    if item.kind == PARTIAL:
        return _check_partial(disk, item)
    wanted = item.digest if item.kind == WHOLE else expect(item)
    if wanted is None:
        progress(item.length)
        return False
    if not _hashes_to(item.paths[0], wanted, progress):
        if item.kind == WHOLE and item.length <= 8 * SMALL:
            verify_manifest(
                item.paths[0].read_bytes(), wanted
            )  # a signed schema 1 has the digest of its payload
        else:
            raise IntegrityError("has other content")
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
        kept = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise IntegrityError("is no JSON") from None
    if not isinstance(kept, dict) or not {"key", "value"} <= kept.keys():
        raise IntegrityError("is no name")


def _check_partial(disk: Disk, item: Item) -> bool:
    """Check the blocks that are here by their checksums; False where another process is writing the
    blob.
    """
    assert item.digest is not None
    if _is_locked(item.paths[-1]):
        return False
    try:
        partial = Partial(disk, item.digest, item.length)
    except OcifsError:
        return False
    try:
        before = sum(map(partial.has, range(partial.blocks)))
        partial.check(0, partial.blocks)
        lost = before - sum(map(partial.has, range(partial.blocks)))
    finally:
        partial.close()
    if lost:
        raise IntegrityError(f"{lost} of {before} blocks of {BLOCK} bytes have other content")
    return True


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
