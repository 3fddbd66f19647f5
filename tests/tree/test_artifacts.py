"""What the directories of artifacts, indexes and old manifests have, over a registry in memory."""

from __future__ import annotations

import gzip
import json

import pytest

from ocifs.errors import Malformed, NotFound, Unsupported
from ocifs.oci import mediatype
from ocifs.tree.manifest.times import parse_time_ns
from ocifs.tree.node import File, Symlink
from ocifs.tree.walk import walk
from tests.layers.tars import DIRECTORY, entry, tar
from tests.oci.manifests import Row
from tests.oci.test_artifact import ALL_ROWS as ROWS
from tests.tree.memory import MemoryRegistry
from tests.tree.test_layertree import names, opened
from tests.tree.test_semantics import read, root_of

TITLE = "org.opencontainers.image.title"
LAYER = mediatype.OCI_LAYER_GZIP
PLATFORM = {"os": "linux", "architecture": "amd64"}
ABOUT = "vnd.docker.reference.digest"


def put_layer(
    registry: MemoryRegistry, *entries: bytes, media_type: str = LAYER, **notes: str
) -> dict[str, object]:
    return registry.put_blob(gzip.compress(tar(*entries), mtime=0), media_type, annotations=notes)


def artifact(
    registry: MemoryRegistry, *layers: dict[str, object], **more: object
) -> dict[str, object]:
    return {"config": registry.put_blob(b"{}", mediatype.OCI_EMPTY), "layers": list(layers), **more}


async def test_what_was_packed_as_the_place_where_it_stood_is_files_itself() -> None:
    registry = MemoryRegistry()
    packed = put_layer(registry, entry("a/", DIRECTORY), entry("a/b", content=b"b"))
    packed["annotations"] = {TITLE: ".", "io.deis.oras.content.unpack": "true"}
    registry.put_manifest("app", "v1", artifact(registry, packed))
    async with opened(registry) as root:
        assert await names(root, b"files") == [b"a"]
        assert await read(root, b"files/a/b") == b"b"


async def test_pieces_of_one_file_are_read_as_that_file() -> None:
    registry = MemoryRegistry()
    pieces = [bytes([n]) * (100 + n) for n in range(5)]
    layers = [
        registry.put_blob(piece, "application/vnd.cirruslabs.tart.disk.v1") for piece in pieces
    ]
    registry.put_manifest("app", "v1", artifact(registry, *layers))
    whole = b"".join(pieces)
    root = root_of(registry)
    file = await walk(root, b"app/_tags/v1/files/disk.img.lz4")
    assert isinstance(file, File)
    assert file.attributes.size == len(whole)
    registry.asked.clear()
    assert await file.read(150, 20) == whole[150:170]
    assert sum(question.startswith("blob") for question in registry.asked) == 1
    for offset, size in (
        (0, len(whole)),
        (90, 230),
        (len(whole) - 3, 100),
        (len(whole), 1),
        (99, 2),
    ):
        assert await file.read(offset, size) == whole[offset : offset + size], (offset, size)


async def test_a_signature_is_a_file_beside_what_was_signed() -> None:
    registry = MemoryRegistry()
    notes = {"dev.cosignproject.cosign/signature": "MEUC", "dev.sigstore.cosign/chain": "PEM\n"}
    signed = registry.put_blob(
        b"{1}", "application/vnd.dev.cosign.simplesigning.v1+json", annotations=notes
    )
    config = registry.put_blob(b'{"rootfs": {}}', mediatype.OCI_CONFIG)
    registry.put_manifest("app", "v1", {"config": config, "layers": [signed]})
    root = root_of(registry)
    assert await names(root, b"app/_tags/v1/files") == [
        b"chain.pem",
        b"payload.json",
        b"signature.b64",
    ]
    assert await read(root, b"app/_tags/v1/files/signature.b64") == b"MEUC"
    assert await read(root, b"app/_tags/v1/files/chain.pem") == b"PEM\n"


async def test_an_image_of_schema_1_has_a_root_filesystem_without_its_throwaway_layers() -> None:
    registry = MemoryRegistry()
    base = put_layer(registry, entry("etc/a", content=b"old"), entry("etc/gone"))
    empty = put_layer(registry)
    top = put_layer(registry, entry("etc/a", content=b"new"), entry("etc/.wh.gone"))
    said = [{"created": "2015-01-02T03:04:05Z", "os": "linux"}, {"throwaway": True}, {}]
    old = {
        "schemaVersion": 1,
        "name": "app",
        "fsLayers": [{"blobSum": layer["digest"]} for layer in (top, empty, base)],
        "history": [{"v1Compatibility": json.dumps(each)} for each in said],
    }
    registry.put_manifest("app", "v1", old, mediatype.DOCKER_SCHEMA1)
    async with opened(registry) as root:
        assert await read(root, b"kind") == b"docker-schema1\n"
        assert await names(root, b"rootfs/etc") == [b"a"]
        assert await read(root, b"rootfs/etc/a") == b"new"
        assert await names(root, b"layers") == [b"0", b"1"]
        assert root.attributes.mtime_ns == parse_time_ns("2015-01-02T03:04:05Z")


