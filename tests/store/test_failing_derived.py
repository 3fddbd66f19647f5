"""Derived files and names on a disk that fails or damages content: the data is derived again, bytes
are right, and no task ends the mount.
"""

from __future__ import annotations

import errno
import functools
import lzma
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ocifs.layers.checksummed import seal
from ocifs.layers.index.codec import KIND as INDEX
from ocifs.layers.indexing.layer import Layer
from ocifs.layers.merge.root_attributes import KIND as ROOT
from ocifs.layers.merge.root_attributes import RootAttributes, RootAttributesCache
from ocifs.layers.merge.tree import KIND as TREE
from ocifs.layers.spans.uncompressed import TAR_KIND
from ocifs.oci.digest import Digest
from ocifs.settings import MIB
from tests.layers.tars import DIRECTORY, entry, tar
from tests.layers.test_service import CONTENT, TAR, Site, big, member, site
from tests.store.source import MemorySource
from tests.store.test_damaged_files import IN_THE_WAY, replaced, written
from tests.store.test_failing_disk import CALLS, failing, nothing_unexpected
from tests.store.test_names import caching
from tests.tree.memory import MemoryRegistry

ERRNOS = ("EIO", "EROFS", "ENOSPC", "EDQUOT", "ESTALE", "EACCES", "EMFILE", "ENOMEM")
XZ = lzma.compress(TAR)
UPPER = tar(entry("top", content=b"top"), entry("d", DIRECTORY))
DAMAGE: dict[str, Callable[[Path], None]] = {
    **IN_THE_WAY,
    "garbled": lambda path: path.write_bytes(random.Random(4).randbytes(300)),
    "cut to the middle": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a bit": lambda path: written(path.stat().st_size // 2, b"\xa5")(path),
}
SEALED: dict[str, Callable[[Path], None]] = {
    "of another shape": lambda path: path.write_bytes(seal({"kind": path.parent.parent.name}, b"")),
    "of wrong types": lambda path: path.write_bytes(
        seal(
            {
                "kind": path.parent.parent.name,
                "blocks": 5,
                "layers": 2,
                "sizes": "x",
                "member": {},
                "xattrs": 3,
            },
            b"",
        )
    ),
}


async def used(here: Site) -> None:
    """Derive, find and read everything: indexes, a merged tree, the attributes of a root, the
    uncompressed tar of an xz layer.
    """
    layers = [here.layer(XZ), here.layer(UPPER, UPPER)]
    with trio.fail_after(60):
        tree = await here.layer_service.tree(layers)
        assert set(tree.directories.listing(0)) == {b"d", b"empty", b"top"}
        assert await big(here, layers[0]) == CONTENT
        assert await big(here, here.layer()) == CONTENT
        name = Digest.of(b"root")
        roots = RootAttributesCache(here.shelf)
        root = RootAttributes(
            (await here.layer_service.index(layers[0])).entries[0]._replace(path=b""), 3
        )
        await roots.save(name, root)
        assert await roots.find(name) in (None, root)


@pytest.mark.parametrize("times", [1, -1], ids=["once", "always"])
@pytest.mark.parametrize("name", ERRNOS)
@pytest.mark.parametrize("call", [*CALLS, "write", "everything"])
async def test_a_disk_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, name: str, times: int
) -> None:
    source = MemorySource()
    calls = (*CALLS, "write") if call == "everything" else (call,)
    for _ in range(2):  # with nothing kept, and with what the first round kept
        async with site(tmp_path, source) as here:
            with failing(tmp_path / "v1" / "derived", calls, getattr(errno, name), times):
                await used(here)
            await used(here)  # the disk is well again
    nothing_unexpected(caplog)


@pytest.mark.parametrize("kind", [INDEX, TAR_KIND, TREE, ROOT])
@pytest.mark.parametrize("damage", [*DAMAGE.values(), *SEALED.values()], ids=[*DAMAGE, *SEALED])
async def test_damaged_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, damage: Callable[[Path], None]
) -> None:
    source = MemorySource()
    async with site(tmp_path, source) as here:
        await used(here)
    kept = list((tmp_path / "v1" / "derived" / kind).glob("*/*"))
    assert kept
    for path in kept:
        damage(path)
    async with site(tmp_path, source) as here:
        await used(here)
    fetched = sum(source.served)
    async with site(tmp_path, source) as here:
        await used(here)
    assert sum(source.served) == fetched  # what was damaged was made again, and kept
    nothing_unexpected(caplog)


