"""The examples of the page on Python run unchanged, in the order of the page."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from pathlib import Path

import duckdb
import pytest

from ocifs.oci import mediatype
from tests.documents.session import blocks
from tests.registry.conftest import nobodys_home  # noqa: F401 (a fixture of all tests here)
from tests.support.image import make_layout
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.tars import a_tar

PAGE = Path(__file__).parents[2] / "docs/reference/python.md"


def push(
    registry: Registry,
    repository: str,
    config: tuple[str, object],
    layer: tuple[str, bytes],
    title: str = "",
) -> None:
    """Push a manifest `v1` with one layer, with the given media types."""

    def described(media_type: str, content: bytes) -> dict[str, object]:
        digest = push_blob(registry.url, repository, content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    titled = {"annotations": {"org.opencontainers.image.title": title}} if title else {}
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": described(config[0], json.dumps(config[1]).encode()),
        "layers": [{**described(*layer), **titled}],
    }
    push_manifest(registry.url, repository, manifest, "v1")


@pytest.mark.servers
def test_the_examples_print_the_documented_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "r").mkdir()
    duckdb.sql(
        f"COPY (SELECT range AS n FROM range(1000)) TO '{tmp_path}/t.parquet' (FORMAT parquet)"
    )
    layer = a_tar(**{"etc/motd": b"hello"})
    image = {
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    }
    table = (tmp_path / "t.parquet").read_bytes()
    monkeypatch.chdir(tmp_path)
    layout = make_layout(tmp_path / "layout", [a_tar(**{"etc/os-release": b"ID=here"})])
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        archive.add(layout, ".")
    with running_registry(tmp_path / "r") as registry:
        push(registry, "team/app", (mediatype.OCI_CONFIG, image), (mediatype.OCI_LAYER, layer))
        push(
            registry,
            "team/data",
            (mediatype.OCI_EMPTY, {}),
            ("application/x.table", table),
            "table.parquet",
        )
        said = io.StringIO()
        found = blocks(PAGE.read_text().replace("registry.example.com", registry.host))
        with contextlib.redirect_stdout(said):
            names: dict[str, object] = {}
            for block in found:
                exec(compile(block, str(PAGE), "exec"), names)
        names["fs"].close()  # type: ignore[attr-defined]
    assert len(found) == 7
    for words in (
        "rootfs/etc/motd 5",
        "app/_tags/v1 image",
        "b'image\\n'",
        "['etc/motd']",
        "no 'absent' in the directory of a manifest",
        "team/data/_tags/v1",
        "image app:v1",
        "2 blobs are pinned",
        "ID=here",
        "499500",
        "1000",
    ):
        assert words in said.getvalue(), said.getvalue()
