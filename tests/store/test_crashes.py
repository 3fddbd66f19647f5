"""Power failures: the writes of each writer are recorded, and every prefix of them is replayed,
with and without the writes that were not synced.

After a power failure names are as they were at some moment, since file systems journal their own
records. Synced content is complete, and of the rest any part may be missing. The next start must
use this cache without repair, and without a wrong byte.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ocifs.oci.digest import Digest
from ocifs.store.blobs.blockmap import BLOCK
from ocifs.store.blobs.blocks import BlobBlocks
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from tests.store.source import MemorySource
from tests.store.test_blobs import caching, placed, whole

SIZE = 7 * BLOCK + 99
CONTENT = random.Random(8).randbytes(SIZE)
DIGEST = Digest.of(CONTENT)
CHANCES = 3  # ways to lose what was not synced, for each prefix


@dataclass
class Recorder:
    """The recorded calls on files, in order. A file is identified by its inode."""

    root: Path
    done: list[tuple[str, int, int, bytes, str, str]] = field(default_factory=list)
    known: set[int] = field(default_factory=set)

    def note(
        self,
        what: str,
        file: int = 0,
        offset: int = 0,
        data: bytes = b"",
        paths: tuple[str, str] = ("", ""),
    ) -> None:
        self.done.append((what, file, offset, data, *paths))

    def relative(self, path: object) -> str:
        return os.path.relpath(os.fspath(path), self.root)  # type: ignore[call-overload]

    def lay_out(self, count: int, where: Path, dice: random.Random | None) -> None:
        """The files after a power failure: all of the first `count` steps, or (with `chance`) the
        synced writes and some of the others.
        """
        files: dict[int, bytearray] = {}
        names: dict[str, int] = {}
        steps = self.done[:count]
        last_sync = {
            file: number for number, (what, file, *_) in enumerate(steps) if what == "sync"
        }
        for number, (what, file, offset, data, one, two) in enumerate(steps):
            if what == "create":
                names[one] = file
                files[file] = bytearray()
            elif what == "size":
                files[file] = files[file].ljust(offset, b"\0")
            elif what == "write":
                lost = dice is not None and number > last_sync.get(file, -1)
                left = (
                    data[: dice.choice((0, 0, len(data) // 2, len(data)))]
                    if dice and lost
                    else data
                )
                files[file] = files[file].ljust(offset, b"\0")
                files[file][offset : offset + len(left)] = left
            elif what == "rename":
                names[two] = names.pop(one)
            elif what == "link":
                names[two] = names[one]
            elif what == "unlink":
                names.pop(one, None)
        for name, file in names.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            (where / name).write_bytes(files[file])


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    made = Recorder(tmp_path / "recorded")
    made.root.mkdir(mode=0o700)
    real = {
        name: getattr(os, name)
        for name in ("open", "pwritev", "ftruncate", "posix_fallocate", "fsync", "unlink")
    }

    def inode(descriptor: int) -> int:
        return os.fstat(descriptor).st_ino

    def open_(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        new = flags & os.O_CREAT and not os.path.exists(path)
        descriptor: int = real["open"](path, flags, mode, **more)
        if new and made.root in Path(path).parents:
            made.note("create", inode(descriptor), paths=(made.relative(path), ""))
        return descriptor

    def pwritev(descriptor: int, pieces: list[bytes], offset: int) -> int:
        made.known.add(inode(descriptor))
        made.note("write", inode(descriptor), offset, b"".join(pieces))
        return real["pwritev"](descriptor, pieces, offset)  # type: ignore[no-any-return]

    def sized(name: str) -> Callable[..., None]:
        def change(descriptor: int, *sizes: int) -> None:
            real[name](descriptor, *sizes)
            made.note("size", inode(descriptor), sizes[-1])

        return change

    def sync(descriptor: int) -> None:
        file = inode(descriptor)
        if file not in made.known:  # of a small file all was written before this
            made.note("write", file, 0, os.pread(descriptor, 1 << 20, 0))
        made.note("sync", file)

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        return pwritev(descriptor, [data], offset)

    def moved(name: str) -> Callable[..., None]:
        act = getattr(os, name)

        def move(one: object, two: object, **more: object) -> None:
            act(one, two, **more)
            made.note(name, paths=(made.relative(one), made.relative(two)))

        return move

    def unlink(path: object, **more: object) -> None:
        real["unlink"](path, **more)
        made.note("unlink", paths=(made.relative(path), ""))

    replaced = {
        "open": open_,
        "pwritev": pwritev,
        "pwrite": pwrite,
        "fsync": sync,
        "fdatasync": sync,
        "unlink": unlink,
        **{name: sized(name) for name in ("ftruncate", "posix_fallocate")},
        **{name: moved(name) for name in ("rename", "link")},
    }
    with monkeypatch.context() as patch:
        for name, function in replaced.items():
            patch.setattr(os, name, function)
        made.stop = patch.undo  # type: ignore[attr-defined]
        yield made


def cuts(recorder: Recorder, directory: Path) -> Iterator[Path]:
    """Each possible state after a power failure, in a directory of its own."""
    recorder.stop()  # type: ignore[attr-defined]
    assert recorder.done
    for count in range(len(recorder.done) + 1):
        for chance in [None, *range(CHANCES)]:
            where = directory / f"{count}-{chance}"
            where.mkdir(mode=0o700)
            recorder.lay_out(
                count, where, None if chance is None else random.Random(f"{count} {chance}")
            )
            yield where


async def is_used(where: Path) -> int:
    """Read all of the blob, and wait until it is at its final path. Returns the bytes fetched."""
    source = MemorySource(piece=20_000)
    blob = source.put(CONTENT)
    async with caching(source, where) as blobs:
        assert await blobs.read_blob(blob, 3 * BLOCK, 10) == CONTENT[3 * BLOCK : 3 * BLOCK + 10]
        assert await whole(blobs, blob) == CONTENT
        await placed(where, blob)
    assert Disk(where).whole(DIGEST).read_bytes() == CONTENT
    return sum(source.served)


@pytest.mark.parametrize(
    "order", [range(8), [3, 0, 7, 1, 6, 2, 5, 4]], ids=["in order", "in disorder"]
)
async def test_a_cut_while_a_blob_is_fetched_and_placed(
    recorder: Recorder, tmp_path: Path, order: list[int]
) -> None:
    partial = BlobBlocks(Disk(recorder.root), DIGEST, SIZE)
    for block in order:
        partial.write(block * BLOCK, [CONTENT[block * BLOCK : (block + 1) * BLOCK]])
    assert partial.verify()
    partial.place()
    partial.close()
    fetched = [await is_used(where) for where in cuts(recorder, tmp_path)]
    assert max(fetched) <= SIZE
    assert fetched[0] == SIZE
    assert fetched[-1 - CHANCES] == 0  # the last prefix with all of it


async def test_a_cut_while_a_damaged_block_is_mended(recorder: Recorder, tmp_path: Path) -> None:
    disk = Disk(recorder.root)
    partial = BlobBlocks(disk, DIGEST, SIZE)
    partial.write(0, [CONTENT])
    assert partial.verify()
    partial.place()
    os.pwrite(partial.fd, b"damage", 2 * BLOCK)
    partial.recheck()
    partial.check(0, partial.count)
    assert not partial.has(2)
    partial.write(2 * BLOCK, [CONTENT[2 * BLOCK : 3 * BLOCK]])
    assert partial.verify()
    partial.place()
    partial.close()
    assert max([await is_used(where) for where in cuts(recorder, tmp_path)]) <= SIZE


def test_a_cut_while_names_and_derived_things_are_kept(recorder: Recorder, tmp_path: Path) -> None:
    disk = Disk(recorder.root)
    path = disk.name("host", DIGEST)
    disk.write(path, b"old")
    with DerivedFiles(disk).put("layer-index.9", DIGEST) as file:
        file.write(CONTENT)
    disk.write(path, b"new")
    seen = set()
    for where in cuts(recorder, tmp_path):
        left = Disk(where)
        name = left.read(left.name("host", DIGEST))
        assert name in (None, b"old", b"new")
        found = DerivedFiles(left).find("layer-index.9", DIGEST)
        if found is not None:
            with found:
                assert found.read() == CONTENT
        seen.add((name, found is not None))
    assert seen == {(None, False), (b"old", False), (b"old", True), (b"new", True)}
