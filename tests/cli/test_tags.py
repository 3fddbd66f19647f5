"""`ocifs tags` and the options of `ocifs ls`, against a real registry."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.cli.ls_rows import human_size
from ocifs.oci import mediatype
from ocifs.verbs.tags import natural_key
from tests.support.image import make_layout
from tests.support.mount import mounted, run_ocifs
from tests.support.push import push_manifest
from tests.support.pushed import push_image, tar_of
from tests.support.registry import Registry, running_registry

TAGS = ["1.2", "1.10", "v1", "latest", "1.9", "v1-rc", "2024"]
SORTED = ["1.2", "1.9", "1.10", "2024", "latest", "v1", "v1-rc"]


@pytest.fixture(scope="module")
def source(registry: Registry) -> str:
    for number, tag in enumerate(TAGS):
        created = f"2024-01-0{number + 1}T03:04:05Z"
        files = {
            "etc/app.conf": b"x" * (number + 1),
            "etc/.hidden": b"h" * 3000,
            "root/.profile": b"",
        }
        push_image(registry.url, f"tagged/app:{tag}", files, created)
    return f"{registry.host}/tagged/app"


@pytest.mark.servers
def test_tags_are_listed_in_natural_order_with_one_request(
    registry: Registry, source: str, tmp_path: Path
) -> None:
    before = registry.log.read_text(errors="replace").count("/v2/tagged/app/manifests")
    for name in (source, f"{source}/_tags", f"{source}/"):
        assert run_ocifs("tags", name, cache=tmp_path).stdout.decode().split() == SORTED
    listed = json.loads(run_ocifs("tags", "--json", source, cache=tmp_path).stdout)
    assert [item["tag"] for item in listed] == SORTED
    assert listed[0]["reference"] == f"{source}:1.2" and listed[0]["digest"] is None
    assert registry.log.read_text(errors="replace").count("/v2/tagged/app/manifests") == before


@pytest.mark.servers
def test_long_lines_have_kind_time_size_and_digest(source: str, tmp_path: Path) -> None:
    lines = run_ocifs("tags", "-l", source, cache=tmp_path).stdout.decode().splitlines()
    assert lines[0].split() == ["TAG", "KIND", "CREATED", "SIZE", "DIGEST"]
    assert [line.split()[0] for line in lines[1:]] == SORTED
    tag, kind, day, minute, size, digest = lines[1].split()
    shown = json.loads(run_ocifs("tags", "-l", "--json", source, cache=tmp_path).stdout)[0]
    manifest = json.loads(run_ocifs("cat", f"{source}:1.2/manifest.json", cache=tmp_path).stdout)
    assert (tag, kind, day, minute) == ("1.2", "image", "2024-01-01", "03:04")
    assert shown == {
        "tag": "1.2",
        "reference": f"{source}:1.2",
        "kind": "image",
        "created": "2024-01-01T03:04:05Z",
        "size": manifest["config"]["size"] + manifest["layers"][0]["size"],
        "digest": digest,
        "error": None,
    }
    assert size == human_size(shown["size"])


@pytest.mark.servers
def test_an_index_has_the_size_of_its_image_for_the_platform(
    registry: Registry, tmp_path: Path
) -> None:
    children = []
    for architecture, size in (("amd64", 10), ("arm64", 100_000)):
        files = {"x": os.urandom(size)}
        digest = push_image(registry.url, "tagged/index", files, architecture=architecture)
        body = httpx.get(f"{registry.url}/v2/tagged/index/manifests/{digest}", trust_env=False)
        children.append(
            {
                "mediaType": mediatype.OCI_MANIFEST,
                "digest": digest,
                "size": len(body.content),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": children}
    digest = push_manifest(registry.url, "tagged/index", index, "1")
    name = f"{registry.host}/tagged/index"
    for platform, least, most in (("linux/amd64", 10, 99_999), ("linux/arm64", 100_000, 110_000)):
        words = ("tags", "-l", "--json", "--platform", platform, name)
        shown = json.loads(run_ocifs(*words, cache=tmp_path).stdout)[0]
        assert least < shown["size"] < most and shown["digest"] == digest
        assert shown["created"] == "2024-01-02T03:04:05Z"


@pytest.mark.servers
def test_a_tag_that_cannot_be_read_is_reported_and_the_others_are_listed(
    tmp_path: Path,
) -> None:
    with running_registry(tmp_path) as registry:
        _list_an_odd_repository(registry, tmp_path / "cache")


def _list_an_odd_repository(registry: Registry, cache: Path) -> None:
    push_image(registry.url, "tagged/odd:good", {"x": b"x"})
    digest = push_image(registry.url, "tagged/odd:gone", {"x": b"y"})
    revision = registry.log.parent / "data/docker/registry/v2/repositories/tagged/odd/_manifests"
    (revision / f"revisions/sha256/{digest.removeprefix('sha256:')}/link").unlink()
    done = run_ocifs("tags", "-l", f"{registry.host}/tagged/odd", cache=cache, check=False)
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["TAG", "gone", "good"]
    assert lines[1].split() == ["gone", "-", "-", "-", "-"]
    assert done.stderr.decode().startswith(f"ocifs: {registry.host}/tagged/odd:gone: ")


@pytest.mark.servers
def test_what_is_not_a_repository_is_an_error_with_the_command_to_use(
    registry: Registry, source: str, tmp_path: Path
) -> None:
    for words, hint in (
        ([f"{source}:1.2"], f"ocifs tags {source}"),
        ([registry.host], f"`ocifs ls {registry.host}` lists them"),
        ([f"{source}:1.2/rootfs"], f"ocifs tags {source}:1.2"),
    ):
        done = run_ocifs("tags", *words, cache=tmp_path, check=False)
        assert done.returncode == 2 and hint in done.stderr.decode(), words
    namespace = run_ocifs("tags", f"{registry.host}/tagged", cache=tmp_path, check=False)
    assert namespace.returncode == 1
    assert f"`ocifs ls {registry.host}/tagged` lists its repos" in namespace.stderr.decode()
    missing = run_ocifs("tags", f"{registry.host}/tagged/ap", cache=tmp_path, check=False)
    assert missing.returncode == 1 and b"did you mean tagged/app?" in missing.stderr


def test_the_names_of_a_layout_are_listed(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [tar_of({"x": b"x"})], tag="1.0")
    done = run_ocifs("tags", f"oci:{layout}", cache=tmp_path / "cache")
    assert done.stdout.decode().split()[0] == "1.0"
    listed = json.loads(run_ocifs("tags", "--json", "-l", f"{layout}", cache=tmp_path).stdout)
    assert listed[0]["reference"] == f"{layout}:1.0" and listed[0]["kind"] == "image"


numbers = st.integers(0, 10**30)


@given(st.lists(numbers, max_size=10), st.text("abc.-_", max_size=5))
def test_numbers_in_names_are_sorted_by_value(values: list[int], prefix: str) -> None:
    names = [f"{prefix}{value}x" for value in values]
    expected = [f"{prefix}{value}x" for value in sorted(values)]
    assert sorted(names, key=natural_key) == expected


@given(st.lists(st.text(max_size=20), max_size=10))
def test_any_names_can_be_sorted_and_the_order_is_stable(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    backwards = ordered[::-1]
    assert sorted(backwards, key=natural_key) == ordered


OPTIONS = ["-1", "-a", "-A", "-r", "-S", "-Ar", "-t", "-tr", "-RA", "-R", "-1aS"]


@pytest.mark.mount
def test_ls_prints_what_ls_prints_in_a_mount(source: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    with mounted(f"{source}:1.10", tmp_path / "mnt", tmp_path / "cache"):
        for option in OPTIONS:
            for path in ("rootfs", "rootfs/etc", "rootfs/root"):
                oracle = subprocess.run(
                    ["ls", option, path],
                    cwd=tmp_path / "mnt",
                    env=environment,
                    capture_output=True,
                    check=True,
                    timeout=60,
                )
                done = run_ocifs("ls", option, f"{source}:1.10", path, cache=tmp_path / "cache")
                assert done.stdout == oracle.stdout, (option, path)


@pytest.mark.parametrize("size", [0, 1, 999, 1023, 1024, 1025, 1536, 10188, 10240, 10241, 1048575])
@pytest.mark.parametrize("power", [0, 1, 2])
def test_sizes_are_those_of_ls(size: int, power: int, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size * 1024**power)
    line = subprocess.run(
        ["ls", "-lh", tmp_path / "file"],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout.decode()
    assert human_size(size * 1024**power) == line.split()[4]


@pytest.mark.servers
def test_ls_sorts_tags_by_the_time_of_their_images(source: str, tmp_path: Path) -> None:
    newest = run_ocifs("ls", "-t", source, "_tags", cache=tmp_path).stdout.decode().split()
    assert newest == TAGS[::-1]
    assert run_ocifs("ls", "-h", source, "_tags", cache=tmp_path).stdout.count(b"\n") == len(TAGS)


@pytest.mark.servers
def test_ls_prints_objects_for_programs(source: str, tmp_path: Path) -> None:
    words = ("ls", "--json", "-l", f"{source}:1.2/rootfs/etc")
    hidden, conf = json.loads(run_ocifs(*words, cache=tmp_path).stdout)
    assert hidden["name"] == ".hidden"
    assert conf == {
        "name": "app.conf",
        "path": "rootfs/etc/app.conf",
        "type": "file",
        "size": 1,
        "mode": "0644",
        "mtime": "2023-11-14T22:13:20Z",
        "target": None,
        "kind": None,
        "artifact_type": None,
    }
    tag = json.loads(run_ocifs("ls", "--json", "-l", f"{source}/_tags", cache=tmp_path).stdout)[0]
    assert (tag["type"], tag["kind"]) == ("link", "image")
    shown = json.loads(run_ocifs("tree", "--json", "-L", "1", source, cache=tmp_path).stdout)
    assert [item["name"] for item in shown["children"]] == ["_tags", "_manifests", "_blobs"]
    assert all(item["children"] is None for item in shown["children"])
    missing = run_ocifs("ls", "--json", f"{source}:1.2/rootfs/x", cache=tmp_path, check=False)
    assert (missing.returncode, missing.stdout) == (1, b"")
