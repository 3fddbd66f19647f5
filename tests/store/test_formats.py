"""Caches of earlier commits: formats that the current code can read are used, the others are
ignored, and none is an error.

Each file in formats/ is the directory of a cache, named after its commit (formats/make.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from ocifs.content import Blob
from ocifs.errors import Unreachable
from ocifs.layers.indexing.layer import Layer
from ocifs.oci.digest import Digest
from tests.layers.test_service import site
from tests.store.formats.make import BLOB, FILES, HOST, LAYERS, NAME, push
from tests.store.source import Fault, MemorySource
from tests.store.test_blobs import caching as caching_blobs
from tests.store.test_blobs import whole
from tests.store.test_failing_disk import nothing_unexpected
from tests.support.mount import mounted, run_ocifs
from tests.support.registry import Registry

CACHES = sorted((Path(__file__).parent / "formats").glob("*.tar.xz"))


@pytest.fixture(params=CACHES, ids=lambda path: path.name.partition(".")[0])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the directory of an old cache."""
    directory = tmp_path / "cache" / "ocifs"
    directory.mkdir(mode=0o700, parents=True)
    subprocess.run(
        ["tar", "-C", str(directory), "--no-same-owner", "-xf", str(request.param)], check=True
    )
    return directory


def blobs_in(directory: Path) -> dict[Digest, bytes]:
    """The whole blobs of a cache, each compared with its name."""
    found = {}
    for path in (directory / "v1" / "blobs" / "sha256").iterdir():
        content = path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == path.name
        found[Digest("sha256", path.name)] = content
    assert len(found) >= len(LAYERS)
    return found


def layers_in(blobs: dict[Digest, bytes]) -> list[dict[str, object]]:
    """The layers of the image in the old manifest. Another version of a compressor writes other
    bytes.
    """
    manifests = [
        json.loads(body) for body in blobs.values() if body.startswith(b'{"schemaVersion"')
    ]
    return next(
        manifest["layers"] for manifest in manifests if len(manifest["layers"]) == len(LAYERS)
    )


async def test_whole_blobs_are_served_without_a_request(
    old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = MemorySource(always=Fault(Unreachable("gone")))
    blobs = blobs_in(old)
    for _ in range(2):
        async with caching_blobs(source, old) as reader:
            for digest, content in blobs.items():
                assert await whole(reader, Blob("a/b", digest, len(content))) == content
    nothing_unexpected(caplog)


async def test_a_part_of_a_blob_is_read_and_the_rest_is_fetched(
    old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = MemorySource()
    blob = source.put(BLOB)
    for _ in range(2):
        async with caching_blobs(source, old) as reader:
            assert await reader.read_blob(blob, 5, 1000) == BLOB[5:1005]
            assert await whole(reader, blob) == BLOB
    assert sum(source.served) <= len(BLOB)
    nothing_unexpected(caplog)


async def test_layers_are_listed_and_read(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = MemorySource(always=Fault(Unreachable("gone")))
    for _ in range(2):
        async with site(old, source) as here:
            layers = []
            for each, (plain, _, _) in zip(layers_in(blobs_in(old)), LAYERS, strict=True):
                size = each["size"]
                assert isinstance(size, int)
                layers.append(
                    Layer(Blob(NAME, Digest.parse(str(each["digest"])), size), Digest.of(plain))
                )
            with trio.fail_after(60):
                await here.layer_service.tree(layers)
                found = {}
                for layer in layers:
                    for member in (await here.layer_service.index(layer)).entries:
                        content = await here.layer_service.read(layer, member, 0, member.size)
                        found[member.path.decode()] = content
        assert {name: content for name, content in found.items() if name != "d"} == FILES
    nothing_unexpected(caplog)


def test_the_whole_cache_is_verified(old: Path, tmp_path: Path) -> None:
    for command in (["cache", "list"], ["cache", "verify"], ["cache", "verify", "--json"]):
        done = run_ocifs(*command, cache=tmp_path / "cache", check=False)
        assert done.returncode == 0, done.stderr
        assert b"; removed" not in done.stdout
    assert blobs_in(old)


def test_names_without_the_registry_are_read_or_not_known(old: Path, tmp_path: Path) -> None:
    done = run_ocifs("ls", "--offline", f"{HOST}/{NAME}", cache=tmp_path / "cache", check=False)
    assert done.returncode in (0, 1) and b"Traceback" not in done.stderr
    if done.returncode:
        assert b"--offline" in done.stderr


@pytest.mark.mount
@pytest.mark.servers
def test_a_mount_over_an_old_cache_shows_what_one_over_a_new_one_does(
    old: Path, tmp_path: Path, registry: Registry
) -> None:
    blobs = blobs_in(old)
    packed = [blobs[Digest.parse(str(each["digest"]))] for each in layers_in(blobs)]
    push(
        registry,
        [(plain, each, ending) for (plain, _, ending), each in zip(LAYERS, packed, strict=True)],
    )
    for number in range(2):
        with mounted(
            f"{registry.host}/{NAME}", tmp_path / f"mnt{number}", tmp_path / "cache"
        ) as mount:
            root = mount.path / "_tags" / "v1" / "rootfs"
            found = {
                str(path.relative_to(root)): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file()
            }
            assert found == FILES
            assert (mount.path / "_tags" / "blob" / "layers" / "0" / "blob").read_bytes() == BLOB
            status = json.loads((mount.path / ".ocifs" / "status.json").read_text())
            assert (status["unexpected"], status["errors"]) == (0, {})
    shutil.rmtree(old)
