"""What image-spec asks of whoever shows an image, section by section, as nodes over a registry in
memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from ocifs.errors import Malformed, OcifsError, Unsupported
from ocifs.layers.toc.formats import TocFormats
from ocifs.layers.toc.soci import INDEX_DIGEST, LAYER_DIGEST, NAMED
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import parse_manifest
from ocifs.tree.manifest.image_context import image_context
from ocifs.tree.manifest.load import ManifestLocation
from ocifs.tree.manifest.rootfs import UnreadableDirectory
from ocifs.tree.node import Directory, File
from ocifs.tree.rootfs.root import _TreeRoot
from ocifs.tree.walk import walk
from tests.layers.tars import entry, tar
from tests.tree.memory import MemoryRegistry
from tests.tree.test_layertree import names, opened, put_image
from tests.tree.test_semantics import context_of

LAYER = tar(entry("a", content=b"1"))
UNKNOWN = "application/vnd.acme.unknown.v7+json"


def image(
    registry: MemoryRegistry, config: dict[str, object], media_type: str = mediatype.OCI_CONFIG
) -> dict[str, object]:
    return {
        "config": registry.put_blob(json.dumps(config).encode(), media_type),
        "layers": [registry.put_blob(LAYER, mediatype.OCI_LAYER)],
    }


async def content(root: Directory, path: bytes) -> bytes:
    node = await walk(root, path)
    assert isinstance(node, File)
    assert node.attributes.size == len(await node.read(0, 1 << 20))
    return await node.read(0, 1 << 20)


@pytest.mark.parametrize("first", [True, False])
async def test_image_index_manifests_a_child_of_an_unknown_type_changes_nothing(
    first: bool,
) -> None:
    registry = MemoryRegistry()
    machine = {"os": "linux", "architecture": "amd64"}
    child = {
        **registry.put_manifest("app", "", image(registry, {"os": "linux"})),
        "platform": machine,
    }
    other = {
        **registry.put_manifest("app", "", {"x": 1}, "application/vnd.acme.new.v1+json"),
        "platform": machine,
    }
    children = [other, child] if first else [child, other]
    registry.put_manifest("app", "v1", {"manifests": children})
    async with opened(registry) as root:
        assert {b"rootfs", b"layers", b"files", b"config.json"} <= set(await names(root, b""))
        assert await names(root, b"platforms") == [b"linux-amd64"]
        assert await names(root, b"rootfs") == [b"a"]
        assert len(await names(root, b"manifests")) == 2


async def test_children_of_an_unknown_type_are_the_platforms_if_there_are_no_others() -> None:
    registry = MemoryRegistry()
    children = [
        {
            **registry.put_manifest("app", "", {"x": name}, "application/vnd.acme.vm.v1+json"),
            "platform": {"os": name, "architecture": "arm64"},
        }
        for name in ("darwin", "linux")
    ]
    registry.put_manifest("app", "v1", {"manifests": children})
    async with opened(registry) as root:
        assert await names(root, b"platforms") == [b"darwin-arm64", b"linux-arm64"]
        raw = await content(root, b"platforms/darwin-arm64/manifest.json")
        assert json.loads(raw)["x"] == "darwin"


async def test_manifest_config_of_an_unknown_type_is_opaque() -> None:
    registry = MemoryRegistry()
    lies = {
        "created": "2020-01-02T03:04:05Z",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]},
    }
    registry.put_manifest("app", "v1", image(registry, lies, UNKNOWN))
    async with opened(registry) as root:
        assert root.attributes.mtime_ns == 0
        assert await names(root, b"layers/0/tree") == [b"a"]
        config = str(Digest.of(json.dumps(lies).encode()).short)
        assert not [
            asked for asked in registry.asked if asked.startswith("blob") and config in asked
        ]
        assert json.loads(await content(root, b"config.json")) == lies


@pytest.mark.parametrize("size", [None, 0])
async def test_descriptor_size_that_is_missing_or_0_never_shows_other_content(
    size: int | None,
) -> None:
    registry = MemoryRegistry()
    data = b"x" * 10_000
    layer = {**registry.put_blob(data, "application/zip"), "size": size}
    config = {**registry.put_blob(b'{"a": 1}', "application/vnd.acme+json"), "size": size}
    registry.put_manifest("app", "v1", {"config": config, "layers": [layer]})
    async with opened(registry) as root:
        assert await content(root, b"layers/0/blob") == data
        assert await content(root, b"files/layer-0.zip") == data
        assert await content(root, b"config.json") == b'{"a": 1}'
        assert await content(root, b"layers/0/size") == b"10000\n"


@pytest.mark.parametrize("kind", ["layer", "LAYERS", "", "overlay", 5, None])
async def test_config_rootfs_type_that_is_not_layers_is_an_error_of_rootfs(kind: object) -> None:
    registry = MemoryRegistry()
    diff_ids = [f"sha256:{hashlib.sha256(LAYER).hexdigest()}"]
    registry.put_manifest(
        "app", "v1", image(registry, {"rootfs": {"type": kind, "diff_ids": diff_ids}})
    )
    async with opened(registry) as root:
        assert isinstance(await walk(root, b"rootfs"), UnreadableDirectory)
        with pytest.raises(Unsupported, match=r"rootfs\.type"):
            await names(root, b"rootfs")
        assert await names(root, b"layers/0/tree") == [b"a"]
        assert b"rootfs.type" in await content(root, b"summary.txt")


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_config_rootfs_diff_ids_of_another_number_are_reported_once(count: int) -> None:
    registry = MemoryRegistry()
    diff_ids = [f"sha256:{hashlib.sha256(LAYER).hexdigest()}"] * count
    put_image(registry, LAYER, LAYER, diff_ids=diff_ids)
    reported: list[str] = []
    async with opened(registry, report=reported.append) as root:
        assert isinstance(await walk(root, b"rootfs"), _TreeRoot)
        assert reported == []
        for _ in range(2):
            assert await names(root, b"rootfs") == [b"a"]
        [text] = reported
        assert f"the image has 2 layers and {count} diff IDs" in text
        assert text.startswith("app@sha256:")
        assert f"{count} diff IDs".encode() in await content(root, b"summary.txt")


@pytest.mark.parametrize("diff_ids", [["x", "y"], None])
async def test_config_rootfs_diff_ids_of_the_same_number_are_not_reported(
    diff_ids: list[str] | None,
) -> None:
    registry = MemoryRegistry()
    put_image(registry, LAYER, LAYER, diff_ids=diff_ids)
    reported: list[str] = []
    async with opened(registry, report=reported.append) as root:
        await names(root, b"rootfs")
        assert reported == []
        assert b"diff IDs" not in await content(root, b"summary.txt")


async def test_errors_of_a_layer_name_the_layer_and_the_image() -> None:
    registry = MemoryRegistry()
    put_image(registry, LAYER, b"no tar" * 1000, diff_ids=["x", "y"])
    async with opened(registry) as root:
        manifest = (await content(root, b"digest")).decode().strip()
        layer = (await content(root, b"layers/1/digest")).decode().strip()
        for path in (b"rootfs", b"layers/1/tree"):
            with pytest.raises(Malformed, match=f"app@{manifest}.*layer {layer}.*not a tar"):
                await names(root, path)


SOCI_LISTS = "application/vnd.amazon.soci.prefetch.v1+json"


@pytest.mark.parametrize("first", [True, False])
async def test_soci_prefetch_lists_are_not_tables_of_contents(first: bool) -> None:
    """They follow the tables, with the same annotation."""
    registry = MemoryRegistry()
    of = {LAYER_DIGEST: f"sha256:{'1' * 64}"}
    table = registry.put_blob(b"table", mediatype.OCTET_STREAM, annotations=of)
    listed = registry.put_blob(b'{"files": []}', SOCI_LISTS, annotations=of)
    odd = registry.put_blob(b"odd", mediatype.OCTET_STREAM, annotations={LAYER_DIGEST: "no digest"})
    layers = [table, listed, odd] if first else [odd, listed, table]
    config = registry.put_blob(b"{}", NAMED)
    index = registry.put_manifest(
        "app", "", {"config": config, "artifactType": NAMED, "layers": layers}
    )
    raw = json.dumps(
        {**image(registry, {}), "annotations": {INDEX_DIGEST: index["digest"]}}
    ).encode()
    context = context_of(registry)
    where = ManifestLocation(replace(context, view=replace(context.view, soci=True)), "app", "v1")
    context_of_image = image_context(where, parse_manifest(raw, Digest.of(raw)))
    found = await TocFormats().locate(context_of_image)
    assert {str(layer): str(ref.digest) for layer, ref in found.items()} == {
        f"sha256:{'1' * 64}": table["digest"]
    }


@pytest.mark.parametrize(
    "digest", ["blake3:" + "0" * 64, "multihash+base58:" + "Q" * 185, "x:" + "y" * 900]
)
async def test_a_descriptor_of_a_digest_that_cannot_be_checked_is_unreadable_and_the_rest_is_not(
    digest: str,
) -> None:
    registry = MemoryRegistry()
    odd = {"mediaType": "application/zip", "digest": digest, "size": 9}
    good = registry.put_blob(b"good", "application/zip")
    registry.put_manifest(
        "app", "v1", {"config": registry.put_blob(b"{}", "a/b"), "layers": [good, odd]}
    )
    async with opened(registry) as root:
        assert await names(root, b"layers") == [b"0", b"1"]
        assert await content(root, b"layers/0/blob") == b"good"
        assert await content(root, b"layers/1/digest") == f"{digest}\n".encode()
        node = await walk(root, b"layers/1/blob")
        assert isinstance(node, File)
        with pytest.raises(OcifsError):
            await node.read(0, 9)
