"""Two trees that are open at once in one process, each in a thread with its own event loop."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

import ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

pytestmark = pytest.mark.servers
MIB = 1 << 20
TREES = 2
READS = 250
REPOSITORY = "two-trees/app"


def content(number: int) -> bytes:
    """The content of a tree's file. The bytes of two trees differ in every block."""
    return random.Random(number).randbytes(6 * MIB)


def files(number: int) -> dict[str, bytes]:
    """The root filesystem of a tree, with enough files for several blocks of its index."""
    chance = random.Random(100 + number)
    return {f"d{each % 7}/f{each}": chance.randbytes(2000 + each) for each in range(900)}


@pytest.fixture(scope="module")
def pushed(registry: Registry) -> Registry:
    """A registry with a repository for each tree: a large blob, and an image of small files."""
    for number in range(TREES):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, data in files(number).items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        layers = [
            ("application/octet-stream", content(number)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(packed.getvalue())),
        ]
        repository = f"{REPOSITORY}{number}"
        config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
        for tag, (media_type, data) in zip(("blob", "image"), layers, strict=True):
            config_type = "application/vnd.oci.image.config.v1+json" if tag == "image" else "a/b"
            manifest = {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": config_type,
                    "digest": push_blob(registry.url, repository, config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": media_type,
                        "digest": push_blob(registry.url, repository, data),
                        "size": len(data),
                    }
                ],
            }
            push_manifest(registry.url, repository, manifest, tag)
    return registry


@pytest.fixture(autouse=True)
def _switching_often() -> Iterator[None]:
    """Switch threads every few microseconds, so that races become visible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def side_by_side(work: Callable[[int], None]) -> None:
    """Run work(0) and work(1) in threads. Raises the first error of either."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(TREES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_two_trees_read_their_own_bytes(
    pushed: Registry, tmp_path: Path, *, shared: bool, offline: bool
) -> None:
    together = threading.Barrier(TREES)

    def work(number: int) -> None:
        source = f"{pushed.host}/{REPOSITORY}{number}:blob"
        cache = str(tmp_path / ("cache" if shared else f"cache{number}"))
        whole, chance = content(number), random.Random(number)
        with ocifs.open(source, cache_dir=cache) as tree:
            assert tree.read("layers/0/blob") == whole
        with ocifs.open(source, cache_dir=cache, offline=offline) as tree:
            together.wait(60)
            for _ in range(READS):
                start = chance.randrange(5 * MIB)
                assert tree.read("layers/0/blob", start, MIB) == whole[start : start + MIB]

    side_by_side(work)


def test_two_trees_show_their_own_files(pushed: Registry, tmp_path: Path) -> None:
    together = threading.Barrier(TREES)

    def work(number: int) -> None:
        expected = files(number)
        with ocifs.open(
            f"{pushed.host}/{REPOSITORY}{number}:image", cache_dir=str(tmp_path / "cache")
        ) as tree:
            together.wait(60)
            for name, data in sorted(expected.items(), key=lambda item: item[1]):
                assert tree.read(f"rootfs/{name}") == data

    side_by_side(work)


def test_two_filesystems_read_their_own_bytes(pushed: Registry, tmp_path: Path) -> None:
    together = threading.Barrier(TREES)

    def work(number: int) -> None:
        whole, chance = content(number), random.Random(number)
        path = f"{pushed.host}/{REPOSITORY}{number}:blob/layers/0/blob"
        filesystem = fsspec.filesystem(
            "oci-registry", cache_dir=str(tmp_path / f"cache{number}"), skip_instance_cache=True
        )
        try:
            assert filesystem.cat_file(path) == whole
            together.wait(60)
            for _ in range(READS):
                start = chance.randrange(5 * MIB)
                assert filesystem.cat_file(path, start, start + MIB) == whole[start : start + MIB]
        finally:
            filesystem.close()

    side_by_side(work)
