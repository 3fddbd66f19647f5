"""`ocifs find`, `ocifs ls -l` and `ocifs inspect --json` against a real registry and a layout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.support.image import make_layout
from tests.support.mount import run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

HELM = "application/vnd.cncf.helm."


def push(registry: Registry, repository: str, tag: str, config_type: str, layer_type: str) -> None:
    def descriptor(media_type: str, content: bytes) -> dict[str, object]:
        digest = push_blob(registry.url, repository, content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": descriptor(config_type, json.dumps({"name": tag, "version": "1"}).encode()),
        "layers": [descriptor(layer_type, f"{repository}:{tag}".encode())],
    }
    push_manifest(registry.url, repository, manifest, tag)


@pytest.fixture(scope="module")
def source(registry: Registry) -> str:
    for tag in ("1", "2"):
        push(
            registry,
            "found/charts/web",
            tag,
            HELM + "config.v1+json",
            HELM + "chart.content.v1.tar+gzip",
        )
    push(registry, "found/app", "v1", mediatype.OCI_CONFIG, mediatype.OCI_LAYER_GZIP)
    return f"{registry.host}/found"


@pytest.mark.servers
def test_tags_are_found_by_what_they_are_and_nothing_but_manifests_is_fetched(
    registry: Registry, source: str, tmp_path: Path
) -> None:
    before = registry.log.read_text(errors="replace").count("/blobs/")
    done = run_ocifs(
        "find", registry.host, "--repo", "found/app", "--kind", "helm-chart", cache=tmp_path
    )
    lines = done.stdout.decode().splitlines()
    found = [f"helm-chart\t{source}/charts/web:{tag}" for tag in ("1", "2")]
    assert [line for line in lines if "/found/" in line] == found
    assert {line.partition("\t")[0] for line in lines} == {"helm-chart"}
    below = run_ocifs("find", source, cache=tmp_path)
    assert below.stdout.decode().splitlines() == [f"image\t{source}/app:v1", *found]
    assert registry.log.read_text(errors="replace").count("/blobs/") == before
    one = run_ocifs("find", f"{source}/charts/web:1", cache=tmp_path)
    assert one.stdout.decode() == f"helm-chart\t{source}/charts/web:1\n"
    assert re.fullmatch(rb"1 tag in [0-9.]+ s\n", one.stderr)


@pytest.mark.servers
def test_an_odd_manifest_is_told_and_the_others_are_found(
    registry: Registry, tmp_path: Path
) -> None:
    push(registry, "oddities", "good", HELM + "config.v1+json", HELM + "chart.content.v1.tar+gzip")
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
    push_manifest(registry.url, "oddities", index, "gone")
    place = (
        registry.log.parent
        / "data/docker/registry/v2/repositories/oddities/_manifests/tags/gone/current/link"
    )
    place.write_text("sha256:" + "0" * 64)
    done = run_ocifs("find", f"{registry.host}/oddities", cache=tmp_path, check=False)
    name = f"{registry.host}/oddities"
    assert (done.returncode, done.stdout.decode()) == (1, f"helm-chart\t{name}:good\n")
    assert f"ocifs: {name}:gone: " in done.stderr.decode()


def test_a_kind_that_does_not_exist_and_a_registry_that_lists_nothing_are_errors(
    tmp_path: Path,
) -> None:
    assert (
        run_ocifs("find", "127.0.0.1:1", "--kind", "helm", cache=tmp_path, check=False).returncode
        == 2
    )
    assert run_ocifs("find", "127.0.0.1:1", cache=tmp_path, check=False).returncode == 1


@pytest.mark.servers
def test_a_long_listing_has_the_kind_of_what_a_link_leads_to(source: str, tmp_path: Path) -> None:
    tags = (
        run_ocifs("ls", "-l", f"{source}/charts/web", "_tags", cache=tmp_path)
        .stdout.decode()
        .splitlines()
    )
    assert [line.split()[4:] for line in tags] == [
        ["helm-chart", "1", "->", "../_manifests/1"],
        ["helm-chart", "2", "->", "../_manifests/2"],
    ]
    files = (
        run_ocifs("ls", "-l", f"{source}/charts/web:1", "layers/0", cache=tmp_path)
        .stdout.decode()
        .splitlines()
    )
    assert {line.split()[4] for line in files} == {"-"}


def test_inspect_says_everything_to_programs(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [b"\0" * 1024])
    said = json.loads(run_ocifs("inspect", "--json", f"oci:{layout}:v1", cache=tmp_path).stdout)
    assert (said["kind"], said["rule"], said["decided_by"]) == (
        "image",
        "image",
        "config.mediaType",
    )
    assert [layer["media_type"] for layer in said["layers"]] == [mediatype.OCI_LAYER_GZIP]
    assert said["referrers"] == []
    config = json.loads(run_ocifs("cat", f"oci:{layout}:v1", "config.json", cache=tmp_path).stdout)
    assert said["platform"] == f"{config['os']}/{config['architecture']}"
    inner = config.get("config") or {}
    for name, member in (("env", "Env"), ("command", "Cmd"), ("labels", "Labels")):
        assert said[name] == inner.get(member)
    assert said["created"] == config.get("created")
    assert said["history"] == config.get("history")
    assert said["files"][0] == {
        "path": "layer-0.tar.gz",
        "digests": [said["layers"][0]["digest"]],
        "size": said["layers"][0]["size"],
        "unpack": False,
    }


@pytest.mark.servers
def test_inspect_lists_tags_with_one_request_more(registry: Registry, tmp_path: Path) -> None:
    # This registry has no referrers API, so signatures are looked for among the tags anyway.
    lists = 1
    for tag in ("1.10", "1.9"):
        push(registry, "inspected-tags", tag, mediatype.OCI_CONFIG, mediatype.OCI_LAYER_GZIP)
    source = f"{registry.host}/inspected-tags:1.9"

    def inspect(*options: str) -> tuple[str, int]:
        cache = tmp_path / "-".join(options or ("none",))
        done = run_ocifs("inspect", "-v", *options, source, cache=cache)
        return done.stdout.decode(), done.stderr.count(b"/tags/list")

    text, requests = inspect("--json")
    found = json.loads(text)
    assert (found["tags"], found["repository_tags"], requests) == (["1.9"], None, lists)
    text, requests = inspect("--json", "--tags")
    found = json.loads(text)
    assert (found["tags"], found["repository_tags"]) == (["1.9"], ["1.9", "1.10"])
    assert requests == lists + 1
    text, requests = inspect()
    assert "\nKnown tags of this manifest\n  1.9\n" in text and requests == lists
    text, requests = inspect("--tags")
    assert text.endswith("\nTags of the repository\n  1.9\n  1.10\n") and requests == lists + 1


@pytest.mark.servers
def test_inspect_says_what_refers_to_a_manifest(registry: Registry, tmp_path: Path) -> None:
    push(registry, "inspected", "v1", mediatype.OCI_CONFIG, mediatype.OCI_LAYER_GZIP)
    empty = {
        "mediaType": mediatype.OCI_EMPTY,
        "digest": push_blob(registry.url, "inspected", b"{}"),
        "size": 2,
    }
    said = json.loads(
        run_ocifs("inspect", "--json", f"{registry.host}/inspected:v1", cache=tmp_path).stdout
    )
    subject = {"mediaType": mediatype.OCI_MANIFEST, "digest": said["digest"], "size": said["size"]}
    kind = "application/spdx+json"
    sbom = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [],
    }
    digest = push_manifest(registry.url, "inspected", {**sbom, "subject": subject})
    listed = {
        "mediaType": mediatype.OCI_MANIFEST,
        "digest": digest,
        "size": 9,
        "artifactType": kind,
    }
    fallback = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [listed]}
    push_manifest(registry.url, "inspected", fallback, said["digest"].replace(":", "-"))
    page = run_ocifs(
        "inspect", f"{registry.host}/inspected:v1", cache=tmp_path / "fresh"
    ).stdout.decode()
    assert f"Referrers\n  sbom  spdx  {digest}\n" in page
    signed = push_manifest(
        registry.url,
        "inspected",
        {**sbom, "annotations": {"n": "1"}},
        said["digest"].replace(":", "-") + ".sig",
    )
    again = run_ocifs(
        "inspect", "--json", f"{registry.host}/inspected:v1", cache=tmp_path / "again"
    ).stdout
    listed_sbom, signature = json.loads(again)["referrers"]
    assert (listed_sbom["kind"], listed_sbom["digest"]) == ("sbom", digest)
    assert (listed_sbom["artifact_type"], listed_sbom["claim"]) == ("application/spdx+json", None)
    assert (signature["kind"], signature["digest"]) == ("cosign-signature", signed)
    assert signature["claim"] == {"about": said["digest"], "verified": False}


def test_several_sources_are_searched_one_after_the_other_and_one_that_is_down_is_told(
    registry: Registry, source: str, tmp_path: Path
) -> None:
    done = run_ocifs(
        "find", "127.0.0.1:1/x", f"{source}/charts", f"{source}/app", cache=tmp_path, check=False
    )
    assert done.stdout.decode().splitlines()[-1] == f"image\t{source}/app:v1"
    assert f"helm-chart\t{source}/charts/web:1" in done.stdout.decode()
    assert done.returncode == 1
    assert done.stderr.startswith(b"ocifs: 127.0.0.1:1/x: ")


@pytest.mark.servers
def test_a_terminal_sees_how_far_the_search_is_and_the_results_stay_clean(
    source: str, tmp_path: Path
) -> None:
    seen, terminal = os.openpty()
    command = [sys.executable, "-m", "ocifs", "find", source]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TERM": "xterm"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=True
    )
    os.close(terminal)
    shown = os.read(seen, 1 << 16)
    os.close(seen)
    assert done.stdout.decode().splitlines()[1] == f"helm-chart\t{source}/charts/web:1"
    assert b"reading " in shown
    # The line is removed, and the last one stays.
    assert re.fullmatch(rb"3 tags in [0-9.]+ s\r\n", shown.rpartition(b"\r\x1b[K")[2])
