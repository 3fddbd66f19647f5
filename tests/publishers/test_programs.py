"""Programs without support for registries work on the files of a mount."""

from __future__ import annotations

import io
import json
import mmap
import os
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import wasmtime

from ocifs.oci import mediatype
from tests.support.mount import mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry
from tests.support.tools import tool

pytestmark = [pytest.mark.servers, pytest.mark.mount]
WASM = "application/vnd.wasm.config.v0+json"
ADD = '(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))'


@contextmanager
def files(
    registry: Registry, place: Path, content: Mapping[str, bytes], config: str = ""
) -> Iterator[Path]:
    """The directory `files/` of a new artifact in a mount."""

    def descriptor(media_type: str, data: bytes) -> dict[str, object]:
        return {
            "mediaType": media_type,
            "digest": push_blob(registry.url, place.name, data),
            "size": len(data),
        }

    titled = [
        {
            **descriptor("application/octet-stream", data),
            "annotations": {"org.opencontainers.image.title": name},
        }
        for name, data in content.items()
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": descriptor(config or mediatype.OCI_EMPTY, b"{}"),
        "layers": titled,
    }
    push_manifest(registry.url, place.name, manifest, "v1")
    with mounted(f"{registry.host}/{place.name}:v1", place / "mnt", place / "cache") as mount:
        yield mount.path / "files"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a name that is valid for a repository."""
    made = tmp_path / "".join(c for c in tmp_path.name.lower() if c.isalnum())
    made.mkdir()
    return made


def test_a_module_runs_from_the_mount(registry: Registry, place: Path) -> None:
    module = bytes(wasmtime.wat2wasm(ADD))
    with files(registry, place, {"module.wasm": module}, WASM) as shown:
        assert (shown.parent / "kind").read_text() == "wasm-component\n"
        store = wasmtime.Store()
        instance = wasmtime.Instance(
            store, wasmtime.Module.from_file(store.engine, str(shown / "module.wasm")), []
        )
        add = instance.exports(store)["add"]
        assert isinstance(add, wasmtime.Func)
        assert add(store, 2, 3) == 5


def test_a_database_is_queried_in_the_mount(registry: Registry, place: Path) -> None:
    sqlite = tool("sqlite3", place / "home")
    with sqlite3.connect(place / "made.db") as made:
        made.execute("create table t (n integer, text text)")
        made.executemany("insert into t values (?, ?)", [(n, "x" * 500) for n in range(5000)])
    made.close()
    with files(registry, place, {"app.db": (place / "made.db").read_bytes()}) as shown:
        assert (
            sqlite("-readonly", shown / "app.db", "select count(*), sum(n) from t")
            == b"5000|12497500\n"
        )


def test_a_file_is_mapped_into_memory(registry: Registry, place: Path) -> None:
    content = os.urandom(5 << 20)
    with (
        files(registry, place, {"model.gguf": content}) as shown,
        (shown / "model.gguf").open("rb") as file,
    ):
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[4 << 20 : (4 << 20) + 100] == content[4 << 20 : (4 << 20) + 100]
            assert bytes(mapped) == content


def test_archives_are_unpacked_by_their_tools(registry: Registry, place: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a/b.json", json.dumps({"n": 1}))
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        member = tarfile.TarInfo("c/d")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"four"))
    with files(registry, place, {"a.zip": packed.getvalue(), "c.tgz": tarred.getvalue()}) as shown:
        assert tool("unzip", place / "home")("-p", shown / "a.zip", "a/b.json") == b'{"n": 1}'
        assert tool("tar", place / "home")("-xzOf", shown / "c.tgz", "c/d") == b"four"


def test_a_walk_that_follows_links_ends_where_artifacts_refer_in_a_circle(
    registry: Registry, place: Path
) -> None:
    name = place.name
    empty = {
        "mediaType": mediatype.OCI_EMPTY,
        "digest": push_blob(registry.url, name, b"{}"),
        "size": 2,
    }
    first = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": empty,
        "layers": [],
        "artifactType": "a/b",
    }
    child = {
        "mediaType": mediatype.OCI_MANIFEST,
        "digest": push_manifest(registry.url, name, first, "v1"),
        "size": 1,
    }
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX}
    around = {**index, "manifests": [child], "subject": child, "artifactType": "a/loop"}
    loop = {
        "mediaType": mediatype.OCI_INDEX,
        "digest": push_manifest(registry.url, name, around),
        "size": 1,
    }
    listed = {**index, "manifests": [{**loop, "artifactType": "a/loop"}]}
    push_manifest(registry.url, name, listed, str(child["digest"]).replace(":", "-"))
    with mounted(f"{registry.host}/{name}", place / "mnt", place / "cache") as mount:
        walked = (
            tool("find", place / "home")("-L", mount.path / "_tags/v1", check=False)
            .decode()
            .splitlines()
        )
    assert any(line.endswith("/artifact-index") for line in walked)
    assert 20 < len(walked) < 500
