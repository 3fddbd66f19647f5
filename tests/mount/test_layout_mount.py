"""Mounts of image layouts: no network, no cache, and the same tree as from a registry."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.image import make_layout
from tests.support.mount import mounted, run_ocifs
from tests.support.tars import a_tar

pytestmark = pytest.mark.mount


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    (tmp_path / "layout").mkdir()
    return make_layout(tmp_path / "layout", [a_tar(hello=b"hello\n")])


def archived(layout: Path) -> Path:
    archive = layout.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(layout, ".")
    return archive


def test_a_directory_and_its_archive_are_the_same_tree(layout: Path, tmp_path: Path) -> None:
    for source, place in ((f"oci:{layout}", "one"), (f"oci-archive:{archived(layout)}", "other")):
        with mounted(source, tmp_path / place, tmp_path / "cache") as mount:
            body = (mount.path / "_tags" / "v1" / "manifest.json").read_bytes()
            digest = hashlib.sha256(body).hexdigest()
            assert (
                mount.path / "_manifests" / f"sha256:{digest}" / "manifest.json"
            ).read_bytes() == body
            assert os.readlink(mount.path / "_tags" / "v1")
            layer = json.loads(body)["layers"][0]
            blob = (mount.path / "_blobs" / layer["digest"]).read_bytes()
            assert f"sha256:{hashlib.sha256(blob).hexdigest()}" == layer["digest"]
            assert (mount.path / "_tags" / "v1" / "rootfs" / "hello").read_text() == "hello\n"


def test_a_reference_in_a_layout_is_mounted_as_that_manifest(layout: Path, tmp_path: Path) -> None:
    with mounted(f"oci:{layout}:v1", tmp_path / "mnt", tmp_path / "cache") as mount:
        assert (mount.path / "rootfs" / "hello").read_text() == "hello\n"


def test_a_blob_of_a_layout_is_not_copied_into_the_cache(layout: Path, tmp_path: Path) -> None:
    with mounted(f"oci:{layout}", tmp_path / "mnt", tmp_path / "cache") as mount:
        layer = json.loads((mount.path / "_tags" / "v1" / "manifest.json").read_bytes())["layers"][
            0
        ]
        assert len((mount.path / "_blobs" / layer["digest"]).read_bytes()) == layer["size"]
    kept = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert layer["digest"].partition(":")[2] not in kept


def test_a_daemon_finds_the_layout_that_was_named_from_where_it_was_started(
    layout: Path, tmp_path: Path
) -> None:
    (tmp_path / "mnt").mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "ocifs", "mount", "oci:layout", "mnt"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    try:
        assert json.loads((tmp_path / "mnt" / "_tags" / "v1" / "manifest.json").read_bytes())[
            "layers"
        ]
    finally:
        run_ocifs("umount", str(tmp_path / "mnt"), cache=tmp_path / "cache")


@pytest.mark.parametrize("command", ["ls", "tree", "cat"])
def test_the_commands_read_a_layout_without_a_mount(
    layout: Path, tmp_path: Path, command: str
) -> None:
    path = "_manifests/v1/manifest.json" if command == "cat" else "_manifests/v1"
    said = run_ocifs(command, f"oci:{layout}", path, cache=tmp_path / "cache").stdout
    assert b"layers" in said


def test_of_a_sparse_layout_everything_that_is_there_is_read(layout: Path, tmp_path: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    manifest = (layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_bytes()
    digest = json.loads(manifest)["layers"][0]["digest"]
    (layout / "blobs" / digest.replace(":", "/")).unlink()
    with mounted(f"oci:{layout}", tmp_path / "mnt", tmp_path / "cache") as mount:
        assert (mount.path / "manifest.json").read_bytes() == manifest
        assert json.loads((mount.path / "config.json").read_bytes())["os"] == "linux"
        assert (mount.path / "layers" / "0" / "digest").read_text() == f"{digest}\n"
        for path in ("layers/0/blob", "rootfs/hello", "layers/0/tree/hello"):
            with pytest.raises(OSError) as raised:
                (mount.path / path).read_bytes()
            assert raised.value.errno == errno.EIO
        said = (mount.path / ".ocifs" / "errors").read_text()
        assert "in the layout" in said
        assert "registry" not in said


def test_a_fifo_in_a_mounted_layout_is_an_error_at_once_and_the_daemon_ends(
    layout: Path, tmp_path: Path
) -> None:
    with mounted(f"oci:{layout}", tmp_path / "mnt", tmp_path / "cache") as mount:
        digest = json.loads((mount.path / "manifest.json").read_bytes())["layers"][0]["digest"]
        for path in (layout / "blobs" / digest.replace(":", "/"), layout / "index.json"):
            path.unlink()
            os.mkfifo(path)
        for path in (
            "layers/0/blob",
            "rootfs/hello",
            "_blobs/" + digest,
            "_manifests/v2/manifest.json",
        ):
            read = subprocess.run(
                ["cat", mount.path / path], capture_output=True, timeout=20, check=False
            )
            assert b"Input/output error" in read.stderr, path
        mount.process.terminate()
        mount.process.wait(20)
