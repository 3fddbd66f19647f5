"""What docs/semantics.md promises of names, manifests and requests, over a registry in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ocifs.errors import NotADirectory, NotFound, TooManyLinks, Unreachable, UsageError
from ocifs.layers.service import LayerService
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.platform import Platform
from ocifs.settings import Limits, ViewSettings
from ocifs.tree.base import SymlinkNode
from ocifs.tree.manifest.context import Context
from ocifs.tree.node import Directory, File, Symlink
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.registry.single import open_single
from ocifs.tree.walk import walk
from tests.tree.memory import MemoryRegistry, MemoryShelf

LAYER = mediatype.OCI_LAYER_GZIP


def context_of(registry: MemoryRegistry, **more: object) -> Context:
    view = ViewSettings(platform=Platform("linux", "amd64"))
    layer_service = LayerService(
        registry, MemoryShelf(), None, Limits()
    )  # without a nursery: no layer is unpacked here
    return Context(registry.origin, view, Limits(), lambda: layer_service, **more)


def root_of(registry: MemoryRegistry, path: str = "", **more: object) -> RepositoryDirectory:
    return RepositoryDirectory(context_of(registry, **more), path, "root", repository=bool(path))


def image(registry: MemoryRegistry, name: str = "x", **more: object) -> dict[str, object]:
    config = json.dumps(
        {"created": "2024-05-06T07:08:09.5Z", "os": "linux", "architecture": "amd64", "name": name}
    ).encode()
    return {
        "config": registry.put_blob(config, mediatype.OCI_CONFIG),
        "layers": [registry.put_blob(f"layer of {name}".encode(), LAYER)],
        **more,
    }


@pytest.fixture
def registry() -> MemoryRegistry:
    made = MemoryRegistry()
    made.put_manifest("library/alpine", "3.19", image(made, "a"))
    made.put_manifest("library/alpine", "latest", image(made, "b"))
    made.put_manifest("library/alpine/extra", "v1", image(made, "c"))
    made.put_manifest("team", "v1", image(made, "d"))
    made.asked.clear()
    return made


async def names(root: Directory, path: bytes) -> list[bytes]:
    node = await walk(root, path)
    assert isinstance(node, Directory)
    return [entry.name for entry in await node.entries()]


async def read(root: Directory, path: bytes) -> bytes:
    node = await walk(root, path)
    assert isinstance(node, File)
    return await node.read(0, 1 << 20)


async def test_repositories_are_a_tree_and_only_repositories_have_controls(registry) -> None:
    root = root_of(registry)
    assert await names(root, b"") == [b"library", b"team"]
    assert await names(root, b"library") == [b"alpine"]
    assert await names(root, b"library/alpine") == [b"_tags", b"_manifests", b"_blobs", b"extra"]


async def test_tags_are_links_made_from_the_list_alone(registry) -> None:
    root = root_of(registry)
    node = await walk(root, b"library/alpine/_tags")
    assert isinstance(node, Directory)
    registry.asked.clear()
    targets = {
        entry.name: entry.node.target
        for entry in await node.entries()
        if isinstance(entry.node, Symlink)
    }
    assert targets == {b"3.19": b"../_manifests/3.19", b"latest": b"../_manifests/latest"}
    for name in targets:
        await walk(root, b"library/alpine/_manifests/" + name)
    assert [question for question in registry.asked if question != "catalog"] == [
        "tags library/alpine"
    ]


async def test_a_walk_that_follows_no_links_asks_for_names_only(registry) -> None:
    async def visit(directory: Directory) -> None:
        for entry in await directory.entries():
            if isinstance(entry.node, Directory):
                await visit(entry.node)

    await visit(root_of(registry))
    assert {question.split()[0] for question in registry.asked} == {"catalog", "tags"}


async def test_every_reference_is_a_path(registry) -> None:
    root = root_of(registry)
    digest = registry.known["library/alpine"]["3.19"]
    body = registry.content[digest][1]
    for path in (
        "library/alpine/_tags/3.19",
        "library/alpine:3.19",
        f"library/alpine@{digest}",
        f"library/alpine:latest@{digest}",
        f"library/alpine/_manifests/{digest}",
    ):
        assert await read(root, f"{path}/manifest.json".encode()) == body, path


@pytest.mark.parametrize(
    "path",
    [
        "library/alpine:nope",
        "library/alpine:-bad",
        "library/alpine@sha256:zz",
        "library/alpine@" + str(Digest.of(b"nobody")),
        "library/nobody",
        "library/alpine/_tags/nope",
        "library/alpine/_manifests/nope",
        "library/alpine/_blobs/nope",
        "library/alpine/_tags/latest/nope",
        "library/alpine/_tags/latest/layers/1",
        "library/alpine/_tags/latest/layers/00",
        "library/alpine/_tags/latest/layers/\u00b2",
    ],
)
async def test_what_the_registry_does_not_know_is_absent(registry, path: str) -> None:
    with pytest.raises(NotFound):
        await walk(root_of(registry), path.encode())


@pytest.mark.parametrize(
    "name", [b".git", b"Makefile", b"_private", b"a..b", b"caf\xc3\xa9", b"a" * 256, b"-x", b"x-"]
)
@pytest.mark.parametrize("lists_catalog", [True, False])
async def test_what_cannot_be_a_repository_is_absent_without_a_request(
    registry, name: bytes, lists_catalog: bool
) -> None:
    registry.lists_catalog = lists_catalog
    with pytest.raises(NotFound):
        await walk(root_of(registry), name)
    assert registry.asked == []


async def test_without_a_catalog_any_valid_name_is_entered_and_what_was_visited_is_listed(
    registry,
) -> None:
    registry.lists_catalog = False
    root = root_of(registry)
    assert await names(root, b"") == []
    assert await names(root, b"library/alpine/_tags") == [b"3.19", b"latest"]
    assert await names(root, b"") == [b"library"]
    await walk(root, b"library/nobody")
    with pytest.raises(NotFound):
        await names(root, b"library/nobody/_tags")


async def test_a_name_that_the_catalog_does_not_list_is_asked_for(registry) -> None:
    root = root_of(registry)
    hidden = registry.known.pop("team")
    assert await names(root, b"") == [b"library"]
    registry.known["team"] = hidden

    async def without_team() -> tuple[str, ...]:
        return ("library/alpine",)

    registry.repositories = without_team
    assert await names(root, b"team/_tags") == [b"v1"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "library",
        "library/alpine/_tags",
        "library/alpine/_manifests/3.19/digest",
        "library/alpine:3.19",
    ],
)
async def test_an_outage_is_never_absence(registry, path: str) -> None:
    registry.down = Unreachable("the cable is cut")
    with pytest.raises(Unreachable):
        await names(root_of(registry), path.encode())


async def test_a_tags_directory_keeps_the_manifest_that_it_was_bound_to(registry) -> None:
    root = root_of(registry)
    manifests = await walk(root, b"library/alpine/_manifests")
    assert isinstance(manifests, Directory)
    first = await manifests.lookup(b"latest")
    before = await read(first, b"manifest.json")
    registry.put_manifest("library/alpine", "latest", image(registry, "moved"))
    assert await read(first, b"manifest.json") == before
    second = await manifests.lookup(b"latest")
    assert second.key != first.key
    assert await read(second, b"manifest.json") != before
    assert await read(first, b"digest") == f"{Digest.of(before)}\n".encode()
    assert (await manifests.lookup(b"latest")).key == second.key


async def test_a_listed_tag_is_unbound_until_it_is_used(registry) -> None:
    root = root_of(registry)
    manifests = await walk(root, b"library/alpine/_manifests")
    await names(root, b"library/alpine/_tags")
    registry.asked.clear()
    assert isinstance(manifests, Directory)
    unbound = await manifests.lookup(b"latest")
    assert unbound.attribute_names()
    assert registry.asked == []
    assert (await manifests.lookup(b"latest")).key == unbound.key
    await read(unbound, b"kind")
    assert (await manifests.lookup(b"latest")).key == unbound.key


async def test_a_listed_tag_that_is_gone_is_absent_when_it_is_used_and_later_when_looked_up(
    registry, autojump_clock
) -> None:
    root = root_of(registry, tag_ttl=60)
    await names(root, b"library/alpine/_tags")
    del registry.known["library/alpine"]["latest"]
    unbound = await walk(root, b"library/alpine/_manifests/latest")
    with pytest.raises(NotFound):
        await read(unbound, b"kind")
    await trio.sleep(61)
    with pytest.raises(NotFound):
        await walk(root, b"library/alpine/_manifests/latest")


async def test_an_images_directory_shows_what_the_page_says(registry) -> None:
    root = root_of(registry)
    registry.put_manifest(
        "app",
        "v1",
        image(registry, "app", annotations={"a/b": "1\n", "..": "2", "org.example": "3"}),
    )
    base = b"app/_tags/v1/"
    assert await names(root, base) == [
        b"manifest.json", b"digest", b"media-type", b"artifact-type", b"kind", b"size",
        b"summary.txt",
        b"annotations",
        b"config.json", b"config.media-type", b"config.digest", b"layers", b"rootfs", b"files",
        b"referrers",
    ]  # fmt: skip
    assert await read(root, base + b"kind") == b"image\n"
    assert await read(root, base + b"media-type") == f"{mediatype.OCI_MANIFEST}\n".encode()
    assert await read(root, base + b"layers/0/blob") == b"layer of app"
    assert await read(root, base + b"layers/0/size") == b"12\n"
    shown = {
        name: await read(root, base + b"annotations/" + name)
        for name in await names(root, base + b"annotations")
    }
    assert sorted(shown.values()) == [b"1\n", b"2", b"3"]
    assert all(b"/" not in name and name not in (b".", b"..") for name in shown)
    assert (await walk(root, base + b"manifest.json")).attributes.mtime_ns == 1714979289_500000000


async def test_listing_fetches_manifest_and_config_and_no_layer(registry) -> None:
    root = root_of(registry)
    await names(root, b"library/alpine/_manifests/latest/layers/0")
    layer = registry.put_blob(b"layer of b", LAYER)
    assert not any(
        Digest.parse(str(layer["digest"])).short in question for question in registry.asked
    )
    fetched = {
        question
        for question in registry.asked
        if question.startswith(("tagged", "manifest", "blob"))
    }
    assert (
        len(fetched) == 2
    )  # each may be asked for again: a cache stands before a registry, none before this one


async def test_the_same_blob_is_one_file_and_a_directory_has_one_parent(registry) -> None:
    root = root_of(registry)
    by_tag = await walk(root, b"library/alpine/_manifests/latest")
    digest = registry.known["library/alpine"]["latest"]
    by_digest = await walk(root, f"library/alpine/_manifests/{digest}".encode())
    assert by_tag.key != by_digest.key
    assert (await walk(by_tag, b"layers/0/blob")).key == (
        await walk(by_digest, b"layers/0/blob")
    ).key
    assert (await walk(by_tag, b"layers")).key != (await walk(by_digest, b"layers")).key
    layer = json.loads(registry.content[digest][1])["layers"][0]["digest"]
    assert (await walk(root, f"library/alpine/_blobs/{layer}".encode())).key == (
        await walk(by_tag, b"layers/0/blob")
    ).key


async def test_an_index_has_its_children_and_stands_for_one_platform(registry) -> None:
    children = [
        {**registry.put_manifest("app", "", image(registry, name)), "platform": platform}
        for name, platform in (
            ("arm", {"os": "linux", "architecture": "arm64", "variant": "v8"}),
            ("amd", {"os": "linux", "architecture": "amd64"}),
            ("twin", {"os": "linux", "architecture": "amd64"}),
            ("attest", {"os": "unknown", "architecture": "unknown"}),
        )
    ]
    index = registry.put_manifest("app", "v1", {"manifests": children, "subject": children[0]})
    root = root_of(registry)
    base = b"app/_manifests/v1/"
    assert await read(root, base + b"kind") == b"image-index\n"
    assert await names(root, base + b"manifests") == [b"0", b"1", b"2", b"3"]
    platforms = await names(root, base + b"platforms")
    assert platforms[:2] == [b"linux-arm64-v8", b"linux-amd64"]
    assert len(platforms) == len(set(platforms)) == 3
    for n, child in enumerate(children):
        assert (
            await read(root, base + b"manifests/%d/digest" % n) == f"{child['digest']}\n".encode()
        )
    assert await read(root, base + b"layers/0/blob") == b"layer of amd"
    assert await read(root, base + b"subject/digest") == f"{children[0]['digest']}\n".encode()
    single = await open_single(context_of(registry), "app", Digest.parse(str(index["digest"])))
    assert await read(single, b"platforms/linux-arm64-v8/layers/0/blob") == b"layer of arm"
    assert await read(single, b"subject/digest") == f"{children[0]['digest']}\n".encode()
    assert await names(single, b"_manifests") == []


@pytest.mark.parametrize("view", ["rootfs", "layers", "files"])
async def test_an_index_without_the_platform_that_is_meant_says_which_it_has(
    registry, view: str
) -> None:
    machines = (
        {"os": "linux", "architecture": "arm", "variant": "v7"},
        {"os": "windows", "architecture": "amd64", "os.version": "10.0"},
    )
    children = [
        {**registry.put_manifest("app", "", image(registry, str(each))), "platform": each}
        for each in machines
    ]
    registry.put_manifest("app", "many", {"manifests": children})
    with pytest.raises(NotFound, match="no child of the index is for linux/amd64") as raised:
        await walk(root_of(registry), b"app:many/" + view.encode())
    assert raised.value.hint == "choose with --platform: linux/arm/v7, windows(10.0)/amd64"
    shown = ViewSettings(platform=Platform("linux", "amd64"), view=view)
    with pytest.raises(UsageError, match="no child of the index is for linux/amd64"):
        await open_single(replace(context_of(registry), view=shown), "app", "many")
    with pytest.raises(NotFound, match="no 'other'"):
        await walk(root_of(registry), b"app:many/other")


async def test_files_have_the_names_that_a_person_wants(registry) -> None:
    def layer(content: bytes, title: str) -> dict[str, object]:
        return registry.put_blob(
            content, "text/plain", annotations={"org.opencontainers.image.title": title}
        )

    titles = ["notes.txt", "docs/a.md", "docs/b/c.md", "/abs", "../up", "notes.txt"]
    layers = [layer(f"{n}".encode(), title) for n, title in enumerate(titles)]
    empty = registry.put_blob(b"{}", mediatype.OCI_EMPTY)
    registry.put_manifest(
        "app",
        "v1",
        {"artifactType": "application/vnd.example", "config": empty, "layers": [*layers, empty]},
    )
    root = root_of(registry)
    base = b"app/_tags/v1/files"
    registry.asked.clear()
    top = await names(root, base)
    assert not any(question.startswith("blob") for question in registry.asked)
    assert {b"notes.txt", b"docs", b"abs"} < set(top)
    assert len(top) == 5
    assert await read(root, base + b"/docs/b/c.md") == b"2"
    assert await read(root, base + b"/notes.txt") == b"0"
    up = next(
        name
        for name in top
        if name not in (b"notes.txt", b"docs", b"abs") and not name.startswith(b"notes")
    )
    assert await names(root, base + b"/" + up) == [b"up"]
    assert (await walk(root, base + b"/abs")).key == (
        await walk(root, b"app/_tags/v1/layers/3/blob")
    ).key


async def test_a_charts_archive_is_called_after_the_chart(registry) -> None:
    config = registry.put_blob(
        b'{"name": "podinfo", "version": "6.5.0"}', "application/vnd.cncf.helm.config.v1+json"
    )
    layer = registry.put_blob(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    registry.put_manifest("charts/podinfo", "6.5.0", {"config": config, "layers": [layer]})
    root = root_of(registry)
    assert await read(root, b"charts/podinfo:6.5.0/files/podinfo-6.5.0.tgz") == b"chart"
    assert await read(root, b"charts/podinfo:6.5.0/kind") == b"helm-chart\n"


async def test_referrers_are_found_by_both_systems_and_lead_to_their_manifests(registry) -> None:
    subject = registry.put_manifest("app", "v1", image(registry))
    sbom = registry.put_manifest(
        "app",
        "",
        {**image(registry, "sbom"), "artifactType": "application/spdx+json", "subject": subject},
    )
    digest = str(subject["digest"])
    signature = registry.put_manifest(
        "app", digest.replace(":", "-") + ".sig", image(registry, "sig")
    )
    root = root_of(registry)
    base = b"app/_tags/v1/referrers"
    assert b"cosign-signature" in await names(root, base)
    for kind in await names(root, base):
        (short,) = await names(root, base + b"/" + kind)
        expected = signature if kind == b"cosign-signature" else sbom
        assert (
            await read(root, base + b"/" + kind + b"/" + short + b"/digest")
            == f"{expected['digest']}\n".encode()
        )
    single = await open_single(context_of(registry), "app", "v1")
    assert await names(single, b"referrers") == await names(root, base)
    (short,) = await names(single, b"referrers/cosign-signature")
    assert await read(single, b"referrers/cosign-signature/" + short + b"/kind")
    with pytest.raises(NotFound):
        await names(root, base + b"/helm-chart")


async def test_links_stay_inside_in_every_kind_of_mount(registry) -> None:
    child = {
        **registry.put_manifest("app", "", image(registry)),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    registry.put_manifest("app", "v1", {"manifests": [child], "subject": child})

    async def links(directory: Directory, depth: int) -> list[tuple[bytes, int]]:
        found = []
        for entry in await directory.entries():
            if isinstance(entry.node, Symlink):
                found.append((entry.node.target, depth))
            elif isinstance(entry.node, Directory):
                found += await links(entry.node, depth + 1)
        return found

    for target, depth in await links(await open_single(context_of(registry), "app", "v1"), 0):
        assert not target.startswith(b"/")
        assert target.split(b"/").count(b"..") <= depth


async def test_an_ambiguous_manifest_is_shown_raw(registry) -> None:
    registry.put_manifest("app", "odd", {**image(registry), "manifests": []})
    shown = await names(root_of(registry), b"app/_tags/odd")
    assert b"layers" not in shown and b"manifests" not in shown
    assert b"manifest.json" in shown


async def test_schema_1_layers_have_their_sizes_asked_for(registry) -> None:
    layer = registry.put_blob(b"old layer", LAYER)
    body = {"schemaVersion": 1, "fsLayers": [{"blobSum": layer["digest"]}], "history": []}
    registry.put_manifest(
        "old", "v1", {**body, "mediaType": mediatype.DOCKER_SCHEMA1}, mediatype.DOCKER_SCHEMA1
    )
    root = root_of(registry)
    assert await read(root, b"old/_tags/v1/layers/0/blob") == b"old layer"
    assert await read(root, b"old/_tags/v1/layers/0/size") == b"9\n"


async def test_paths_go_through_directories_only_and_links_end(registry) -> None:
    root = root_of(registry)
    with pytest.raises(NotADirectory):
        await walk(root, b"team/_tags/v1/digest/x")
    assert await walk(root, b"../../team/..") is root

    class Loop(RepositoryDirectory):
        async def lookup(self, name: bytes):
            return SymlinkNode("loop", name)

    with pytest.raises(TooManyLinks):
        await walk(Loop(context_of(registry), "", "loop-root"), b"x")


def test_the_page_lists_the_names_that_are_tested_here() -> None:
    page = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text()
    for name in (
        "manifest.json",
        "config.media-type",
        "summary.txt",
        "platforms/linux-amd64",
        "_manifests",
        "user.oci.digest",
    ):
        assert name in page
