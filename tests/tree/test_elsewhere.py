"""Content that is not where content is: in the descriptor itself, or at an address that nobody
asks.
"""

from __future__ import annotations

import base64

import pytest

from ocifs.concurrency import ungrouped
from ocifs.errors import NotFound, Unsupported
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.tree.node import File
from ocifs.tree.walk import walk
from tests.tree.memory import MemoryRegistry
from tests.tree.test_layertree import names, opened

CONTENT = b"carried along"


def put(registry: MemoryRegistry, content: bytes, **more: object) -> None:
    layer = {
        "mediaType": mediatype.OCI_LAYER_GZIP,
        "digest": str(Digest.of(content)),
        "size": len(content),
        **more,
    }
    config = registry.put_blob(b"{} ", mediatype.OCI_CONFIG)
    registry.put_manifest("app", "v1", {"config": config, "layers": [layer]})


async def read(registry: MemoryRegistry, path: bytes) -> bytes:
    with ungrouped():
        async with opened(registry) as root:
            registry.asked.clear()
            node = await walk(root, path)
            assert isinstance(node, File)
            assert node.attributes.size == len(CONTENT)
            return await node.read(0, 100)


@pytest.mark.parametrize("path", [b"layers/0/blob", b"files/layer-0.tar.gz"])
async def test_what_a_descriptor_carries_is_read_without_a_request(path: bytes) -> None:
    registry = MemoryRegistry()
    put(registry, CONTENT, data=base64.b64encode(CONTENT).decode())
    assert await read(registry, path) == CONTENT
    assert registry.asked == []


@pytest.mark.parametrize("data", [b"carried alonG", b"longer than the size", b""])
async def test_what_a_descriptor_carries_is_not_believed(data: bytes) -> None:
    registry = MemoryRegistry()
    put(registry, CONTENT, data=base64.b64encode(data).decode())
    registry.put_blob(CONTENT)
    assert await read(registry, b"layers/0/blob") == CONTENT
    assert any(question.startswith("blob") for question in registry.asked)


async def test_a_foreign_layer_is_shown_and_reading_it_says_why_not() -> None:
    registry = MemoryRegistry()
    put(registry, CONTENT, urls=["https://elsewhere.example/layer?secret=1"])
    with pytest.raises(
        Unsupported, match=r"URL in its descriptor: https://elsewhere\.example/layer\Z"
    ) as raised:
        await read(registry, b"layers/0/blob")
    assert "secret" not in str(raised.value)
    async with opened(registry) as root:
        assert b"tree" in await names(root, b"layers/0")
        for path in (b"layers/0/tree", b"rootfs"):
            with pytest.raises(Unsupported):
                await names(root, path)


async def test_a_foreign_layer_in_the_registry_is_read_and_one_without_urls_is_absent() -> None:
    registry = MemoryRegistry()
    put(registry, CONTENT, urls=["https://elsewhere.example/layer"])
    registry.put_blob(CONTENT)
    assert await read(registry, b"layers/0/blob") == CONTENT
    registry = MemoryRegistry()
    put(registry, CONTENT)
    with pytest.raises(NotFound):
        await read(registry, b"layers/0/blob")
