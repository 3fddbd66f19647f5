"""What lies in a cache's directory: each thing once, with its size on disk and when it was last
used.

Rules that hold here: only looks, never changes anything; what vanishes while it is looked at is
passed over; sizes are blocks of the file system, so a sparse file counts as what it holds; a name
on disk becomes a Digest only by `Digest.parse`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocifs.errors import Malformed
from ocifs.oci.digest import Digest
from ocifs.settings import KIB
from ocifs.store.disk import TEMPORARY, Disk

WHOLE, PARTIAL, NAME, LEFTOVER = "whole", "partial", "name", "leftover"

SMALL = 64 * KIB
"""Manifests, configs and the like: to evict one frees nothing, and takes much from who is offline."""

INDICES = ("layer-index", "layer-tree", "layer-root")
_SECTOR = 512  # st_blocks counts these, whatever the file system's own blocks are


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in the cache.

    `kind`: WHOLE, PARTIAL, NAME, LEFTOVER (of a process that ended) or the kind of a derived thing.
    `paths`: its files, that of the content first. `size`: bytes that it takes on the disk;
    `length`: bytes that its content has; `used`: seconds since 1970.
    """

    kind: str
    digest: Digest | None
    paths: tuple[Path, ...]
    size: int
    length: int
    used: float

    @property
    def late(self) -> bool:
        """Whether it goes only after all that is not so: it is small, and others are found by it."""
        return (
            self.kind == NAME
            or self.kind.startswith(INDICES)
            or (self.kind == WHOLE and self.size <= SMALL)
        )


def inventory(disk: Disk) -> list[Item]:
    """Everything in the cache but pins."""
    root = disk.root
    found = [
        *_by_digest(root / "blobs", WHOLE, root / "sums"),
        *_partials(root / "partial"),
        *(each for kind in _directories(root / "derived") for each in _by_digest(kind, kind.name)),
    ]
    for host in _directories(root / "names"):
        found += [_item(NAME, None, (path,)) for path in _files(host) if not _is_temporary(path)]
    for path in _leftovers(root):
        found.append(_item(LEFTOVER, None, (path,)))
    return [each for each in found if each.used]


def _by_digest(directory: Path, kind: str, beside: Path | None = None) -> Iterator[Item]:
    """`beside`: where a second file of each may be, under the same name."""
    for algorithm in _directories(directory):
        for path in _files(algorithm):
            digest = _digest(algorithm.name, path.name)
            if digest is not None:
                yield _item(
                    kind, digest, (path, beside / algorithm.name / path.name) if beside else (path,)
                )


def _partials(directory: Path) -> Iterator[Item]:
    for algorithm in _directories(directory):
        stems = {
            path.name.removesuffix(".map") for path in _files(algorithm) if not _is_temporary(path)
        }
        for stem in sorted(stems):
            path = algorithm / stem
            digest = _digest(algorithm.name, stem)
            # What has no digest for a name is nobody's (`<hex>.<pid>.private` of ocifs before
            # 0.1.0).
            yield _item(
                PARTIAL if digest else LEFTOVER, digest, (path, path.with_name(f"{stem}.map"))
            )


def _leftovers(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        yield from (Path(directory, name) for name in names if name.startswith(TEMPORARY))


def _item(kind: str, digest: Digest | None, paths: tuple[Path, ...]) -> Item:
    size, length, used = 0, 0, 0.0
    for number, path in enumerate(paths):
        try:
            found = path.stat(follow_symlinks=False)
        except OSError:
            continue
        size += found.st_blocks * _SECTOR
        length = length if number else found.st_size
        used = max(used, found.st_mtime)
    return Item(kind, digest, paths, size, length, used)


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(TEMPORARY)


def _digest(algorithm: str, encoded: str) -> Digest | None:
    try:
        found = Digest.parse(f"{algorithm}:{encoded}")
    except Malformed:
        return None
    return found if found.verifiable else None


def _directories(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in _scan(path) if entry.is_dir(follow_symlinks=False)]


def _files(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in _scan(path) if entry.is_file(follow_symlinks=False)]


def _scan(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []
