"""What `files/` makes of archives that are directories, where blobs that an index lists are, and
whose time is whose.
"""

from __future__ import annotations

import gzip
import hashlib

import pytest

from ocifs.errors import IntegrityError, Malformed
from ocifs.oci import mediatype
from ocifs.tree.node import Directory, File
from ocifs.tree.registry.single import open_single
from ocifs.tree.walk import walk
from tests.layers.tars import DIRECTORY, SYMLINK, entry, tar
from tests.tree.memory import MemoryRegistry
from tests.tree.test_layertree import names, opened
from tests.tree.test_semantics import context_of, root_of

CREATED = {"org.opencontainers.image.created": "2024-05-06T07:08:09Z"}
DOCS = tar(
    entry("site/docs/", DIRECTORY, mode=0o750, mtime=7),
    entry("site/docs/a.md", content=b"# a\n"),
    entry("site/docs/up", SYMLINK, linkname="../../other"),
)


def put(registry: MemoryRegistry, content: bytes, **annotations: str) -> None:
    layer = registry.put_blob(
        gzip.compress(content, mtime=0), mediatype.OCI_LAYER_GZIP, annotations=annotations
    )
    empty = registry.put_blob(b"{}", mediatype.OCI_EMPTY)
    artifact = {
        "artifactType": "application/vnd.example",
        "config": empty,
        "layers": [layer],
        "annotations": CREATED,
    }
    registry.put_manifest("app", "v1", artifact)


def packed(title: str, content: bytes = b"") -> dict[str, str]:
    named = {"org.opencontainers.image.title": title, "io.deis.oras.content.unpack": "true"}
    digest = {"io.deis.oras.content.digest": f"sha256:{hashlib.sha256(content).hexdigest()}"}
    return named | (digest if content else {})


@pytest.mark.parametrize("title", ["site/docs", "./site/docs/", "/site//docs"])
async def test_a_packed_directory_is_a_directory_whose_path_is_shown_once(title: str) -> None:
    registry = MemoryRegistry()
    put(registry, DOCS, **packed(title, DOCS))
    async with opened(registry) as root:
        assert await names(root, b"files/site/docs") == [b"a.md", b"up"]
        docs, file = await walk(root, b"files/site/docs"), await walk(root, b"files/site/docs/a.md")
        assert isinstance(file, File)
        assert await file.read(0, 100) == b"# a\n"
        assert file.key == (await walk(root, b"layers/0/tree/site/docs/a.md")).key
        assert (docs.attributes.mode & 0o777, docs.attributes.mtime_ns) == (0o750, 7_000_000_000)


@pytest.mark.parametrize("title", ["docs", "site", "site/docs/a.md", "other/docs"])
async def test_an_archive_whose_paths_are_others_is_shown_whole(title: str) -> None:
    registry = MemoryRegistry()
    more = DOCS if title != "site" else tar(entry("site/a"), entry("b"))
    put(registry, more, **packed(title))
    async with opened(registry) as root:
        assert b"site" in await names(root, b"files/" + title.encode())


async def test_a_directory_that_is_not_the_one_that_was_packed_is_an_error() -> None:
    registry = MemoryRegistry()
    put(registry, DOCS, **packed("site/docs", b"another"))
    async with opened(registry) as root:
        with pytest.raises(IntegrityError):
            await names(root, b"files/site/docs")


async def test_what_is_no_archive_can_be_listed_around_and_read_as_it_is() -> None:
    registry = MemoryRegistry()
    put(registry, b"no tar" * 200, **packed("docs"))
    async with opened(registry) as root:
        assert await names(root, b"files") == [b"docs"]
        with pytest.raises(Malformed):
            await names(root, b"files/docs")
        assert isinstance(await walk(root, b"layers/0/blob"), File)


async def test_nothing_of_a_packed_directory_is_fetched_to_list_beside_it() -> None:
    registry = MemoryRegistry()
    put(registry, DOCS, **packed("docs"))
    async with opened(registry) as root:
        registry.asked.clear()
        assert await names(root, b"files") == [b"docs"]
        assert registry.asked == []


async def test_directories_have_the_manifests_time_until_something_knows_better() -> None:
    registry = MemoryRegistry()
    put(registry, DOCS, **packed("docs"))
    async with opened(registry) as root:
        for path in (
            "files",
            "files/docs",
            "layers",
            "layers/0",
            "layers/0/digest",
            "layers/0/blob",
            "layers/0/tree",
        ):
            assert (await walk(root, path.encode())).attributes.mtime_ns == 1714979289_000000000, (
                path
            )


async def test_blobs_that_a_cache_lists_as_children_are_led_to_in_every_kind_of_mount() -> None:
    registry = MemoryRegistry()
    layer = registry.put_blob(b"cached layer", mediatype.OCI_LAYER_GZIP)
    config = registry.put_blob(b"{}", "application/vnd.buildkit.cacheconfig.v0")
    registry.put_manifest("app", "v1", {"manifests": [layer, config]})
    tagged = await walk(root_of(registry), b"app/_tags/v1")
    single = await open_single(context_of(registry), "app", "v1")
    for root, base in ((root_of(registry), b"app/_manifests/v1/"), (single, b"")):
        node = await walk(root, base + b"manifests/0")
        assert isinstance(node, File)
        assert await node.read(0, 100) == b"cached layer"
    assert isinstance(tagged, Directory)
    assert {entry.name for entry in await single.entries()} > {b"_manifests", b"_blobs"}
