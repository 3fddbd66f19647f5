"""Archives of `docker save`: all versions, archives of other tools, and invalid ones."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ocifs.errors import IntegrityError, LimitExceeded, Malformed, NotFound, OcifsError, UsageError
from ocifs.layout.docker import DERIVED
from ocifs.oci.digest import Digest
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.settings import Limits, Settings
from tests.layout.opened import layer_of, manifest_of, opened
from tests.support.archives import OUTER, archive_of, config_of, files_of, image, link, saved
from tests.support.image import make_layout
from tests.support.registry import Registry
from tests.support.tars import a_tar
from tests.support.tools import tool

DOCKER, ANY = LocalTransport.DOCKER_ARCHIVE, LocalTransport.ANY
Members = list[tuple[str, bytes] | tarfile.TarInfo]


def written(tmp_path: Path, members: Members, outer: str = "tar") -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(OUTER[outer](archive_of(members)))
    return path


async def texts(
    path: Path, tag: str, transport: LocalTransport = DOCKER, cache: Path | None = None
) -> list[bytes]:
    """The layers of an image, each verified."""
    async with opened(LayoutSource(str(path), transport), cache=cache) as layout:
        manifest = await manifest_of(layout, tag)
        assert manifest.config is not None
        config = (await layout.manifest("", manifest.config.digest)).body
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
        layers = []
        for number, diff_id in enumerate(diff_ids):
            blob = await layer_of(layout, tag, number)
            content = await layout.read_blob(blob, 0, blob.size)
            assert blob.digest.matches(content)
            plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
            assert Digest.parse(diff_id).matches(plain)
            layers.append(plain)
        return layers


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("transport", [DOCKER, ANY])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
async def test_the_older_form_is_read(
    tmp_path: Path, outer: str, transport: LocalTransport, compress: Callable[[bytes], bytes]
) -> None:
    members = saved(
        [("a", ["a:1", "localhost:5000/a:1"]), ("b", ["docker.io/library/b:latest"])], compress
    )
    path = written(tmp_path, members, outer)
    async with opened(LayoutSource(str(path), transport)) as layout:
        assert await layout.tags("") == ("a:1", "localhost:5000/a:1", "docker.io/library/b:latest")
    for tag, text in (
        ("a:1", "a"),
        ("localhost:5000/a:1", "a"),
        ("b", "b"),
        ("@0", "a"),
        ("@1", "b"),
    ):
        assert await texts(path, tag, transport) == image(text)[1]


@pytest.mark.parametrize("tags", [None, []])
async def test_an_image_without_a_name_is_found_by_position_and_digest(
    tmp_path: Path, tags: Sequence[str] | None
) -> None:
    path = written(tmp_path, saved([("a", tags)]))
    async with opened(LayoutSource(str(path), DOCKER)) as layout:
        [name] = await layout.tags("")
        only = (await layout.names()).only()
        assert (
            only is not None and only.descriptor is not None and str(only.descriptor.digest) == name
        )
    assert await texts(path, name) == await texts(path, "@0") == image("a")[1]


async def test_the_manifest_is_derived_and_records_it(tmp_path: Path) -> None:
    path = written(tmp_path, saved([("a", ["a:1"])]))
    digests = set()
    for _ in range(2):
        async with opened(LayoutSource(str(path), DOCKER)) as layout:
            manifest = await manifest_of(layout, "a:1")
            assert DERIVED in manifest.annotations
            digests.add(manifest.digest)
    assert len(digests) == 1


async def test_a_compressed_layer_is_hashed_once(tmp_path: Path) -> None:
    path = written(tmp_path, saved([("a", ["a:1"])], gzip.compress))
    cache = tmp_path / "cache"
    assert await texts(path, "a:1", cache=cache) == image("a")[1]
    cached = {item: item.stat().st_ino for item in cache.rglob("archive-digest.1/sha256/*")}
    assert len(cached) == 2
    assert await texts(path, "a:1", cache=cache) == image("a")[1]
    assert {item: item.stat().st_ino for item in cache.rglob("archive-digest.1/sha256/*")} == cached


def newer(tmp_path: Path, *, listed: bool = True) -> Members:
    """The form of Docker 25 and later: a layout with a manifest.json."""
    directory = tmp_path / "newer"
    directory.mkdir()
    make_layout(directory, [a_tar(hello=b"new")], tag="1")
    index = json.loads((directory / "index.json").read_text())
    [entry] = index["manifests"]
    entry["annotations"]["io.containerd.image.name"] = "docker.io/library/new:1"
    manifest = json.loads((directory / "blobs" / entry["digest"].replace(":", "/")).read_text())
    names = [
        f"blobs/{item['digest'].replace(':', '/')}"
        for item in (manifest["config"], *manifest["layers"])
    ]
    saved_as = [{"Config": names[0], "RepoTags": ["new:1"], "Layers": names[1:]}]
    (directory / "manifest.json").write_text(json.dumps(saved_as))
    if not listed:
        index["manifests"] = None
    (directory / "index.json").write_text(json.dumps(index))
    return [*files_of(directory)]


@pytest.mark.parametrize("transport", [DOCKER, ANY, LocalTransport.OCI_ARCHIVE])
async def test_the_newer_form_is_read_by_either_transport(
    tmp_path: Path, transport: LocalTransport
) -> None:
    path = written(tmp_path, newer(tmp_path))
    for tag in ("new:1", "docker.io/library/new:1", "@0"):
        assert await texts(path, tag, transport) == [a_tar(hello=b"new")]


async def test_the_manifest_of_the_newer_form_is_the_genuine_one(tmp_path: Path) -> None:
    path = written(tmp_path, newer(tmp_path))
    async with (
        opened(LayoutSource(str(path), DOCKER)) as docker,
        opened(LayoutSource(str(path), ANY)) as layout,
    ):
        genuine = await manifest_of(layout, "new:1")
        assert (await manifest_of(docker, "new:1")).raw == genuine.raw
        assert DERIVED not in genuine.annotations


async def test_an_image_that_was_saved_by_its_id_is_found_by_a_bare_path(tmp_path: Path) -> None:
    path = written(tmp_path, newer(tmp_path, listed=False))
    assert await texts(path, "@0", ANY) == [a_tar(hello=b"new")]
    assert await texts(tmp_path / "newer", "@0", ANY) == [a_tar(hello=b"new")]


def single(config: bytes, layers: Sequence[bytes], **changed: object) -> Members:
    names = [f"layer{number}" for number in range(len(layers))]
    entry = {"Config": "config.json", "RepoTags": ["a:1"], "Layers": names, **changed}
    return [
        ("manifest.json", json.dumps([entry]).encode()),
        ("config.json", config),
        *zip(names, layers, strict=True),
    ]


async def test_names_of_members_are_whatever_a_tool_likes(tmp_path: Path) -> None:
    config, layers = image("a")
    members = single(config, layers)
    members = [(f"./{item[0]}", item[1]) for item in members if isinstance(item, tuple)]
    assert await texts(written(tmp_path, members), "a:1") == layers
    assert await texts(written(tmp_path, members[::-1]), "a:1") == layers
    below = [
        (f"image/{item[0]}", item[1]) for item in single(config, layers) if isinstance(item, tuple)
    ]
    assert await texts(written(tmp_path, below), "a:1") == layers


async def test_a_layer_whose_content_is_not_that_of_its_diff_id_is_an_error(tmp_path: Path) -> None:
    config, layers = image("a")
    path = written(
        tmp_path, single(config, [layers[0], layers[1].replace(b"the same", b"another!")])
    )
    with pytest.raises(IntegrityError):
        await texts(path, "a:1")


async def test_a_config_that_has_not_the_digest_of_its_name_is_an_error(tmp_path: Path) -> None:
    config, layers = image("a")
    name = f"{hashlib.sha256(b'other').hexdigest()}.json"
    members = [
        (name, config) if item[0] == "config.json" else item
        for item in single(config, layers, Config=name)
    ]  # type: ignore[index]
    async with opened(LayoutSource(str(written(tmp_path, members)), DOCKER)) as layout:
        with pytest.raises(IntegrityError, match="another digest"):
            await layout.resolve("", "a:1")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"Layers": ["layer0"]}, Malformed),
        ({"Layers": ["layer0", "gone"]}, NotFound),
        ({"Layers": ["layer0", "../../etc/passwd"]}, NotFound),
        ({"Layers": ["layer0", "loop"]}, Malformed),
        ({"Config": "gone"}, NotFound),
        ({"Config": "layer0"}, Malformed),
    ],
)
async def test_an_image_that_cannot_be_derived_is_listed_and_spoils_no_other(
    tmp_path: Path, changed: dict[str, object], error: type[OcifsError]
) -> None:
    config, layers = image("a")
    members = single(config, layers, **changed)
    assert isinstance(members[0], tuple)
    good = {"Config": "config.json", "RepoTags": ["good:1"], "Layers": ["layer0", "layer1"]}
    members[0] = ("manifest.json", json.dumps([*json.loads(members[0][1]), good]).encode())
    path = written(tmp_path, [*members, link("loop", "loop")])
    async with opened(LayoutSource(str(path), DOCKER)) as layout:
        assert await layout.tags("") == ("a:1", "good:1")
        with pytest.raises(error):
            await layout.resolve("", "a:1")
    assert await texts(path, "good:1") == layers


@pytest.mark.parametrize(
    "body", [b"{}", b"[1]", b'[{"Layers": 3}]', b'[{"RepoTags": [1]}]', b"[", b'[{"Config": 1}]']
)
async def test_a_manifest_json_that_is_wrong_is_malformed(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(Malformed):
        async with opened(LayoutSource(str(written(tmp_path, [("manifest.json", body)])), DOCKER)):
            pass


async def test_layers_and_configs_are_bounded(tmp_path: Path) -> None:
    config, layers = image("a")
    path = written(tmp_path, single(config, layers))
    for limits in (replace(Limits(), layers=1), replace(Limits(), config_bytes=10)):
        with pytest.raises(LimitExceeded):
            async with opened(LayoutSource(str(path), DOCKER), Settings(limits=limits)) as layout:
                await layout.resolve("", "a:1")


async def test_what_docker_before_1_10_saved_is_refused_with_a_way_out(tmp_path: Path) -> None:
    members: Members = [
        ("repositories", b'{"a": {"1": "x"}}'),
        ("x/layer.tar", a_tar(a=b"")),
        ("x/json", b"{}"),
    ]
    for transport in (DOCKER, ANY):
        with pytest.raises(UsageError, match=r"before 1\.10") as raised:
            async with opened(LayoutSource(str(written(tmp_path, members)), transport)):
                pass
        assert "docker save" in raised.value.hint


@pytest.mark.servers
async def test_what_skopeo_and_podman_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    layers = [a_tar(hello=b"hello"), a_tar(other=b"other")]
    make_layout(tmp_path / "layout", layers)
    source = f"oci:{tmp_path}/layout:v1"
    subprocess.run(
        ["skopeo", "copy", "-q", source, f"docker-archive:{tmp_path}/one.tar:some/name:v7"],
        check=True,
    )
    subprocess.run(["skopeo", "copy", "-q", source, f"dir:{tmp_path}/dir"], check=True)
    for tag in ("some/name:v7", "docker.io/some/name:v7", "@0"):
        assert await texts(tmp_path / "one.tar", tag) == layers
    async with opened(LayoutSource(str(tmp_path / "dir"), LocalTransport.DIR)) as layout:
        [name] = await layout.tags("")
        layer = await layer_of(layout, name)
        assert layer.digest.matches(await layout.read_blob(layer, 0, layer.size))


async def test_an_image_with_no_layers_is_read(tmp_path: Path) -> None:
    assert await texts(written(tmp_path, single(config_of([]), [], Layers=None)), "a:1") == []


async def test_an_archive_that_was_unpacked_is_read_from_its_directory(tmp_path: Path) -> None:
    path = written(tmp_path, saved([("a", ["a:1"]), ("b", ["b:1"])]))
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "unpacked", "-xf", path], check=True)
    for transport in (DOCKER, ANY):
        assert await texts(tmp_path / "unpacked", "b:1", transport) == image("b")[1]
    with pytest.raises(UsageError) as raised:
        await texts(tmp_path / "unpacked", "b:1", LocalTransport.DIR)
    assert "docker-archive:" in raised.value.hint


@pytest.mark.servers
async def test_what_crane_pulls_is_read(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "layout").mkdir()
    layers = [a_tar(hello=b"hello"), a_tar(other=b"other")]
    make_layout(tmp_path / "layout", layers)
    reference = f"{registry.host}/saved/app:v1"
    copy = [
        "skopeo",
        "copy",
        "-q",
        "--dest-tls-verify=false",
        f"oci:{tmp_path}/layout:v1",
        f"docker://{reference}",
    ]
    subprocess.run(copy, check=True)
    crane = tool("crane", tmp_path)
    for form, transport in (("tarball", DOCKER), ("legacy", DOCKER), ("oci", LocalTransport.OCI)):
        crane("pull", "--insecure", f"--format={form}", reference, tmp_path / form)
        async with opened(LayoutSource(str(tmp_path / form), transport)) as layout:
            [name] = await layout.tags("")
        for kind in (transport, ANY):
            assert await texts(tmp_path / form, name, kind) == layers


async def test_a_directory_whose_path_has_a_colon_is_named_in_the_hint(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    make_layout(tmp_path / "a:b", [a_tar(hello=b"hello")])
    for ref in ("b", "b:v1"):
        with pytest.raises(UsageError, match="no such file or directory") as raised:
            async with opened(LayoutSource(str(tmp_path / "a"), ANY, ref)):
                pass
        assert "ln -s" in raised.value.hint


async def test_a_name_that_is_not_text_names_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, saved([("a", ["\ud800x", "", "a:1", "a:1"]), ("b", ["\udfff"])]))
    async with opened(LayoutSource(str(path), DOCKER)) as layout:
        first, second = await layout.tags("")
        assert first == "a:1"
        assert second.startswith("sha256:")
