"""Artifacts pushed by crane are read through a mount and compared with the output of crane."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.publishers.test_oras import shape
from tests.support.mount import mounted
from tests.support.registry import Registry
from tests.support.tools import Tool, tool


def push(crane: Tool, reference: str) -> None:
    """Push an image with two layers. The second replaces a file of the first."""
    for number, files in enumerate(
        ({"etc/a": b"old", "etc/b": os.urandom(70000)}, {"etc/a": b"new", "srv/c/d": b"d"})
    ):
        with tarfile.open(crane.home / f"{number}.tar", "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    layers = [option for number in range(2) for option in ("-f", f"{number}.tar")]
    crane("append", "--oci-empty-base", *layers, "-t", reference)
    crane("mutate", reference, "--annotation", "org.example.note=by crane", "-t", reference)


@pytest.mark.servers
@pytest.mark.mount
def test_an_image_is_what_crane_pulls(registry: Registry, tmp_path: Path) -> None:
    crane = tool("crane", tmp_path / "home")
    reference = f"{registry.host}/publishers/crane:1"
    push(crane, reference)
    with mounted(f"{registry.host}/publishers", tmp_path / "mnt", tmp_path / "cache") as mount:
        base = mount.path / "crane:1"
        assert (base / "manifest.json").read_bytes() == crane("manifest", reference)
        assert (base / "digest").read_bytes() == crane("digest", reference)
        assert (base / "config.json").read_bytes() == crane("config", reference)
        assert (base / "annotations/org.example.note").read_text() == "by crane"
        repository = reference.rpartition(":")[0]
        for layer in json.loads((base / "manifest.json").read_bytes())["layers"]:
            number = next(
                n
                for n in range(2)
                if (base / f"layers/{n}/digest").read_text().strip() == layer["digest"]
            )
            assert (base / f"layers/{number}/blob").read_bytes() == crane(
                "blob", f"{repository}@{layer['digest']}"
            )
        with tarfile.open(fileobj=io.BytesIO(crane("export", reference, "-"))) as archive:
            exported = {
                member.name: archive.extractfile(member).read()
                for member in archive
                if member.isfile()
            }  # type: ignore[union-attr]
        assert {
            name: content for name, content in shape(base / "rootfs").items() if content is not None
        } == exported
        assert (
            sorted(path.name for path in (mount.path / "crane/_tags").iterdir())
            == crane("ls", repository).decode().split()
        )
