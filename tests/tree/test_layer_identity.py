"""Which names of layers are one inode, and where hard links of a single layer lead."""

from __future__ import annotations

import posixpath

import pytest

from ocifs.tree.node import Symlink
from ocifs.tree.walk import walk
from tests.layers.tars import DIRECTORY, HARDLINK, entry, tar
from tests.tree.memory import MemoryRegistry
from tests.tree.test_layertree import opened, put_image

TWICE = tar(entry("f", content=b"1"), entry("f2", HARDLINK, linkname="f"))
BETWEEN = tar(entry("g", HARDLINK, linkname="f"), entry("g2", HARDLINK, linkname="f"))


async def test_the_same_layer_twice_has_files_of_its_own_each_time() -> None:
    registry = MemoryRegistry()
    put_image(registry, TWICE, BETWEEN, TWICE)
    async with opened(registry) as root:
        nodes = {name: await walk(root, b"rootfs/" + name) for name in (b"f", b"f2", b"g", b"g2")}
        assert nodes[b"f"].key == nodes[b"f2"].key != nodes[b"g"].key == nodes[b"g2"].key
        assert {node.attributes.nlink for node in nodes.values()} == {2}


async def test_the_same_layer_twice_keeps_the_files_of_one_name_apart() -> None:
    registry = MemoryRegistry()
    single = tar(entry("f", content=b"1"))
    put_image(registry, single, tar(entry("g", HARDLINK, linkname="f")), single)
    async with opened(registry) as root:
        f, g = await walk(root, b"rootfs/f"), await walk(root, b"rootfs/g")
        assert f.key != g.key
        assert f.slot is not None
        assert g.slot is not None
        assert f.slot.inode_range.key != g.slot.inode_range.key


@pytest.mark.parametrize("links", ["raw", "inside"])
async def test_hard_links_of_hard_links_in_one_layers_tree_lead_to_the_file(links: str) -> None:
    registry = MemoryRegistry()
    upper = tar(
        entry("h", HARDLINK, linkname="a/f"),
        entry("b/c/h2", HARDLINK, linkname="h"),
        entry("b/c/a", DIRECTORY),
        entry("b/c/a/f", content=b"another file"),
    )
    put_image(registry, tar(entry("a/f", content=b"1")), upper)
    async with opened(registry, links=links) as root:
        found = [
            (path, await walk(root, b"layers/1/tree/" + path, follow=False))
            for path in (b"h", b"b/c/h2")
        ]
        for path, node in found:
            assert isinstance(node, Symlink)
            assert (
                posixpath.normpath(posixpath.join(posixpath.dirname(path), node.target)) == b"a/f"
            )
        assert found[0][1].key != found[1][1].key  # their text differs