@pytest.mark.parametrize(
    "name", ["derived", f"derived/{INDEX}", f"derived/{TAR_KIND}/sha256", f"derived/{TREE}"]
)
@pytest.mark.parametrize(
    "vanishes", [False, True], ids=["a file in its place", "removed while it is used"]
)
async def test_directories(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, vanishes: bool
) -> None:
    path = tmp_path / "v1" / name
    if not vanishes:
        path.parent.mkdir(mode=0o700, parents=True)
        path.write_bytes(b"in the way")
    async with site(tmp_path) as here:
        await used(here)
        if vanishes:
            shutil.rmtree(path)
        await used(here)
    nothing_unexpected(caplog)


async def test_a_part_of_a_layer_of_which_nothing_can_be_kept(tmp_path: Path) -> None:
    """A compression without checkpoints: each read decompresses again, and is verified like any
    other.
    """
    content = random.Random(3).randbytes(5 * MIB)
    plain = tar(entry("d/big", content=content))
    async with site(tmp_path) as here:
        layer = Layer(here.source.put(lzma.compress(plain, preset=0)), Digest.of(plain))
        with failing(tmp_path / "v1" / "derived", CALLS, errno.EROFS):
            index = await here.layer_service.index(layer)
            found = member(index, b"d/big")
            for start in (4 * MIB + 5, 0, 5 * MIB - 10, 2 * MIB):
                assert (
                    await here.layer_service.read(layer, found, start, 1000)
                    == content[start : start + 1000]
                )


async def names_used(memory: MemoryRegistry, directory: Path, *, tag: str = "v1") -> None:
    async with caching(memory, directory) as catalog:
        with trio.fail_after(60):
            digest = (await catalog.resolve("a/b", tag)).digest
            assert await catalog.tags("a/b") == ("v1",)
            assert await catalog.repositories() == ("a/b",)
            assert (await catalog.manifest("a/b", digest)).digest == digest
            assert await catalog.has_seen("a/b", Digest.of(b"other")) is False
            await catalog.is_known()


@pytest.mark.parametrize("times", [1, -1], ids=["once", "always"])
@pytest.mark.parametrize("name", ERRNOS)
@pytest.mark.parametrize("call", [*CALLS, "scandir", "everything"])
async def test_names_on_a_disk_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, name: str, times: int
) -> None:
    memory = MemoryRegistry()
    memory.put_manifest("a/b", "v1", {"layers": []})
    calls = (*CALLS, "scandir") if call == "everything" else (call,)
    for _ in range(2):
        with failing(tmp_path / "v1" / "names", calls, getattr(errno, name), times):
            await names_used(memory, tmp_path)
        await names_used(memory, tmp_path)
    nothing_unexpected(caplog)


def write(text: str, path: Path) -> None:
    path.write_text(text)


JSON: dict[str, Callable[[Path], None]] = {
    text: replaced(functools.partial(write, text))
    for text in (
        "",
        "null",
        "[]",
        "5",
        "{}",
        "NaN",
        "[" * 9999,
        '{"key": 5}',
        '{"key": "\\ud800"}',
        '{"key": "catalog", "owner": "anonymous", "value": {}}',
        '{"key": "tag a/b:v1", "owner": "anonymous", "value": ["x", "sha256:0", 1]}',
    )
}


@pytest.mark.parametrize(
    "damage", [*DAMAGE.values(), *JSON.values()], ids=[*DAMAGE, *(each[:20] for each in JSON)]
)
async def test_damaged_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    memory = MemoryRegistry()
    memory.put_manifest("a/b", "v1", {"layers": []})
    await names_used(memory, tmp_path)
    kept = list((tmp_path / "v1" / "names").glob("*/*.json"))
    assert kept
    for path in kept:
        damage(path)
    await names_used(memory, tmp_path)
    nothing_unexpected(caplog)


async def test_a_file_in_the_place_of_the_directory_of_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemoryRegistry()
    memory.put_manifest("a/b", "v1", {"layers": []})
    (tmp_path / "v1").mkdir(mode=0o700)
    (tmp_path / "v1" / "names").write_bytes(b"in the way")
    await names_used(memory, tmp_path)
    nothing_unexpected(caplog)
