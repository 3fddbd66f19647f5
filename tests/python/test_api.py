"""`ocifs.open` and `ocifs.open_async`, as programs use them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import ocifs
from ocifs.errors import ConnectionRefused, IsADirectory, NotADirectory, NotFound, UsageError
from scripts.example import make
from tests.support.silent import silent_server


@pytest.fixture
def layout(tmp_path: Path) -> str:
    make(tmp_path / "example")
    return f"oci:{tmp_path}/example"


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def test_a_program_reads_lists_walks_and_asks(layout: str, cache: str) -> None:
    with ocifs.open(layout, cache_dir=cache) as tree:
        assert {entry.path for entry in tree.list()} == {"_tags", "_manifests", "_blobs"}
        body = tree.read("_tags/1.0/manifest.json")
        assert (
            tree.read("_manifests/1.0/digest").decode().strip()
            == f"sha256:{hashlib.sha256(body).hexdigest()}"
        )
        assert tree.read("_manifests/1.0/manifest.json", 5, 7) == body[5:12]
        assert tree.read("_manifests/1.0/manifest.json", len(body), 7) == b""
        assert tree.stat("_tags/1.0").is_dir
        assert tree.stat("_tags/1.0", follow=False).target == "../_manifests/1.0"
        found = {
            entry.path: entry.stat
            for entry in tree.walk("_manifests/1.0/platforms/linux-amd64/rootfs")
        } or {entry.path: entry.stat for entry in tree.walk("_manifests/1.0/rootfs")}
        names = {path.rpartition("rootfs/")[2] for path, stat in found.items() if stat.is_file}
        assert names == {"etc/greeting", "etc/architecture"}
        with pytest.raises(NotFound):
            tree.stat("_manifests/2.0")
        with pytest.raises(IsADirectory):
            tree.read("_manifests")
        with pytest.raises(NotADirectory):
            tree.list("_manifests/1.0/manifest.json")


def test_a_file_is_one_that_libraries_take(layout: str, cache: str) -> None:
    with ocifs.open(layout, cache_dir=cache, platform="linux/arm64") as tree:
        with (
            tree.open("_manifests/1.0/layers/0/blob") as file,
            tarfile.open(fileobj=file) as archive,
        ):
            assert archive.getnames() == ["etc/greeting", "etc/old"]
        assert tree.read("_manifests/1.0/rootfs/etc/architecture") == b"arm64\n"


async def test_the_same_on_trio(layout: str, cache: str) -> None:
    async with ocifs.open_async(layout, cache_dir=cache) as tree:
        config = json.loads(await tree.read("_manifests/1.0/config.json"))
        assert config["os"] == "linux"
        paths = [entry.path async for entry in tree.walk("_manifests/notes/files")]
        assert sorted(paths) == [
            "_manifests/notes/files/ideas.md",
            "_manifests/notes/files/todo.txt",
        ]
        assert (await tree.stat("_manifests/notes/files/todo.txt")).size == 10


def test_threads_share_a_tree(layout: str, cache: str) -> None:
    with ocifs.open(layout, cache_dir=cache) as tree:
        seen: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: seen.append(tree.read("_manifests/1.0/manifest.json")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(seen) == 8 and len(set(seen)) == 1


def test_what_is_wrong_is_said(tmp_path: Path, layout: str, cache: str) -> None:
    with pytest.raises(UsageError):
        ocifs.open(f"oci:{tmp_path}/absent", cache_dir=cache)
    with pytest.raises(ConnectionRefused):
        ocifs.open("127.0.0.1:1/a/b:c", cache_dir=cache)
    with pytest.raises(UsageError, match="cache_dri"):
        ocifs.open(layout, cache_dri=cache)  # type: ignore[call-arg]
    with silent_server() as host, pytest.raises(ocifs.OcifsError):
        ocifs.open(f"{host}/a/b:c", cache_dir=cache, timeout=0.5)
    tree = ocifs.open(layout, cache_dir=cache)
    tree.close()
    tree.close()
    with pytest.raises(UsageError, match="closed"):
        tree.list()


def test_importing_it_costs_nothing() -> None:
    code = (
        "import sys, ocifs; heavy = ('trio', 'httpx', 'click', 'fsspec'); "
        "print([n for n in heavy if n in sys.modules], dir(ocifs))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.startswith("[] ") and "'open'" in done.stdout
    with pytest.raises(AttributeError, match="Oracle"):
        _ = ocifs.OCIFileSystem  # type: ignore[attr-defined]