@pytest.mark.parametrize(
    ("media_type", "what"),
    [
        (mediatype.OCI_LAYER_GZIP + "+encrypted", "encrypted"),
        ("application/vnd.oci.image.layer.nydus.blob.v1", "a nydus blob"),
        ("application/vnd.oci.image.layer.squashfs", "a squashfs image"),
        ("application/vnd.stacker.image.layer.squashfs+zstd+verity", "a squashfs image"),
        ("application/vnd.stacker.image.layer.erofs+lz4hc", "an erofs image"),
        ("application/vnd.sylabs.image.layer.v1.squashfs", "a squashfs image"),
        ("application/vnd.sylabs.image.layer.v1.ext3", "an ext3 image"),
        ("application/vnd.oci.image.layer.v1.erofs", "an erofs image"),
        ("application/vnd.erofs.layer.v1+zstd", "an erofs image"),
        ("application/vnd.docker.image.rootfs.diff.erofs", "an erofs image"),
    ],
)
async def test_an_image_whose_layers_are_not_tars_has_a_rootfs_that_says_why(
    media_type: str, what: str
) -> None:
    registry = MemoryRegistry()
    config = registry.put_blob(b'{"rootfs": {}}', mediatype.OCI_CONFIG)
    registry.put_manifest(
        "app", "v1", {"config": config, "layers": [registry.put_blob(b"x", media_type)]}
    )
    async with opened(registry) as root:
        assert await read(root, b"kind") == b"image\n"
        assert b"rootfs" in await names(root, b"")
        with pytest.raises(
            Unsupported,
            match=f"layer 0 of sha256:.* is {what}, not a tar: .*{media_type[-10:]}".replace(
                "+", "."
            ),
        ):
            await names(root, b"rootfs")
        with pytest.raises(NotFound):
            await walk(root, b"layers/0/tree")


async def test_a_cache_that_is_an_index_of_blobs_has_them_as_files() -> None:
    registry = MemoryRegistry()
    config = registry.put_blob(b'{"layers": []}', "application/vnd.buildkit.cacheconfig.v0")
    registry.put_manifest("app", "v1", {"manifests": [put_layer(registry, entry("a")), config]})
    root = root_of(registry)
    assert await names(root, b"app/_tags/v1/files") == [b"cacheconfig.json", b"layer-0.tar.gz"]
    assert await read(root, b"app/_tags/v1/files/cacheconfig.json") == b'{"layers": []}'


async def test_what_stands_beside_an_image_and_is_about_it_refers_to_it_and_is_no_platform() -> (
    None
):
    registry = MemoryRegistry()
    child = registry.put_manifest("app", "", artifact(registry, put_layer(registry, entry("a"))))
    digest = str(child["digest"])
    statement = registry.put_blob(b"{1}", "application/vnd.in-toto+json")
    attestation = registry.put_manifest("app", "", artifact(registry, statement))
    soci = registry.put_manifest(
        "app", "", artifact(registry, artifactType="application/vnd.amazon.soci.index.v2+json")
    )
    children = [
        {**child, "platform": PLATFORM},
        {
            **attestation,
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {ABOUT: digest, "vnd.docker.reference.type": "attestation-manifest"},
        },
        {
            **soci,
            "artifactType": "application/vnd.amazon.soci.index.v2+json",
            "platform": PLATFORM,
            "annotations": {"com.amazon.soci.image-manifest-digest": digest},
        },
    ]
    registry.put_manifest("app", "v1", {"manifests": children})
    root = root_of(registry)
    direct = f"app/_manifests/{digest}/referrers".encode()
    assert await names(root, direct) == []
    base = b"app/_tags/v1/"
    assert await names(root, base + b"platforms") == [b"linux-amd64"]
    assert b"artifacts" not in await names(root, base)
    referrers = base + b"platforms/linux-amd64/referrers"
    assert await names(root, referrers) == [b"attestation", b"soci-index"]
    assert await names(root, direct) == [b"attestation", b"soci-index"]
    (short,) = await names(root, referrers + b"/attestation")
    assert (
        await read(root, referrers + b"/attestation/" + short + b"/digest")
        == f"{attestation['digest']}\n".encode()
    )
    assert await names(root, base + b"referrers") == []


async def test_bottles_are_found_by_the_release_that_they_are_for() -> None:
    registry = MemoryRegistry()
    children = [
        {
            **registry.put_manifest(
                "app", "", artifact(registry, put_layer(registry, entry(name)))
            ),
            "platform": {"os": "darwin", "architecture": "amd64"},
            "annotations": {"org.opencontainers.image.ref.name": f"3.04_1.{name}"},
        }
        for name in ("big_sur", "mojave")
    ]
    notes = {
        "com.github.package.type": "homebrew_bottle",
        "org.opencontainers.image.version": "3.04_1",
        "org.opencontainers.image.created": "2021-04-06",
    }
    registry.put_manifest("app", "3.04_1", {"manifests": children, "annotations": notes})
    root = root_of(registry)
    assert await names(root, b"app/_tags/3.04_1/platforms") == [b"big_sur", b"mojave"]
    body = await walk(root, b"app/_tags/3.04_1/manifest.json")
    assert body.attributes.mtime_ns == parse_time_ns("2021-04-06T00:00:00Z") > 0


