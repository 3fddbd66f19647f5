"""Every path of every tree, compared with what the model says: in memory for many worlds, through
real mounts for one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings

from ocifs.layers.service import LayerService
from ocifs.oci.platform import Platform
from ocifs.settings import Limits, ViewSettings
from ocifs.tree.manifest.context import Context
from ocifs.tree.node import Directory, File, Node, Symlink
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.walk import walk
from tests.model.model import (
    Anything,
    Artifact,
    Index,
    Layer,
    Thing,
    To,
    Tree,
    World,
    digest_of,
    encode,
    manifest_tree,
    registry_tree,
    repository_tree,
)
from tests.model.worlds import to_layout, to_memory, to_registry, with_parts, worlds
from tests.support.mount import mounted
from tests.support.registry import running_registry
from tests.tree.memory import MemoryShelf

PLATFORM = ("--platform", "linux/amd64")
ONE = Artifact(
    "application/vnd.example.thing",
    (Layer("a/b.txt", b"bee"), Layer("c", b"")),
    {"x": "ü\n"},
    b'{"a": 1}',
)
OTHER = Artifact("application/vnd.example.other", (Layer("c", b"sea"),))
BOTH = Index(((ONE, ("linux", "amd64")), (OTHER, ("linux", "arm64")), (OTHER, None)), {"x": "y"})
PUSHED: dict[str, dict[str, Thing]] = {
    "app": {"v1": ONE, "v2": OTHER, "all": BOTH},
    "app/api": {"v1": OTHER},
    "team/thing_x": {"_odd": ONE},
}


def referrers_in(world: World, thing: Thing) -> list[Artifact]:
    """What refers to a manifest, each once; the registry in memory keeps repositories no further
    apart.
    """
    found = {
        encode(each): each
        for _, _, each in with_parts(world)
        if isinstance(each, Artifact) and each.subject
    }
    return [
        each
        for each in found.values()
        if each.subject is not None and encode(each.subject) == encode(thing)
    ]


def expected(world: World) -> tuple[Tree, dict[str, Tree]]:
    """The tree that is listed, and the directories of manifests that are entered by name."""
    entered = {}
    for repository, tag, thing in with_parts(world):
        tree = manifest_tree(thing, referrers_in(world, thing))
        for version in (tag, digest_of(encode(thing))):
            if version:
                entered[f"{repository}/_manifests/{version}"] = tree
    return registry_tree(world), entered


async def seen(node: Node) -> Tree | To | bytes:
    if isinstance(node, Symlink):
        return To(os.fsdecode(node.target))
    if isinstance(node, Directory):
        return {os.fsdecode(entry.name): await seen(entry.node) for entry in await node.entries()}
    assert isinstance(node, File)
    return await node.read(0, 1 << 20)


def seen_by_everybody(path: Path) -> Tree | To | bytes:
    """As `seen`, through the kernel."""
    if path.is_symlink():
        return To(os.readlink(path))
    if path.is_dir():
        return {
            each.name: seen_by_everybody(each) for each in path.iterdir() if each.name != ".ocifs"
        }
    content = path.read_bytes()
    if path.stat().st_size != len(content):
        raise AssertionError(f"{path} has {len(content)} bytes and says {path.stat().st_size}")
    return content


@given(worlds)
@settings(max_examples=60, deadline=None)
def test_the_whole_tree_is_what_the_model_says(world: World) -> None:
    listed, entered = expected(world)

    async def compare() -> None:
        registry = to_memory(world)
        view = ViewSettings(platform=Platform("linux", "amd64"))
        layer_service = LayerService(
            registry, MemoryShelf(), None, Limits()
        )  # no layer here is a tar
        root = RepositoryDirectory(
            Context(registry.origin, view, Limits(), lambda: layer_service),
            "",
            "root",
            repository=False,
        )
        assert await seen(root) == listed
        for path, tree in entered.items():
            assert await seen(await walk(root, path.encode())) == tree, path
            for (
                name,
                content,
            ) in tree.items():  # what is listed is found, and is the same kind of thing
                found = kind_of(await walk(root, f"{path}/{name}".encode(), follow=False))
                assert found is (bytes if isinstance(content, Anything) else type(content)), (
                    f"{path}/{name}"
                )

    trio.run(compare)
    assert entered or not world


def kind_of(node: Node) -> type:
    return To if isinstance(node, Symlink) else dict if isinstance(node, Directory) else bytes


@pytest.mark.mount
@pytest.mark.servers
def test_a_mounted_registry_is_what_the_model_says(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as registry:
        to_registry(PUSHED, registry)
        listed, entered = expected(PUSHED)
        with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", PLATFORM) as mount:
            assert seen_by_everybody(mount.path) == listed
            for path, tree in entered.items():
                assert seen_by_everybody(mount.path / path) == tree, path


@pytest.mark.mount
def test_a_mounted_layout_is_what_the_model_says(tmp_path: Path) -> None:
    to_layout(PUSHED["app"], tmp_path / "layout")
    _, entered = expected({"app": PUSHED["app"]})
    with mounted(
        f"oci:{tmp_path / 'layout'}", tmp_path / "mnt", tmp_path / "cache", PLATFORM
    ) as mount:
        assert seen_by_everybody(mount.path) == repository_tree(PUSHED["app"])
        for path, tree in entered.items():
            assert seen_by_everybody(mount.path / path.removeprefix("app/")) == tree, path
