"""Artifacts pushed by ORAS are read through a mount and compared with the files that ORAS pulls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import mounted
from tests.support.registry import Registry
from tests.support.tools import Tool, tool

pytestmark = [pytest.mark.servers, pytest.mark.mount]
BIG = os.urandom(3 << 20)


def shape(root: Path) -> dict[str, bytes | str | None]:
    """Every path below a directory, with the content of a file, a link's target, or None."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def oras(tmp_path: Path) -> Tool:
    return tool("oras", tmp_path / "home")


@pytest.fixture
def shown(registry: Registry, tmp_path: Path) -> Iterator[Path]:
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        yield mount.path


def test_files_and_directories_are_what_oras_pulls(
    registry: Registry, oras: Tool, shown: Path
) -> None:
    site = oras.home / "site"
    (site / "pages/deep").mkdir(parents=True)
    (site / "pages/deep/a.md").write_bytes(b"# a\n")
    (site / "empty").mkdir()
    (site / "run").write_bytes(b"#!/bin/sh\n")
    (site / "run").chmod(0o755)
    (site / "latest").symlink_to("pages/deep/a.md")
    (oras.home / "big.bin").write_bytes(BIG)
    (oras.home / "nested").mkdir()
    (oras.home / "nested/note.txt").write_bytes(b"note\n")
    reference = f"{registry.host}/publishers/oras:1"
    pushed = ("site", "big.bin:application/x-big", "nested/note.txt:text/plain")
    noted = ("--annotation", "org.example/key=a value\nof two lines")
    oras(
        "push",
        "--plain-http",
        "--artifact-type",
        "application/vnd.example.site",
        *noted,
        reference,
        *pushed,
    )
    oras("pull", "--plain-http", "--output", "pulled", reference)
    artifact = shown / "publishers/oras/_tags/1"
    assert shape(artifact / "files") == shape(oras.home / "pulled")
    assert (artifact / "files/site/latest").read_bytes() == b"# a\n"
    assert (artifact / "files/site/run").stat().st_mode & 0o777 == 0o755
    assert (artifact / "manifest.json").read_bytes() == oras(
        "manifest", "fetch", "--plain-http", reference
    )
    assert (artifact / "artifact-type").read_text() == "application/vnd.example.site\n"
    assert (artifact / "annotations/org.example%2Fkey").read_text() == "a value\nof two lines"


def test_an_attachment_is_found_from_its_subject(
    registry: Registry, oras: Tool, shown: Path
) -> None:
    (oras.home / "app").write_bytes(b"app")
    (oras.home / "sbom.spdx.json").write_bytes(b'{"spdxVersion": "SPDX-2.3"}')
    reference = f"{registry.host}/publishers/attached:1"
    oras("push", "--plain-http", reference, "app")
    sbom = "sbom.spdx.json:application/spdx+json"
    oras("attach", "--plain-http", "--artifact-type", "application/spdx+json", reference, sbom)
    base = shown / "publishers/attached/_tags/1"
    (found,) = (base / "referrers/sbom").iterdir()
    assert (found / "files/sbom.spdx.json").read_bytes() == b'{"spdxVersion": "SPDX-2.3"}'
    assert (found / "subject/digest").read_text() == (base / "digest").read_text()