async def test_a_bundle_is_its_description_and_its_images_are_called_by_their_names() -> None:
    registry = MemoryRegistry()
    described = registry.put_blob(b'{"name": "b"}', "application/vnd.cnab.config.v1+json")
    kinds = [
        {"io.cnab.manifest.type": "config"},
        {"io.cnab.manifest.type": "component", "io.cnab.component.name": "db"},
    ]
    manifests = [
        {"config": described, "layers": []},
        artifact(registry, put_layer(registry, entry("a"))),
    ]
    children = [
        {**registry.put_manifest("app", "", each), "annotations": notes}
        for each, notes in zip(manifests, kinds, strict=True)
    ]
    notes = {"org.opencontainers.artifactType": "application/vnd.cnab.manifest.v1"}
    registry.put_manifest("app", "v1", {"manifests": children, "annotations": notes})
    root = root_of(registry)
    assert await names(root, b"app/_tags/v1/artifacts") == [b"config", b"db"]
    assert await read(root, b"app/_tags/v1/files/bundle.json") == b'{"name": "b"}'


async def test_what_refers_in_a_circle_is_a_circle_of_links() -> None:
    registry = MemoryRegistry()
    first = registry.put_manifest("app", "v1", artifact(registry, artifactType="a/b"))
    loop = registry.put_manifest(
        "app", "", {"manifests": [first], "artifactType": "a/loop", "subject": first}
    )
    again = artifact(registry, artifactType="a/b", subject=loop)
    registry.put_manifest("app", "v2", again)
    root = root_of(registry)
    path = b"app/_tags/v1"
    for _ in range(3):
        (short,) = await names(root, path + b"/referrers/artifact-index")
        path += b"/referrers/artifact-index/" + short
        assert isinstance(await walk(root, path, follow=False), Symlink)
        assert await read(root, path + b"/digest") == f"{loop['digest']}\n".encode()
        path += b"/manifests/0"
    assert await read(root, path + b"/digest") == f"{first['digest']}\n".encode()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_every_convention_has_a_directory_with_its_files_for_which_no_layer_is_fetched(
    row: Row,
) -> None:
    registry = MemoryRegistry()
    manifest = row.manifest
    if row.config is not None:
        kept = registry.put_blob(row.config)
        manifest = {
            **manifest,
            "config": {**manifest["config"], "digest": kept["digest"], "size": kept["size"]},
        }  # type: ignore[dict-item]
    kind = str(manifest.get("mediaType", "")) or mediatype.DOCKER_SCHEMA1 * ("fsLayers" in manifest)
    layer = registry.put_blob(b"any")
    if "fsLayers" in manifest:  # whose sizes are asked for
        manifest = {**manifest, "fsLayers": [{"blobSum": layer["digest"]}] * 2, "history": []}
    registry.put_manifest("app", row.tag or "v1", manifest, kind)
    root = root_of(registry)
    base = f"app/_tags/{row.tag or 'v1'}/".encode()
    assert await read(root, base + b"kind") == f"{row.kind}\n".encode()
    assert row.kind.encode() in await read(root, base + b"summary.txt")
    assert b"manifest.json" in await names(root, base)
    if row.files:
        files = await names(root, base + b"files")
        assert {name.split(b"~")[0].split(b".")[0] for name in files} == {
            path.encode().split(b"/")[0].split(b".")[0] for path in row.files
        } or "fsLayers" in manifest
    fetched = {question for question in registry.asked if question.startswith("blob")}
    assert len(fetched) <= 1  # the config


async def test_the_only_file_of_a_tar_is_a_file_if_the_manifest_records_its_size() -> None:
    registry = MemoryRegistry()
    media_type = "application/vnd.cncf.model.weight.v1.tar"

    def packed(path: str, content: bytes, size: int) -> dict[str, object]:
        metadata = json.dumps({"name": path, "size": size, "typeflag": 48})
        notes = {
            "org.cncf.model.filepath": path,
            "org.cncf.model.file.metadata+json": metadata,
        }
        body = tar(entry(path, content=content))
        return registry.put_blob(body, media_type, annotations=notes)

    layers = [packed("LICENSE", b"free", 4), packed("a/b.json", b"{}", 2), packed("x", b"abc", 9)]
    registry.put_manifest("app", "v1", artifact(registry, *layers))
    async with opened(registry) as root:
        for path, content in ((b"files/LICENSE", b"free"), (b"files/a/b.json", b"{}")):
            file = await walk(root, path)
            assert isinstance(file, File) and file.attributes.size == len(content)
            assert await file.read(0, 100) == content
            assert await file.read(1, 1) == content[1:2]
        wrong = await walk(root, b"files/x")
        assert isinstance(wrong, File) and wrong.attributes.size == 9
        with pytest.raises(Malformed, match="3 bytes, the manifest records 9"):
            await wrong.read(0, 9)
