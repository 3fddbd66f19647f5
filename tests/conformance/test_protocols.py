"""One suite for every Catalog, BlobReader and BlobSource.

A real registry, the same with mirrors, a layout, an archive, a registry in memory, and the caches
over each of them.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from ocifs.content import Blob, BlobReader, BlobSource, Catalog
from ocifs.errors import IntegrityError, NotFound
from ocifs.layout.contents import REF_NAME
from ocifs.layout.layout import Layout
from ocifs.oci import mediatype
from ocifs.oci.digest import EMPTY_JSON, Digest
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.registry.config.registries_conf import parse
from ocifs.registry.config.routes import RouteTable
from ocifs.settings import CacheSettings, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from ocifs.store.names.access import RegistryIdentity
from ocifs.store.names.cached import CachedCatalog
from ocifs.watched import Traffic, WatchedCatalog, WatchedSource
from tests.store.source import MemorySource
from tests.support.archives import archive_of, files_of
from tests.support.clients import open_mirrored, open_registry
from tests.support.faults import fault_server, http
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry
from tests.tree.memory import MemoryRegistry

pytestmark = pytest.mark.servers

LAYER = random.Random(5).randbytes(300_000)
LAYER_DIGEST = Digest.of(LAYER)
ABSENT = Digest.of(b"nobody has this")
EMPTY = {"mediaType": mediatype.OCI_EMPTY, "digest": str(EMPTY_JSON), "size": 2}


def describe(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


IMAGE = {
    "schemaVersion": 2,
    "mediaType": mediatype.OCI_MANIFEST,
    "config": EMPTY,
    "layers": [describe(LAYER, mediatype.OCI_LAYER)],
}
IMAGE_BODY = json.dumps(IMAGE).encode()
IMAGE_DIGEST = Digest.of(IMAGE_BODY)
SIGNATURE = {
    **IMAGE,
    "artifactType": "application/x.signature",
    "subject": describe(IMAGE_BODY, mediatype.OCI_MANIFEST),
}
SIGNATURE_BODY = json.dumps(SIGNATURE).encode()
# A registry without the referrers API has them under this tag (distribution-spec "Referrers Tag
# Schema").
FALLBACK = {
    "schemaVersion": 2,
    "mediaType": mediatype.OCI_INDEX,
    "manifests": [describe(SIGNATURE_BODY, mediatype.OCI_MANIFEST)],
}


@dataclass
class World:
    """An implementation, and its name for the repository."""

    repository: str
    catalog: Catalog
    reader: BlobReader | None
    source: BlobSource | None


@asynccontextmanager
async def a_registry(registry: Registry, tmp_path: Path) -> AsyncIterator[World]:
    name = "conformance/image"
    push_blob(registry.url, name, b"{}")
    push_blob(registry.url, name, LAYER)
    push_manifest(registry.url, name, IMAGE, "v1")
    push_manifest(registry.url, name, IMAGE, "v2")
    push_manifest(registry.url, name, SIGNATURE)
    push_manifest(registry.url, name, FALLBACK, f"sha256-{IMAGE_DIGEST.encoded}")
    async with open_registry(registry.host, Settings()) as client:
        yield World(name, client, None, client)


@asynccontextmanager
async def with_mirrors(registry: Registry, tmp_path: Path) -> AsyncIterator[World]:
    """A registry behind one mirror without any content and another one that is down."""
    with fault_server(lambda request: http(200 if request.target == "/v2/" else 404)) as empty:
        tables = "".join(
            f'[[registry.mirror]]\nlocation = "{host}"\n' for host in (empty.host, "127.0.0.1:1")
        )
        conf = parse(
            f'[[registry]]\nprefix = "r.example"\nlocation = "{registry.host}"\n{tables}', "conf"
        )
        async with a_registry(registry, tmp_path) as made:
            async with open_mirrored("r.example", RouteTable(conf), Settings()) as mirrored:
                yield World(made.repository, mirrored, None, mirrored)


@asynccontextmanager
async def a_layout(
    registry: Registry, tmp_path: Path, transport: LocalTransport = LocalTransport.OCI
) -> AsyncIterator[World]:
    root = tmp_path / "layout"
    (root / "blobs" / "sha256").mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for content in (LAYER, b"{}", IMAGE_BODY, SIGNATURE_BODY):
        (root / "blobs" / "sha256" / Digest.of(content).encoded).write_bytes(content)
    image = describe(IMAGE_BODY, mediatype.OCI_MANIFEST)
    listed = [{**image, "annotations": {REF_NAME: tag}} for tag in ("v1", "v2")]
    listed.append(describe(SIGNATURE_BODY, mediatype.OCI_MANIFEST))
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    source = LayoutSource(str(root))
    if transport.is_file:
        (tmp_path / "layout.tar.gz").write_bytes(gzip.compress(archive_of(files_of(root))))
        source = LayoutSource(f"{root}.tar.gz", transport)
    async with trio.open_nursery() as nursery:
        layout = await Layout.open(
            source, nursery, Settings(), DerivedFiles(Disk(tmp_path / "cache"))
        )
        yield World("", layout, layout, layout)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def an_archive(registry: Registry, tmp_path: Path) -> AsyncIterator[World]:
    async with a_layout(registry, tmp_path, LocalTransport.OCI_ARCHIVE) as world:
        yield world


@asynccontextmanager
async def memory_range(registry: Registry, tmp_path: Path) -> AsyncIterator[World]:
    memory, source = MemoryRegistry(), MemorySource()
    for content, kind in (
        (LAYER, mediatype.OCI_LAYER),
        (b"{}", mediatype.OCI_EMPTY),
        (IMAGE_BODY, mediatype.OCI_MANIFEST),
        (SIGNATURE_BODY, mediatype.OCI_MANIFEST),
    ):
        memory.put_blob(content, kind)
        source.put(content)
    memory.known["a/b"] = {"v1": IMAGE_DIGEST, "v2": IMAGE_DIGEST}
    yield World("a/b", memory, memory, source)


NAME_FUNCTIONS = {
    "registry": a_registry,
    "mirrored": with_mirrors,
    "layout": a_layout,
    "archive": an_archive,
    "memory": memory_range,
}


@pytest.fixture(
    params=[(kind, wrapped) for kind in NAME_FUNCTIONS for wrapped in ("", "watched", "cached")],
    ids=lambda p: " ".join(p).strip(),
)
async def world(
    request: pytest.FixtureRequest, registry: Registry, tmp_path: Path
) -> AsyncIterator[World]:
    kind, wrapped = request.param
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(NAME_FUNCTIONS[kind](registry, tmp_path))
        if not wrapped:
            yield made
            return
        disk, settings = (
            Disk(tmp_path / "cache"),
            Settings(cache=CacheSettings(directory=tmp_path / "cache")),
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        assert made.source is not None
        traffic = Traffic("host")
        watched = World(
            made.repository,
            WatchedCatalog(made.catalog, traffic),
            None,
            WatchedSource(made.source, traffic),
        )
        if wrapped == "watched":
            yield watched
        else:
            catalog = CachedCatalog(
                watched.catalog, RegistryIdentity("host"), disk, nursery, settings
            )
            assert watched.source is not None
            yield World(
                made.repository, catalog, CachedBlobs(watched.source, disk, nursery, settings), None
            )
        nursery.cancel_scope.cancel()


async def test_a_repository_that_is_listed_has_tags(world: World) -> None:
    listed = await world.catalog.repositories()
    assert world.repository in listed
    assert list(listed) == sorted(listed)


async def test_tags_are_listed_each_once(world: World) -> None:
    tags = await world.catalog.tags(world.repository)
    assert {"v1", "v2"} <= set(tags)
    assert len(tags) == len(set(tags))


async def test_tags_of_one_manifest_mean_its_descriptor(world: World) -> None:
    for tag in ("v1", "v2"):
        found = await world.catalog.resolve(world.repository, tag)
        assert (found.digest, found.size, found.media_type) == (
            IMAGE_DIGEST,
            len(IMAGE_BODY),
            mediatype.OCI_MANIFEST,
        )


async def test_a_manifest_is_the_bytes_of_its_digest(world: World) -> None:
    for _ in range(2):
        found = await world.catalog.manifest(world.repository, IMAGE_DIGEST)
        assert (found.digest, found.body) == (IMAGE_DIGEST, IMAGE_BODY)
        assert mediatype.essence(found.media_type) == mediatype.OCI_MANIFEST


async def test_referrers_are_those_whose_subject_it_is(world: World) -> None:
    found = await world.catalog.referrers(world.repository, IMAGE_DIGEST)
    assert [each.digest for each in found] == [Digest.of(SIGNATURE_BODY)]
    assert await world.catalog.referrers(world.repository, Digest.of(SIGNATURE_BODY)) == ()


async def test_what_is_not_there_is_not_found(world: World) -> None:
    for question in (
        world.catalog.tags("no/such"),
        world.catalog.resolve(world.repository, "v3"),
        world.catalog.resolve("no/such", "v1"),
        world.catalog.manifest(world.repository, ABSENT),
    ):
        with pytest.raises(NotFound):
            await question


async def test_blobs_have_sizes(world: World) -> None:
    for asked in (world.reader, world.source):
        if asked is not None:
            assert await asked.blob_size(world.repository, LAYER_DIGEST) == len(LAYER)
            with pytest.raises(NotFound):
                await asked.blob_size(world.repository, ABSENT)


SPANS = [(0, 10), (65_536, 65_536), (299_990, 10), (100_001, 77_777), (0, len(LAYER))]


async def test_any_range_is_read(world: World) -> None:
    if world.reader is None:
        pytest.skip("reads through a cache")
    blob = Blob(world.repository, LAYER_DIGEST, len(LAYER))
    for offset, length in [*SPANS, (299_990, 1000), (len(LAYER), 10)]:
        assert await world.reader.read_blob(blob, offset, length) == LAYER[offset : offset + length]
    with pytest.raises(NotFound):
        await world.reader.read_blob(Blob(world.repository, ABSENT, 10), 0, 10)


async def test_content_that_came_along_is_asked_of_nobody(world: World) -> None:
    if world.reader is None:
        pytest.skip("reads through a cache")
    blob = Blob("no/such", Digest.of(b"small"), 5, b"small")
    assert await world.reader.read_blob(blob, 1, 3) == b"mal"


async def test_a_descriptor_with_another_size_is_an_integrity_error(world: World) -> None:
    if world.reader is None or isinstance(world.reader, MemoryRegistry):
        pytest.skip("does not verify")
    for size in (len(LAYER) + 1, len(LAYER) - 1):
        with pytest.raises(IntegrityError):
            await world.reader.read_blob(Blob(world.repository, LAYER_DIGEST, size), size - 10, 10)


async def test_any_range_is_streamed(world: World) -> None:
    if world.source is None:
        pytest.skip("gives no streams")
    blob = Blob(world.repository, LAYER_DIGEST, len(LAYER))
    for offset, length in SPANS:
        async with world.source.open_blob(blob, offset, offset + length) as stream:
            assert stream.start == offset
            assert stream.total in (None, len(LAYER))
            assert b"".join([piece async for piece in stream]) == LAYER[offset : offset + length]
    with pytest.raises(NotFound):
        async with world.source.open_blob(Blob(world.repository, ABSENT, 10), 0, 10):
            pass
