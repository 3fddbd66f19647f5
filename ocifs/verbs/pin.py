"""Protect content of the cache from eviction.

`pin_manifest` runs in the event loop of an AsyncTree; the other functions block on disk.

- A pin fetches nothing: it also protects content that is fetched later.
- The pin of a reference covers its manifests, config and layers, and of an index the child for the
  platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ocifs.api import AsyncTree
from ocifs.concurrency import in_thread
from ocifs.errors import Malformed, NotFound, UsageError
from ocifs.oci.digest import Digest
from ocifs.oci.reference import Reference, parse_source
from ocifs.settings import default_cache_directory
from ocifs.store.disk import Disk
from ocifs.store.names.cached import CachedCatalog
from ocifs.store.upkeep.pins import Pin, pins, put_pin, remove_pin
from ocifs.tree.manifest.reachable import ReachableSet, reachable
from ocifs.verbs.manifests import manifest_directory

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class PinReport:
    """A pinned reference. `missing` is the size of its blobs that are not cached yet."""

    reference: str
    manifests: int
    blobs: int
    missing: int


async def pin_manifest(tree: AsyncTree) -> PinReport:
    """Pin the reference of a tree. Raises UsageError if its source is not a reference."""
    source = tree.source
    if not isinstance(source, Reference):
        raise not_a_reference(str(source))
    location = (await manifest_directory(tree)).location
    catalog = location.context.origin.catalog
    names: frozenset[str] = frozenset()
    with tree.deadline():
        reached = await reachable(location)
        # Without the cached tag, the pinned content could not be found by its reference offline.
        if isinstance(catalog, CachedCatalog):
            tag = source.tag or ""
            names = await catalog.name_files(source.repository, tag, reached.manifests)
    directory = tree.settings.cache.directory
    return await in_thread(_put, directory, str(source), reached, names)


def _put(
    directory: Path, reference: str, reached: ReachableSet, names: frozenset[str]
) -> PinReport:
    disk = Disk(directory)
    put_pin(disk, Pin(reference, frozenset({*reached.manifests, *reached.blobs}), names))
    # An unknown size is negative (UNKNOWN_SIZE).
    missing = sum(
        max(0, size) for digest, size in reached.blobs.items() if not disk.whole(digest).exists()
    )
    return PinReport(reference, len(reached.manifests), len(reached.blobs), missing)


def pin_digest(digest: str, directory: Path | None = None) -> None:
    """Pin one blob or manifest in a cache, which is the default one without `directory`."""
    wanted = parse_digest(digest)
    if wanted is None:
        raise not_a_digest(digest)
    disk = Disk(directory or default_cache_directory())
    put_pin(disk, Pin(str(wanted), frozenset({wanted})))


def unpin(pinned: str, directory: Path | None = None) -> str:
    """Remove the pin of a digest or reference, and return it in normal form.

    Raises UsageError if it is neither, and NotFound if it is not pinned.
    """
    digest = parse_digest(pinned)
    text = str(digest) if digest is not None else str(parse_reference(pinned))
    disk = Disk(directory or default_cache_directory())
    if not remove_pin(disk, text):
        names = [pin.what for pin in pins(disk)]
        raise NotFound(
            f"not pinned: {text}", hint=f"pinned: {', '.join(names[:_SHOWN])}" if names else ""
        )
    return text


def parse_reference(text: str) -> Reference:
    """A reference to a manifest. Raises UsageError for any other source."""
    source = parse_source(text)
    if not isinstance(source, Reference):
        raise not_a_reference(text)
    return source


def parse_digest(text: str) -> Digest | None:
    """A digest of a supported algorithm, or None for any other text."""
    try:
        digest = Digest.parse(text)
    except Malformed:
        return None
    return digest if digest.verifiable else None


def not_a_digest(text: str) -> UsageError:
    """The error for a text that must be a digest."""
    return UsageError(f"invalid digest: {text}", hint="use sha256:<64 hexadecimal digits>")


def not_a_reference(text: str) -> UsageError:
    """The error for a text that must be a digest or reference."""
    return UsageError(f"not a digest or reference: {text}", hint="use HOST/REPOSITORY:TAG")
