"""eStargz' tables of contents in an image of their own: found by the tag, believed by their digest,
and done without.
"""

from __future__ import annotations

import json
import logging

import pytest
import trio

from ocifs.errors import Unreachable
from ocifs.layers.service import LayerService
from ocifs.layers.toc.estargz import LAYER_DIGEST
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.platform import Platform
from ocifs.settings import Limits, ViewSettings
from ocifs.tree.manifest.context import Context
from ocifs.tree.node import Directory, File
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.walk import walk
from tests.layers.tables import Contents, starred, starred_apart, table, zipped
from tests.tree.memory import MemoryRegistry, MemoryShelf

LAYER = mediatype.OCI_LAYER_GZIP
MACHINE = {"os": "linux", "architecture": "amd64"}


def contents() -> Contents:
    made = Contents(zipped)
    made.put("d/", type="dir", mode=0o755)
    made.put("d/first", b"first" * 1000)
    made.put("d/second", b"second" * 1000)
    return made


def image(registry: MemoryRegistry, blob: bytes, annotations: dict[str, str]) -> dict[str, object]:
    config = registry.put_blob(json.dumps(MACHINE).encode(), mediatype.OCI_CONFIG)
    return {"config": config, "layers": [registry.put_blob(blob, LAYER, annotations=annotations)]}


def put(registry: MemoryRegistry, toc: bytes | None = None) -> bytes:
    """An image as app:v1 and, for one platform of several, as app:many; without its table, which is
    what this gives.
    """
    made, beside = starred_apart(contents(), toc)
    annotations = starred(contents()).annotations if toc is not None else made.annotations
    child = registry.put_manifest("app", "v1", image(registry, made.blob, dict(annotations)))
    registry.put_manifest("app", "many", {"manifests": [{**child, "platform": MACHINE}]})
    return beside


def put_tables(registry: MemoryRegistry, tag: str, beside: bytes, of: str | None = None) -> None:
    """The image of the tables of app:v1."""
    layers = json.loads(registry.content[registry.known["app"]["v1"]][1])["layers"]
    found = registry.put_blob(beside, LAYER, annotations={LAYER_DIGEST: of or layers[0]["digest"]})
    config = registry.put_blob(b"{}", mediatype.OCI_CONFIG)
    registry.put_manifest("app", tag, {"config": config, "layers": [found]})


async def look(registry: MemoryRegistry, path: str, shelf: MemoryShelf | None = None) -> list[str]:
    """List and read what is in app's root filesystem at a path, and check it; what was asked for
    that.
    """
    registry.asked.clear()
    async with trio.open_nursery() as nursery:
        layer_service = LayerService(registry, shelf or MemoryShelf(), nursery, Limits())
        context = Context(
            registry.origin,
            ViewSettings(platform=Platform("linux", "amd64")),
            Limits(),
            lambda: layer_service,
        )
        root = RepositoryDirectory(context, "", "root", repository=False)
        directory = await walk(root, f"{path}/d".encode())
        assert isinstance(directory, Directory)
        assert sorted(each.name for each in await directory.entries()) == [b"first", b"second"]
        file = await walk(directory, b"second")
        assert isinstance(file, File)
        assert await file.read(0, 10_000) == b"second" * 1000
        nursery.cancel_scope.cancel()
    return list(registry.asked)


@pytest.mark.parametrize(
    ("path", "tag"),
    [("app:v1/rootfs", "v1"), ("app:v1/layers/0/tree", "v1"), ("app:many/rootfs", "many")],
)
async def test_a_table_apart_is_found_by_the_tag_and_once(caplog, path: str, tag: str) -> None:
    registry, shelf = MemoryRegistry(), MemoryShelf()
    put_tables_of = put(registry)
    put_tables(registry, f"{tag}-esgztoc", put_tables_of)
    asked = await look(registry, path, shelf)
    assert f"tagged app:{tag}-esgztoc" in asked
    assert f"blob {Digest.of(put_tables_of).short}" in asked
    assert "ordinary tar" not in caplog.text
    assert not [
        each
        for each in await look(registry, path, shelf)
        if "esgztoc" in each or Digest.of(put_tables_of).short in each
    ]


async def test_a_layer_that_has_its_table_is_asked_for_nowhere_else() -> None:
    registry = MemoryRegistry()
    made = starred(contents())
    registry.put_manifest("app", "v1", image(registry, made.blob, dict(made.annotations)))
    assert not [each for each in await look(registry, "app:v1/rootfs") if "esgztoc" in each]


@pytest.mark.parametrize(
    "why", ["no image", "of another layer", "another table", "no table", "no manifest", "by digest"]
)
async def test_without_its_table_the_layer_is_a_plain_tar(caplog, why: str) -> None:
    registry, path = MemoryRegistry(), "app:v1/rootfs"
    beside = put(registry, table(contents().entries[:1]) if why == "another table" else None)
    if why == "of another layer":
        put_tables(registry, "v1-esgztoc", beside, of=str(Digest.of(b"another")))
    elif why == "no manifest":
        put_tables(registry, "v1-esgztoc", beside, of="no digest")
    elif why == "by digest":
        put_tables(registry, "v1-esgztoc", beside)
        path = f"app@{registry.known['app']['v1']}/rootfs"
    elif why != "no image":
        put_tables(registry, "v1-esgztoc", b"no gzip" if why == "no table" else beside)
    with caplog.at_level(logging.WARNING):
        await look(registry, path)
    assert "is read as an ordinary tar" in caplog.text


async def test_an_outage_is_no_refusal() -> None:
    registry = MemoryRegistry()
    put_tables(registry, "v1-esgztoc", put(registry))
    tagged = registry.tagged

    async def away(repository: str, tag: str):
        if tag.endswith("-esgztoc"):
            raise Unreachable("the cable is out")
        return await tagged(repository, tag)

    registry.tagged = away
    with pytest.raises(BaseExceptionGroup) as raised:
        await look(registry, "app:v1/rootfs")
    assert raised.group_contains(Unreachable)
