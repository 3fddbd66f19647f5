"""One cache and several credentials: each sees the answers that the registry gave to it, and no
others.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trio.testing import MockClock

from ocifs.errors import AccessDenied, NotFound, OcifsError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import CacheSettings, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from ocifs.store.names.access import RegistryIdentity
from ocifs.store.names.cached import CachedCatalog
from tests.store.test_names import OUTAGES, caching
from tests.tree.memory import MemoryRegistry

BODY = {"layers": [{"mediaType": "a/b", "digest": str(Digest.of(b"layer")), "size": 5}]}


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    return mock_clock


@pytest.fixture
def memory() -> MemoryRegistry:
    made = MemoryRegistry()
    made.put_blob(b"layer")
    made.put_manifest("team/secret", "v1", BODY)
    made.put_manifest("team/secret", "", {"layers": [], "annotations": {"by": "digest"}})
    return made


@asynccontextmanager
async def known_as(
    owner: str, memory: MemoryRegistry, directory: Path, **how: bool
) -> AsyncIterator[CachedCatalog]:
    async def identify(repository: str) -> str:
        return owner

    registry = RegistryIdentity("host", identify)
    async with caching(memory, directory, registry=registry, **how) as catalog:
        yield catalog


async def look(catalog: CachedCatalog) -> Digest:
    """Read everything about the private repository. Returns the digest of its tag."""
    assert "team/secret" in await catalog.repositories()
    assert await catalog.tags("team/secret") == ("v1",)
    raw = await catalog.tagged("team/secret", "v1")
    assert (await catalog.resolve("team/secret", "v1")).digest == raw.digest
    assert await catalog.manifest("team/secret", raw.digest) == raw
    assert await catalog.has_seen("team/secret", Digest.of(b"layer"))
    return raw.digest


@pytest.mark.parametrize("outage", [*OUTAGES, None], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("other", ["anonymous", "bob"])
async def test_what_one_credential_saw_is_not_shown_to_another(
    clock, memory: MemoryRegistry, tmp_path: Path, other: str, outage: OcifsError | None
) -> None:
    async with known_as("alice", memory, tmp_path) as catalog:
        digest = await look(catalog)
    memory.down = outage or AccessDenied("not yours")
    async with known_as(other, memory, tmp_path) as catalog:
        for question in (
            lambda: catalog.resolve("team/secret", "v1"),
            lambda: catalog.tagged("team/secret", "v1"),
            lambda: catalog.tags("team/secret"),
            lambda: catalog.manifest("team/secret", digest),
            lambda: catalog.repositories(),
        ):
            with pytest.raises(type(memory.down)):
                await question()
        assert not await catalog.has_seen("team/secret", Digest.of(b"layer"))


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)
async def test_in_an_outage_a_credential_sees_what_it_saw(
    clock, memory: MemoryRegistry, tmp_path: Path, outage: OcifsError
) -> None:
    async with known_as("alice", memory, tmp_path) as catalog:
        await look(catalog)
    memory.down = outage
    async with known_as("alice", memory, tmp_path) as catalog:
        await look(catalog)
    async with known_as("alice", memory, tmp_path, offline=True) as catalog:
        await look(catalog)
    async with known_as("bob", memory, tmp_path, offline=True) as catalog:
        with pytest.raises(Unreachable):
            await catalog.tagged("team/secret", "v1")


async def test_a_manifest_by_digest_is_asked_for_once_by_each_credential(
    clock, memory: MemoryRegistry, tmp_path: Path
) -> None:
    digest = memory.known["team/secret"]["v1"]
    for owner, asked in (
        ("alice", 1),
        ("alice", 1),
        ("bob", 2),
        ("anonymous", 3),
        ("bob", 3),
        ("alice", 3),
    ):
        async with known_as(owner, memory, tmp_path) as catalog:
            assert (await catalog.manifest("team/secret", digest)).digest == digest
        assert memory.asked.count(f"manifest {digest.short}") == asked


async def test_absence_for_one_takes_nothing_from_another(
    clock, memory: MemoryRegistry, tmp_path: Path
) -> None:
    async with known_as("alice", memory, tmp_path) as catalog:
        await look(catalog)
    hidden = MemoryRegistry()
    async with known_as("bob", hidden, tmp_path) as catalog:
        with pytest.raises(NotFound):
            await catalog.resolve("team/secret", "v1")
    memory.down = Unreachable("gone")
    async with known_as("alice", memory, tmp_path) as catalog:
        await look(catalog)


async def test_files_of_an_earlier_format_and_foreign_ones_are_not_there(
    clock, memory: MemoryRegistry, tmp_path: Path
) -> None:
    async with known_as("alice", memory, tmp_path) as catalog:
        digest = await look(catalog)
    for path in tmp_path.rglob("names/*/*.json"):
        kept = json.loads(path.read_bytes())
        del kept["owner"]
        path.write_text(json.dumps(kept))
    memory.down = Unreachable("gone")
    for owner in ("alice", "anonymous"):
        async with known_as(owner, memory, tmp_path) as catalog:
            with pytest.raises(Unreachable):
                await catalog.manifest("team/secret", digest)
    memory.down = None
    async with known_as("alice", memory, tmp_path) as catalog:
        await look(catalog)


async def test_without_the_registry_a_blob_is_there_for_who_saw_a_manifest_of_it(
    clock, memory: MemoryRegistry, tmp_path: Path, nursery
) -> None:
    layer = Digest.of(b"layer")
    async with known_as("alice", memory, tmp_path) as catalog:
        await look(catalog)
        disk = Disk(tmp_path)
        disk.write(disk.whole(layer), b"layer")
        memory.down = Unreachable("gone")
        for owner in ("alice", "bob"):
            async with known_as(owner, memory, tmp_path) as seeing:
                chosen = Settings(cache=CacheSettings(directory=tmp_path))
                blobs = CachedBlobs(memory, disk, nursery, chosen, seeing)
                if owner == "alice":
                    assert await blobs.blob_size("team/secret", layer) == 5
                else:
                    with pytest.raises(Unreachable):
                        await blobs.blob_size("team/secret", layer)
