"""Verify a cache: hash everything in it again, and remove damaged content.

Blocks on disk, for as long as reading the cache takes; several processes may use the cache
meanwhile.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ocifs.errors import IntegrityError
from ocifs.layers.checksummed import intact
from ocifs.layers.erofs.head import KIND as EROFS_KIND
from ocifs.layers.erofs.head import verify_file
from ocifs.layers.index import codec
from ocifs.layers.spans.uncompressed import TAR_KIND
from ocifs.layers.spans.windows import WINDOWS_KIND
from ocifs.oci.digest import Digest
from ocifs.settings import MIB, default_cache_directory
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from ocifs.store.upkeep import verify as upkeep
from ocifs.store.upkeep.inventory import INDICES, LEFTOVER, NAME, PARTIAL, Item, inventory
from ocifs.verbs.progress import Progress


def verify_cache(
    directory: Path | None = None, progress: Progress | None = None
) -> upkeep.Findings:
    """Verify a cache, by default that of this user. Progress is counted in bytes."""
    progress = progress or Progress()
    disk = Disk(directory or default_cache_directory())
    items = inventory(disk)
    progress.expect(
        sum(item.length for item in items if item.kind not in (PARTIAL, NAME, LEFTOVER))
    )
    return upkeep.verify(disk, items, lambda item: _expected(disk, item), progress.advance)


def _expected(disk: Disk, item: Item) -> Digest | None:
    """The digest that derived data must have, or None if it is not known.

    Indexes, trees, roots and EROFS images contain a checksum. The digests of an uncompressed layer
    and of the windows of a layer are in the layer's index.
    """
    assert item.digest is not None
    if item.kind == TAR_KIND:
        index = codec.decode(_derived(disk, codec.KIND, item.digest))
        return None if index is None else index.diff_id
    if item.kind == WINDOWS_KIND:
        checksum = codec.windows_sha256(_derived(disk, codec.KIND, item.digest))
        return Digest("sha256", checksum) if checksum else None
    if item.kind == EROFS_KIND:
        return _verified_image(disk, item.digest)
    if not item.kind.startswith(INDICES):
        return None
    data = _derived(disk, item.kind, item.digest)
    if not intact(data):
        raise IntegrityError("does not match its checksum")
    return Digest.of(data)


def _verified_image(disk: Disk, key: Digest) -> Digest | None:
    """The digest of an EROFS image that matches its checksum."""
    file = DerivedFiles(disk).find(EROFS_KIND, key)
    if file is None:
        return None
    with file:
        verify_file(file)
        file.seek(0)
        hasher = hashlib.sha256()
        while piece := file.read(MIB):
            hasher.update(piece)
        return Digest("sha256", hasher.hexdigest())


def _derived(disk: Disk, kind: str, digest: Digest) -> bytes:
    file = DerivedFiles(disk).find(kind, digest)
    if file is None:
        return b""
    with file:
        return file.read()
