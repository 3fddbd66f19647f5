"""`ocifs find --path`: which tags contain a file, compared with the shell in a mount."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocifs.errors import UsageError
from ocifs.verbs.paths import PathPattern, parse_pattern
from tests.support.mount import run_ocifs
from tests.support.pushed import push_image
from tests.support.registry import Registry, running_registry

FILES: dict[str, dict[str, bytes | str]] = {
    "1.9": {
        "opt/x": b"x",
        "etc/a.conf": b"a",
        "etc/.b.conf": b"b",
        "usr/bin/sh": b"",
        "bin": "usr/bin",
    },
    "1.10": {"etc/c/d.conf": b"d", "opt/y": b"y", "loop": ".", "up": "..", "gone": "nowhere"},
}

PATTERNS: dict[str, dict[str, list[str]]] = {
    "/opt/x": {"1.9": ["opt/x"]},
    "opt/x": {"1.9": ["opt/x"]},
    "opt/": {"1.9": ["opt"], "1.10": ["opt"]},
    "opt/[xy]": {"1.9": ["opt/x"], "1.10": ["opt/y"]},
    "etc/*.conf": {"1.9": ["etc/.b.conf", "etc/a.conf"]},
    "etc/**/*.conf": {"1.9": ["etc/.b.conf", "etc/a.conf"], "1.10": ["etc/c/d.conf"]},
    "*.conf": {"1.9": ["etc/.b.conf", "etc/a.conf"], "1.10": ["etc/c/d.conf"]},
    "**/**/d.conf": {"1.10": ["etc/c/d.conf"]},
    "bin/sh": {"1.9": ["bin/sh"]},
    "b*/sh": {"1.9": ["bin/sh"]},
    "**/sh": {"1.9": ["usr/bin/sh"]},
    "loop/opt/y": {"1.10": ["loop/opt/y"]},
    "gone": {"1.10": ["gone"]},
    "gone/x": {},
    "opt/x/y": {},
    "nothing": {},
}


@pytest.fixture(scope="module")
def source(registry: Registry) -> str:
    for tag, files in FILES.items():
        push_image(registry.url, f"paths/app:{tag}", files)
    return f"{registry.host}/paths"


@pytest.mark.servers
@pytest.mark.parametrize("pattern", PATTERNS)
def test_paths_are_found_in_images(
    pattern: str, source: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "paths"
    done = run_ocifs("find", source, "--path", pattern, cache=cache)
    assert done.stdout.decode().splitlines() == [
        f"image\t{source}/app:{tag}\trootfs/{path}"
        for tag in ("1.9", "1.10")
        for path in PATTERNS[pattern].get(tag, ())
    ]


@pytest.mark.servers
def test_found_paths_are_objects_for_programs(source: str, tmp_path: Path) -> None:
    done = run_ocifs("find", f"{source}/app/_tags", "--path", "opt/x", "--json", cache=tmp_path)
    image = {
        "kind": "image",
        "artifact_type": "application/vnd.oci.image.config.v1+json",
        "reference": f"{source}/app:1.9",
    }
    assert json.loads(done.stdout) == [{**image, "paths": ["rootfs/opt/x"]}]
    kinds = run_ocifs("find", f"{source}/app:1.9", "--json", cache=tmp_path)
    assert json.loads(kinds.stdout) == [{**image, "paths": None}]


@pytest.mark.servers
def test_an_image_that_cannot_be_searched_is_reported(tmp_path: Path) -> None:
    with running_registry(tmp_path) as registry:
        _search_a_broken_image(registry, tmp_path / "cache")


def _search_a_broken_image(registry: Registry, cache: Path) -> None:
    push_image(registry.url, "cutpaths/app:good", {"opt/x": b"x"})
    digest = push_image(registry.url, "cutpaths/app:broken", {"opt/x": b"other"})
    manifest = json.loads(
        run_ocifs("cat", f"{registry.host}/cutpaths/app@{digest}/manifest.json", cache=cache).stdout
    )
    layer = manifest["layers"][0]["digest"].removeprefix("sha256:")
    blobs = registry.log.parent / "data/docker/registry/v2/blobs/sha256"
    (blobs / layer[:2] / layer / "data").unlink()
    name = f"{registry.host}/cutpaths"
    done = run_ocifs("find", name, "--path", "/opt/x", cache=cache, check=False)
    assert done.returncode == 1
    assert done.stdout.decode() == f"image\t{name}/app:good\trootfs/opt/x\n"
    assert f"ocifs: {name}/app:broken: " in done.stderr.decode()


@pytest.mark.parametrize("text", ["", "/", "a/../b", "./x", "a\0b", "x" * 5000])
def test_patterns_that_match_no_path_are_errors(text: str) -> None:
    with pytest.raises(UsageError, match="invalid pattern"):
        parse_pattern(text)


def test_many_wildcards_take_one_step_for_each_name() -> None:
    pattern = parse_pattern("/".join(["**", "a*a*a*a"] * 50))
    state = pattern.reachable({0})
    for _ in range(200):
        state = pattern.reachable({*state})
        assert len(state) <= len(pattern.parts) + 1
    assert isinstance(pattern, PathPattern)
