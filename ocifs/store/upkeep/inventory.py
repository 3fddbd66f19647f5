"""The items of a cache, each with its size on disk and the time of its last use.

Called from worker threads.

- Nothing is changed.
- Files that vanish meanwhile are left out.
- Sizes are blocks of the file system, so a sparse file counts only the blocks that it has.
- A file name becomes a Digest only through `Digest.parse`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocifs.errors import Malformed
from ocifs.oci.digest import Digest
from ocifs.settings import KIB
from ocifs.store.disk import TEMPORARY, CacheDirectory

WHOLE, PARTIAL, NAME, LEFTOVER = "whole", "partial", "name", "leftover"

SMALL = 64 * KIB
"""Manifests, configs and the like: evicting one frees almost nothing, and breaks offline use."""

INDICES = ("layer-index", "layer-windows", "layer-tree", "layer-root")
_SECTOR = 512  # the unit of st_blocks on every file system


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the cache.

    - `kind`: WHOLE, PARTIAL, NAME, LEFTOVER (of a process that ended), or the kind of derived data.
    - `paths`: its files, that of the content first.
    - `size`: bytes on the disk.
    - `length`: bytes of the content.
    - `used`: seconds since 1970.
    """

    kind: str
    digest: Digest | None
    paths: tuple[Path, ...]
    size: int
    length: int
    used: float

    @property
    def late(self) -> bool:
        """Whether it is evicted after all others, since it is small and leads to them."""
        return (
            self.kind == NAME
            or self.kind.startswith(INDICES)
            or (self.kind == WHOLE and self.size <= SMALL)
        )


def inventory(directory: CacheDirectory) -> list[Item]:
    """All items of the cache. Pins are not items."""
    root = directory.root
    items = [
        *_by_digest(root / "blobs", WHOLE, root / "sums"),
        *_partials(root / "partial"),
        *(item for kind in _directories(root / "derived") for item in _by_digest(kind, kind.name)),
    ]
    for host in _directories(root / "names"):
        items += [_item(NAME, None, (path,)) for path in _files(host) if not _is_temporary(path)]
    for path in _leftovers(root):
        items.append(_item(LEFTOVER, None, (path,)))
    # An item without a time of use has vanished since its directory was listed.
    return [item for item in items if item.used]


def _by_digest(directory: Path, kind: str, beside: Path | None = None) -> Iterator[Item]:
    """`beside`: the directory of a second file of each item, with the same name."""
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
            # A file that is not named by a digest is a leftover, such as `<hex>.<pid>.private` of
            # ocifs before 0.1.0.
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
            status = path.stat(follow_symlinks=False)
        except OSError:
            continue
        size += status.st_blocks * _SECTOR
        length = length if number else status.st_size
        used = max(used, status.st_mtime)
    return Item(kind, digest, paths, size, length, used)


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(TEMPORARY)


def _digest(algorithm: str, encoded: str) -> Digest | None:
    try:
        digest = Digest.parse(f"{algorithm}:{encoded}")
    except Malformed:
        return None
    return digest if digest.verifiable else None


def _directories(path: Path) -> list[Path]:
    # Links are left out: eviction must not leave the cache through one.
    return [Path(entry.path) for entry in _scan(path) if entry.is_dir(follow_symlinks=False)]


def _files(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in _scan(path) if entry.is_file(follow_symlinks=False)]


def _scan(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []
