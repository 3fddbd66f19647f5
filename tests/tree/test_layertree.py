"""`rootfs/` and `layers/N/tree/` as nodes, over a registry in memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from ocifs.errors import IntegrityError, Malformed, NoAttribute, NotFound, RegistryFailed
from ocifs.layers.merge import root_attributes as roots
from ocifs.layers.service import LayerService
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.platform import Platform
from ocifs.settings import Limits, ViewSettings
from ocifs.tree.manifest.context import Context
from ocifs.tree.node import Directory, File, Node, Symlink
from ocifs.tree.registry.single import open_single
from ocifs.tree.walk import walk
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, tar
from tests.tree.memory import MemoryRegistry, MemoryShelf

LOWER = tar(
    entry(
        "./",
        DIRECTORY,
        mode=0o751,
        mtime=7,
        uid=3,
        gid=4,
        pax_headers={"SCHILY.xattr.user.root": "r"},
    ),
    entry("etc/passwd", content=b"root\n", uid=5, gid=6, pax_headers={"SCHILY.xattr.user.a": "b"}),
    entry("usr/lib/os-release", content=b"name\n"),
    entry("etc/os-release", SYMLINK, linkname="../usr/lib/os-release"),
    entry("etc/mtab", SYMLINK, linkname="/proc/mounts"),
    entry("etc/up", SYMLINK, linkname="../../../../etc/passwd"),
    entry("etc/out/", SYMLINK, linkname="/"),
    entry("old", content=b"old"),
    entry("n" * 300, content=b"long"),
)
UPPER = tar(
    entry(".wh.old"),
    entry("etc/shadow", HARDLINK, linkname="etc/passwd"),
    entry("etc/a", content=b"a"),
)


def put_image(
    registry: MemoryRegistry, *tars: bytes, diff_ids: list[str] | None = None, media_type: str = ""
) -> None:
    named = (
        [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in tars]
        if diff_ids is None
        else diff_ids
    )
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": named},
    }
    kind = media_type or mediatype.OCI_LAYER_GZIP
    image = {
        "config": registry.put_blob(json.dumps(config).encode(), mediatype.OCI_CONFIG),
        "layers": [registry.put_blob(gzip.compress(each, mtime=0), kind) for each in tars],
    }
    registry.put_manifest("app", "v1", image)


@asynccontextmanager
async def opened(
    registry: MemoryRegistry,
    shelf: MemoryShelf | None = None,
    report: Callable[[str], None] | None = None,
    **view: object,
) -> AsyncIterator[Directory]:
    """The directory of app:v1."""
    async with trio.open_nursery() as nursery:
        layer_service = LayerService(registry, shelf or MemoryShelf(), nursery, Limits())
        shown = ViewSettings(platform=Platform("linux", "amd64"), **view)
        context = Context(registry.origin, shown, Limits(), lambda: layer_service)
        yield await open_single(
            context if report is None else replace(context, report=report), "app", "v1"
        )
        nursery.cancel_scope.cancel()


async def names(root: Directory, path: bytes) -> list[bytes]:
    node = await walk(root, path)
    assert isinstance(node, Directory)
    return sorted([entry.name for entry in await node.entries()])


async def target(root: Directory, path: bytes) -> bytes:
    where, _, name = path.rpartition(b"/")
    directory = await walk(root, where)
    assert isinstance(directory, Directory)
    node: Node = await directory.lookup(name)
    assert isinstance(node, Symlink)
    assert node.attributes.size == len(node.target)
    return node.target


@pytest.fixture
def registry() -> MemoryRegistry:
    made = MemoryRegistry()
    put_image(made, LOWER, UPPER)
    return made


async def test_layers_are_laid_over_each_other_and_shown_alone(registry) -> None:
    async with opened(registry) as root:
        long = next(name for name in await names(root, b"rootfs") if name.startswith(b"nnn"))
        assert len(long) <= 255
        assert await names(root, b"rootfs") == sorted([b"etc", b"usr", long])
        assert b"old" in await names(root, b"layers/0/tree")
        assert await names(root, b"layers/1/tree") == [b"etc"]
        assert await target(root, b"layers/1/tree/etc/shadow") == b"../etc/passwd"
        file = await walk(root, b"rootfs/" + long)
        assert isinstance(file, File)
        assert await file.read(0, 10) == b"long"
        for path in (
            b"rootfs/old",
            b"rootfs/.wh.old",
            b"rootfs/" + b"n" * 300,
            b"layers/1/tree/.wh.old",
        ):
            with pytest.raises(NotFound):
                await walk(root, path)


async def test_nothing_is_fetched_before_somebody_looks_inside(registry) -> None:
    async with opened(registry) as root:
        for path in (b"rootfs", b"layers/0/tree"):
            node = await walk(root, path)
            assert node.attributes.mode == stat.S_IFDIR | 0o755
            for name in (b"system.posix_acl_access", b"user.root"):  # ls -l asks for the first
                with pytest.raises(NoAttribute):
                    await node.attribute(name)
        config = json.loads(registry.content[registry.known["app"]["v1"]][1])["config"]["digest"]
        assert [each for each in registry.asked if each.startswith("blob")] == [
            f"blob {config[7:19]}"
        ]
        rootfs = await walk(root, b"rootfs")
        assert rootfs.lifetime == 0
        await names(root, b"rootfs")
        assert (rootfs.attributes.mode, rootfs.attributes.mtime_ns) == (
            stat.S_IFDIR | 0o751,
            7 * 10**9,
        )


@pytest.mark.parametrize(("owner", "soci"), [("user", False), ("keep", False), ("user", True)])
@pytest.mark.parametrize("path", [b"rootfs", b"layers/0/tree"], ids=bytes.decode)
async def test_a_root_that_was_looked_into_once_is_known_without_a_look(
    registry, path: bytes, owner: str, soci: bool
) -> None:
    shelf = MemoryShelf()
    async with opened(registry, shelf, owner=owner, soci=soci) as root:
        first = await walk(root, path)
        guessed = first.attributes
        await first.load_attributes()
        known = first.attributes
        assert (known.mode, known.mtime_ns) == (stat.S_IFDIR | 0o751, 7 * 10**9)
        assert known.ctime_ns == guessed.ctime_ns == guessed.mtime_ns
        assert (known.uid, known.gid) == ((3, 4) if owner == "keep" else (None, None))
        assert known.nlink == (await walk(root, path)).attributes.nlink == 4
    for kind, key in [each for each in shelf.things if each[0] != roots.KIND]:
        del shelf.things[kind, key]
    async with opened(registry, shelf, owner=owner, soci=soci) as root:
        asked = len(registry.asked)
        again = await walk(root, path)
        assert again.attributes == known
        assert (again.attributes_known, list(again.attribute_names())) == (True, [b"user.root"])
        assert await again.attribute(b"user.root") == b"r"
        assert [
            each for each in registry.asked[asked:] if each.startswith(("blob", "referrers"))
        ] == []


async def test_a_damaged_root_is_a_guess_again(registry) -> None:
    shelf = MemoryShelf()
    async with opened(registry, shelf) as root:
        await names(root, b"rootfs")
    for place in [each for each in shelf.things if each[0] == roots.KIND]:
        shelf.things[place] = shelf.things[place].replace(b'"names": 4', b'"names": 5')
    async with opened(registry, shelf) as root:
        assert not (await walk(root, b"rootfs")).attributes_known
        await names(root, b"rootfs")
        assert (await walk(root, b"rootfs")).attributes.nlink == 4


async def test_names_of_one_file_are_one_inode(registry) -> None:
    async with opened(registry) as root:
        one, other = await walk(root, b"rootfs/etc/passwd"), await walk(root, b"rootfs/etc/shadow")
        assert one.key == other.key
        assert one.attributes.nlink == 2
        alone = await walk(root, b"layers/0/tree/etc/passwd")
        assert (alone.attributes.nlink, alone.key != one.key) == (1, True)


async def test_owners_are_the_mounting_users_unless_kept(registry) -> None:
    async with opened(registry) as root:
        assert (await walk(root, b"rootfs/etc/passwd")).attributes.uid is None
    async with opened(registry, owner="keep") as root:
        shown = (await walk(root, b"rootfs/etc/passwd")).attributes
        assert (shown.uid, shown.gid) == (5, 6)


async def test_links_stay_inside_unless_raw(registry) -> None:
    expected = {
        b"os-release": (b"../usr/lib/os-release", b"../usr/lib/os-release"),
        b"mtab": (b"../proc/mounts", b"/proc/mounts"),
        b"up": (b"../etc/passwd", b"../../../../etc/passwd"),
        b"out": (b"..", b"/"),
    }
    for links, place in (("inside", 0), ("raw", 1)):
        async with opened(registry, links=links) as root:
            for name, shown in expected.items():
                assert await target(root, b"rootfs/etc/" + name) == shown[place]


async def test_extended_attributes_are_the_layers(registry) -> None:
    async with opened(registry) as root:
        node = await walk(root, b"rootfs/etc/passwd")
        assert list(node.attribute_names()) == [b"user.a"]
        assert await node.attribute(b"user.a") == b"b"
        with pytest.raises(NoAttribute):
            await node.attribute(b"user.b")


async def test_only_extended_attributes_that_a_file_can_have_are_shown() -> None:
    fine = {
        "user.a": "1",
        "trusted.b": "2",
        "security.c": "3",
        f"user.{'n' * 250}": "4",
        "user.full": "v" * 65_536,
    }
    none = {
        "com.apple.quarantine": "q",
        "user.": "e",
        f"user.{'n' * 251}": "l",
        "user.fuller": "v" * 65_537,
    }
    many = {f"user.{number:04}{'n' * 200}": "" for number in range(400)}
    registry = MemoryRegistry()
    files = [("some", {**none, **fine}), ("many", {**many, "user.last": "l"})]
    entries = [
        entry(name, pax_headers={f"SCHILY.xattr.{each}": value for each, value in xattrs.items()})
        for name, xattrs in files
    ]
    put_image(registry, tar(*entries))
    async with opened(registry) as root:
        some, many_of = await walk(root, b"rootfs/some"), await walk(root, b"rootfs/many")
        assert {name: await some.attribute(name) for name in some.attribute_names()} == {
            name.encode(): value.encode() for name, value in fine.items()
        }
        for name in none:
            with pytest.raises(NoAttribute):
                await some.attribute(name.encode())
        assert sum(len(name) + 1 for name in many_of.attribute_names()) <= 65_536
        assert (
            list(many_of.attribute_names())
            == [name.encode() for name in many][: len(many_of.attribute_names())]
            != []
        )


async def test_a_config_that_names_another_tar_is_believed_before_the_layer() -> None:
    registry = MemoryRegistry()
    put_image(registry, LOWER, diff_ids=[f"sha256:{'0' * 64}"])
    async with opened(registry) as root:
        with pytest.raises(IntegrityError):
            await names(root, b"rootfs")


async def test_a_config_with_another_number_of_diff_ids_is_no_witness() -> None:
    registry = MemoryRegistry()
    put_image(registry, LOWER, diff_ids=[f"sha256:{'0' * 64}"] * 2)
    async with opened(registry) as root:
        assert b"etc" in await names(root, b"rootfs")


async def test_what_is_no_tar_is_an_error_inside_and_still_a_blob() -> None:
    registry = MemoryRegistry()
    put_image(registry, b"no tar at all" * 100)
    async with opened(registry) as root:
        for path in (b"rootfs", b"layers/0/tree"):
            with pytest.raises(Malformed):
                await names(root, path)
        blob = await walk(root, b"layers/0/blob")
        assert isinstance(blob, File)
        assert gzip.decompress(await blob.read(0, 10_000)) == b"no tar at all" * 100


@pytest.mark.parametrize(
    "path", [b"rootfs", b"rootfs/old", b"rootfs/etc/a", b"rootfs/not/there", b"layers/1/tree/etc/a"]
)
async def test_a_layer_that_is_gone_is_no_absence_of_what_is_in_it(registry, path: bytes) -> None:
    layers = json.loads(registry.content[registry.known["app"]["v1"]][1])["layers"]
    del registry.content[Digest.parse(layers[1]["digest"])]
    async with opened(registry) as root:
        with pytest.raises(RegistryFailed, match="missing layer"):
            node = await walk(root, path)
            await node.load_attributes()
        assert await names(root, b"layers/0/tree")


async def test_a_layer_that_goes_after_it_was_looked_into_is_no_absence_either(registry) -> None:
    layers = json.loads(registry.content[registry.known["app"]["v1"]][1])["layers"]
    shelf = MemoryShelf()
    async with opened(registry, shelf) as root:
        await names(root, b"rootfs")
    del registry.content[Digest.parse(layers[0]["digest"])]
    async with opened(registry, shelf) as root:
        file = await walk(root, b"rootfs/etc/passwd")
        assert isinstance(file, File)
        with pytest.raises(RegistryFailed, match="missing layer"):
            await file.read(0, 10)
        with pytest.raises(NotFound):
            await walk(root, b"rootfs/etc/nothing")


async def test_a_layer_of_another_type_has_no_tree() -> None:
    registry = MemoryRegistry()
    put_image(registry, LOWER, media_type="application/vnd.example.thing")
    async with opened(registry) as root:
        assert b"tree" not in await names(root, b"layers/0")
