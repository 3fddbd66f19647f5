"""Hostile layouts: no file outside the layout is opened, and no open blocks."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ocifs.errors import Malformed, OcifsError, UsageError, WriteFailed
from ocifs.layout.directory import DirectoryFiles
from ocifs.layout.writer import LayoutWriter
from ocifs.oci.digest import Digest
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.settings import Limits
from tests.layout.opened import layer_of, opened
from tests.support.archives import config_of
from tests.support.image import make_layout
from tests.support.tars import a_tar

SECRET = b"root:x:0:0: not for the owner of the layout"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "layout").mkdir()
    return make_layout(tmp_path / "layout", [a_tar(one=b"1" * 100)])


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: endless


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def a_directory(path: Path) -> None:
    path.mkdir()


SPECIAL = [fifo, device, a_socket, a_directory]


def blobs(directory: Path) -> list[Path]:
    return list((directory / "blobs" / "sha256").iterdir())


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("name", ["index.json", "oci-layout", "layer"])
async def test_what_is_not_a_regular_file_is_an_error_at_once(
    directory: Path, make: Callable[[Path], None], name: str
) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        layer = await layer_of(layout)
        path = (
            directory / name
            if name != "layer"
            else directory / "blobs" / "sha256" / layer.digest.encoded
        )
        path.unlink()
        make(path)
        with trio.fail_after(20):
            if name == "layer":
                with pytest.raises(Malformed, match="not a regular file"):
                    await layout.read_blob(layer, 0, 10)
            elif name == "index.json":
                with pytest.raises(Malformed, match="not a regular file"):
                    await layout.tags("")
            else:
                async with opened(LayoutSource(str(directory))) as again:  # a warning
                    assert await again.tags("") == ("v1",)


@pytest.mark.parametrize("make", [fifo, device, a_socket])
@pytest.mark.parametrize("transport", list(LocalTransport))
async def test_a_source_that_is_neither_file_nor_directory_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None], transport: LocalTransport
) -> None:
    make(tmp_path / "special")
    with trio.fail_after(20), pytest.raises(UsageError, match="not a directory or a regular file"):
        async with opened(LayoutSource(str(tmp_path / "special"), transport)):
            pass


def outside(tmp_path: Path) -> Path:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    return secret


@pytest.mark.parametrize(
    "target", ["{secret}", "../../../secret", "../../../layout/../secret", "../away", "sub/../../x"]
)
async def test_a_link_out_of_a_layout_is_not_followed(
    directory: Path, tmp_path: Path, target: str
) -> None:
    secret = outside(tmp_path)
    async with opened(LayoutSource(str(directory))) as layout:
        layer = await layer_of(layout)
        path = directory / "blobs" / "sha256" / layer.digest.encoded
        path.unlink()
        (path.parent / "away").symlink_to("../../../secret")
        (directory / "blobs" / "away").symlink_to("../../secret")
        (path.parent / "sub").symlink_to("..")
        (directory.parent / "x").write_bytes(SECRET)
        path.symlink_to(target.format(secret=secret))
        with pytest.raises(OcifsError) as raised:
            await layout.read_blob(layer, 0, layer.size)
        assert SECRET.decode() not in str(raised.value)
        with pytest.raises(OcifsError):
            await layout.blob_size("", layer.digest)


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "index.json"])
async def test_a_directory_of_a_layout_that_is_a_link_out_of_it_is_not_followed(
    directory: Path, tmp_path: Path, name: str
) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        layer = await layer_of(layout)
        shutil.move(directory / name, tmp_path / "moved")
        (directory / name).symlink_to(tmp_path / "moved")
        with pytest.raises(Malformed, match="leads out of the layout"):
            await layout.tags("") if name == "index.json" else await layout.read_blob(layer, 0, 10)


async def test_links_within_a_layout_are_followed(directory: Path) -> None:
    (directory / "store").mkdir()
    for path in blobs(directory):
        path.rename(directory / "store" / path.name)
        path.symlink_to(f"../../store/./{path.name}")
    (directory / "real").mkdir()
    (directory / "index.json").rename(directory / "real" / "index.json")
    (directory / "index.json").symlink_to("also/../real/index.json")
    (directory / "also").symlink_to("real")
    async with opened(LayoutSource(str(directory))) as layout:
        layer = await layer_of(layout)
        assert layer.digest.matches(await layout.read_blob(layer, 0, layer.size))


async def test_links_in_a_circle_are_an_error(directory: Path) -> None:
    (directory / "index.json").unlink()
    (directory / "index.json").symlink_to("other")
    (directory / "other").symlink_to("index.json")
    with pytest.raises(Malformed, match="too many levels of symbolic links"):
        await tags_of(directory)


async def tags_of(directory: Path) -> tuple[str, ...]:
    async with opened(LayoutSource(str(directory))) as layout:
        return await layout.tags("")


async def test_a_layout_that_becomes_a_link_while_it_is_open_is_not_followed(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "private").mkdir()
    make_layout(tmp_path / "private", [a_tar(key=SECRET)], tag="private")
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.tags("") == ("v1",)
        directory.rename(tmp_path / "gone")
        directory.symlink_to(tmp_path / "private")
        with pytest.raises(OcifsError):
            await layout.tags("")


async def test_a_layout_that_is_replaced_by_another_directory_is_read_anew(
    directory: Path, tmp_path: Path
) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.tags("") == ("v1",)
        shutil.rmtree(directory)
        directory.mkdir()
        make_layout(directory, [a_tar(two=b"2")], tag="v2")
        assert await layout.tags("") == ("v2",)


async def test_the_path_of_a_source_may_be_a_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(directory)
    assert await tags_of(tmp_path / "link") == ("v1",)


def someone_elses(path: Path, tmp_path: Path, content: bytes, how: str) -> None:
    """Put a hard link to another user's file there: possible without fs.protected_hardlinks."""
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    path.unlink(missing_ok=True)
    os.link(secret, path)
    if how == "owner":
        if os.geteuid():
            pytest.skip("needs root")
        os.chown(secret, 12345, 12345)
    else:  # in a directory that others write to, like /tmp, the owner proves nothing
        path.parents[2 if "blobs" in str(path) else 0].chmod(0o1777)


FOREIGN = ["owner", "shared directory"]


@pytest.mark.parametrize("how", FOREIGN)
async def test_a_blob_that_may_be_someone_elses_is_verified_before_its_first_byte(
    directory: Path, tmp_path: Path, how: str
) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        layer = await layer_of(layout)
        path = directory / "blobs" / "sha256" / layer.digest.encoded
        content = path.read_bytes()
        someone_elses(path, tmp_path, SECRET.ljust(layer.size), how)
    async with opened(LayoutSource(str(directory))) as layout:
        with pytest.raises(Malformed, match="has another digest"):
            await layout.read_blob(layer, 0, 10)
        with pytest.raises(Malformed, match="has another digest"):
            async with layout.open_blob(layer, 0, 10):
                pass
        (tmp_path / "secret").write_bytes(content)  # what its digest vouches for is served
        assert await layout.read_blob(layer, 0, 10) == content[:10]


@pytest.mark.parametrize("how", FOREIGN)
async def test_nothing_that_may_be_someone_elses_becomes_a_manifest_or_a_config(
    tmp_path: Path, how: str
) -> None:
    """Where no digest vouches for a file: the manifest of `dir:`, and configs and compressed layers
    of an unpacked archive.
    """
    secret = json.dumps(
        {"auths": {"registry.example": {"auth": "secret"}}, "rootfs": {"diff_ids": []}}
    ).encode()
    (tmp_path / "dir").mkdir()
    someone_elses(tmp_path / "dir" / "manifest.json", tmp_path, secret, how)
    with pytest.raises(Malformed, match="another owner"):
        async with opened(LayoutSource(str(tmp_path / "dir"), LocalTransport.DIR)) as layout:
            await layout.tags("")
    for name, config, layers in (("config", "x", []), ("layer", "config.json", ["x"])):
        (tmp_path / name).mkdir()
        listed = [{"Config": config, "RepoTags": ["a:1"], "Layers": layers}]
        (tmp_path / name / "manifest.json").write_text(json.dumps(listed))
        (tmp_path / name / "config.json").write_bytes(config_of([b"x"]))
        someone_elses(
            tmp_path / name / "x",
            tmp_path,
            secret if name == "config" else gzip.compress(SECRET),
            how,
        )
        async with opened(LayoutSource(str(tmp_path / name), LocalTransport.ANY)) as layout:
            with pytest.raises(Malformed, match="another owner"):
                await layout.resolve("", "a:1")


async def test_a_file_that_is_written_while_it_is_read_is_an_error(directory: Path) -> None:
    files = DirectoryFiles(str(directory))
    place = files.find("index.json")
    (directory / "index.json").write_text("{}")
    with pytest.raises(OcifsError, match="changed while it was read"):
        place.read(0, 10)


async def test_a_blob_that_is_swapped_for_a_link_again_and_again_never_shows_what_is_outside(
    directory: Path, tmp_path: Path
) -> None:
    """A race with whoever owns the layout: every read gives the layout's bytes or an error."""
    secret = outside(tmp_path)
    files = DirectoryFiles(str(directory))
    async with opened(LayoutSource(str(directory))) as layout:
        layer = await layer_of(layout)
    path = directory / "blobs" / "sha256" / layer.digest.encoded
    content = path.read_bytes()
    away = path.parent.with_name("away")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            path.with_suffix(".link").symlink_to(secret)
            path.with_suffix(".link").replace(path)
            path.with_suffix(".file").write_bytes(content)
            path.with_suffix(".file").replace(path)
            path.parent.rename(away)
            path.parent.symlink_to(tmp_path)
            path.parent.unlink()
            away.rename(path.parent)

    swapping = threading.Thread(target=swap)
    swapping.start()
    read = refused = 0
    try:
        for _ in range(3000):
            try:
                assert files.find(f"blobs/sha256/{path.name}").read(0, 1 << 20) in (content, b"")
                read += 1
            except OcifsError:
                refused += 1
    finally:
        ended.set()
        swapping.join(20)
    assert read
    assert refused


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "a/" * 3000 + "b"])
def test_a_name_that_no_file_can_have_is_an_error(directory: Path, name: str) -> None:
    with pytest.raises(OcifsError):
        DirectoryFiles(str(directory)).find(name)


def test_an_export_into_a_prepared_directory_waits_for_no_fifo(tmp_path: Path) -> None:
    digest = Digest.of(b"")
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    os.mkfifo(tmp_path / "blobs/sha256" / digest.encoded)
    with LayoutWriter(tmp_path, Limits()) as layout:
        assert not layout.has(digest, 0)
        assert layout.small(digest, 0) is None
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(WriteFailed, match=r"cannot read .*index\.json: Not a regular file"):
        LayoutWriter(tmp_path, Limits()).__enter__()
