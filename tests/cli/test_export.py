"""`ocifs export`: layouts that skopeo and umoci read, compared with those of skopeo.

Interrupted and repeated exports, and exports into a layout with other images.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from ocifs.layout.contents import REF_NAME
from ocifs.oci import mediatype
from tests.support.image import make_layout
from tests.support.mount import run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.tars import a_tar
from tests.support.tools import tool

pytestmark = [pytest.mark.servers]

CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
).encode()


def blobs(layout: Path) -> dict[str, bytes]:
    """Every blob by its name, which must be its digest."""
    found = {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}
    assert [
        name for name, content in found.items() if hashlib.sha256(content).hexdigest() != name
    ] == []
    return found


def listed(layout: Path) -> dict[str, str]:
    """The digests in index.json by name."""
    manifests = json.loads((layout / "index.json").read_text())["manifests"]
    return {each.get("annotations", {}).get(REF_NAME, ""): each["digest"] for each in manifests}


def image(
    registry: Registry, repository: str, seed: int, layers: int = 2
) -> tuple[dict[str, object], list[bytes]]:
    contents = [random.Random(f"{repository} {seed} {n}").randbytes(200_000) for n in range(layers)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {
            "mediaType": mediatype.OCI_CONFIG,
            "digest": push_blob(registry.url, repository, CONFIG),
            "size": len(CONFIG),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": push_blob(registry.url, repository, each),
                "size": len(each),
            }
            for each in contents
        ],
    }
    digest = push_manifest(registry.url, repository, manifest, f"image-{seed}")
    size = len(json.dumps(manifest).encode())
    return {"mediaType": mediatype.OCI_MANIFEST, "digest": digest, "size": size}, contents


def index(registry: Registry, repository: str) -> list[dict[str, object]]:
    children = []
    for seed, machine in enumerate(("amd64", "arm64")):
        child, _ = image(registry, repository, seed)
        children.append({**child, "platform": {"os": "linux", "architecture": machine}})
    push_manifest(
        registry.url,
        repository,
        {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": children},
        "v1",
    )
    return children


def test_an_image_is_what_skopeo_copies_and_umoci_unpacks(
    registry: Registry, tmp_path: Path
) -> None:
    skopeo, umoci = tool("skopeo", tmp_path / "home"), tool("umoci", tmp_path / "home")
    made = make_layout(tmp_path / "made", [a_tar(**{"etc/a": b"1\n"}), a_tar(**{"etc/b": b"2\n"})])
    reference = f"{registry.host}/export/image:v1"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{made}:v1", f"docker://{reference}")
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{tmp_path}/theirs:v1")
    done = run_ocifs("export", reference, f"oci:{tmp_path}/ours", cache=tmp_path / "cache")
    assert re.fullmatch(rb"[^\n]+ in [^\n]+, 3 blobs\n", done.stderr)
    assert blobs(tmp_path / "ours") == blobs(tmp_path / "theirs")
    assert (
        listed(tmp_path / "ours")
        == listed(tmp_path / "theirs")
        == {"v1": done.stdout.decode().strip()}
    )
    shown = json.loads(skopeo("inspect", f"oci:{tmp_path}/ours:v1"))
    assert shown["Digest"] == done.stdout.decode().strip()
    umoci("unpack", "--rootless", "--image", f"{tmp_path}/ours:v1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/etc/b").read_text() == "2\n"


def test_an_index_is_exported_with_all_its_children(registry: Registry, tmp_path: Path) -> None:
    skopeo = tool("skopeo", tmp_path / "home")
    index(registry, "export/index")
    reference = f"{registry.host}/export/index:v1"
    skopeo(
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        f"docker://{reference}",
        f"oci:{tmp_path}/theirs:v1",
    )
    run_ocifs("export", reference, f"oci:{tmp_path}/ours:mine", cache=tmp_path / "cache")
    assert blobs(tmp_path / "ours") == blobs(tmp_path / "theirs")
    assert listed(tmp_path / "ours") == {"mine": listed(tmp_path / "theirs")["v1"]}


def test_with_a_platform_its_child_is_exported_alone(registry: Registry, tmp_path: Path) -> None:
    children = index(registry, "export/platform")
    reference = f"{registry.host}/export/platform:v1"
    done = run_ocifs(
        "export",
        "--platform",
        "linux/arm64",
        reference,
        f"oci:{tmp_path}/ours",
        cache=tmp_path / "c",
    )
    assert (
        listed(tmp_path / "ours")
        == {"v1": children[1]["digest"]}
        == {"v1": done.stdout.decode().strip()}
    )
    assert len(blobs(tmp_path / "ours")) == 4
    none = run_ocifs(
        "export",
        "--platform",
        "linux/s390x",
        reference,
        f"oci:{tmp_path}/no",
        cache=tmp_path / "c",
        check=False,
    )
    assert (none.returncode, b"linux-amd64, linux-arm64" in none.stderr) == (1, True)
    assert not (tmp_path / "no/index.json").exists()


def test_what_is_there_and_right_is_not_fetched_again(registry: Registry, tmp_path: Path) -> None:
    repository = "export/again"
    manifest, (first, last) = image(registry, repository, 1)
    gone = f"sha256:{hashlib.sha256(last).hexdigest()}"
    httpx.delete(f"{registry.url}/v2/{repository}/blobs/{gone}", trust_env=False).raise_for_status()
    where = f"oci:{tmp_path}/ours"
    reference = f"{registry.host}/{repository}:image-1"
    failed = run_ocifs("export", reference, where, cache=tmp_path / "one", check=False)
    assert failed.returncode == 1 and gone.encode() in failed.stderr
    assert not (tmp_path / "ours/index.json").exists()  # nothing incomplete is listed
    push_blob(registry.url, repository, last)
    run_ocifs("export", reference, where, cache=tmp_path / "two")
    assert listed(tmp_path / "ours") == {"image-1": manifest["digest"]}
    assert {first, last} <= set(blobs(tmp_path / "ours").values())
    digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in (first, last)]
    paths = [f"/v2/{repository}/blobs/{digest}" for digest in digests]
    before = [registry.requests("GET", path) for path in paths]
    (tmp_path / "ours/blobs" / digests[1].replace(":", "/")).unlink()
    run_ocifs("export", reference, where, cache=tmp_path / "three")
    assert [registry.requests("GET", path) for path in paths] == [before[0], before[1] + 1]


def test_what_is_damaged_is_fetched_again_and_leftovers_go(
    registry: Registry, tmp_path: Path
) -> None:
    _, (first, _) = image(registry, "export/damage", 1)
    reference, where = f"{registry.host}/export/damage:image-1", f"oci:{tmp_path}/ours"
    run_ocifs("export", reference, where, cache=tmp_path / "cache")
    good = blobs(tmp_path / "ours")
    path = tmp_path / "ours/blobs/sha256" / hashlib.sha256(first).hexdigest()
    path.write_bytes(bytes([first[0] ^ 1]) + first[1:])
    (tmp_path / "ours/.ocifs-1").write_bytes(b"of an export that was killed")
    run_ocifs("export", reference, where, cache=tmp_path / "cache")
    assert blobs(tmp_path / "ours") == good
    assert sorted(os.listdir(tmp_path / "ours")) == ["blobs", "index.json", "oci-layout"]


def test_what_others_listed_stays_and_a_name_moves(registry: Registry, tmp_path: Path) -> None:
    skopeo = tool("skopeo", tmp_path / "home")
    made = make_layout(tmp_path / "made", [a_tar(file=b"1")], tag="theirs")
    skopeo("copy", f"oci:{made}:theirs", f"oci:{tmp_path}/ours:theirs")
    before = listed(tmp_path / "ours")
    old, _ = image(registry, "export/stays", 1)
    new, _ = image(registry, "export/stays", 2)
    for seed in (1, 2, 2):
        reference = f"{registry.host}/export/stays:image-{seed}"
        run_ocifs("export", reference, f"oci:{tmp_path}/ours:mine", cache=tmp_path / "cache")
    assert listed(tmp_path / "ours") == {**before, "": old["digest"], "mine": new["digest"]}
    assert len(json.loads((tmp_path / "ours/index.json").read_text())["manifests"]) == 3
    skopeo("inspect", "--raw", f"oci:{tmp_path}/ours:theirs")


def test_a_prefetched_image_is_exported_without_its_registry(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as registry:
        manifest, _ = image(registry, "team/app", 1)
        reference = f"{registry.host}/team/app:image-1"
        paths = ("layers/0/blob", "layers/1/blob", "config.json")
        done = run_ocifs("prefetch", reference, *paths, cache=tmp_path / "cache")
        assert re.fullmatch(rb"[^\n]+ in [^\n]+, 3 files\n", done.stderr)
    run_ocifs("export", "--offline", reference, f"oci:{tmp_path}/ours", cache=tmp_path / "cache")
    assert listed(tmp_path / "ours") == {"image-1": manifest["digest"]}
    assert len(blobs(tmp_path / "ours")) == 4
    run_ocifs(
        "export", f"oci:{tmp_path}/ours:image-1", f"oci:{tmp_path}/copy", cache=tmp_path / "cache"
    )
    assert blobs(tmp_path / "copy") == blobs(tmp_path / "ours")


def test_a_directory_of_something_else_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    image(registry, "export/else", 1)
    reference = f"{registry.host}/export/else:image-1"
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("mine")
    (tmp_path / "file").write_text("")
    (tmp_path / "held").mkdir()
    holder = os.open(tmp_path / "held", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        for where in ("home", "file", "held"):
            done = run_ocifs(
                "export",
                reference,
                f"oci:{tmp_path}/{where}",
                cache=tmp_path / "cache",
                check=False,
            )
            assert (done.returncode, f"{tmp_path}/{where}" in done.stderr.decode()) == (2, True), (
                done.stderr
            )
    finally:
        os.close(holder)
    assert os.listdir(tmp_path / "home") == ["letter"]
    for source, where in ((reference, "ours"), (registry.host, "oci:ours")):
        assert (
            run_ocifs("export", source, where, cache=tmp_path / "cache", check=False).returncode
            == 2
        )


def test_a_terminal_is_shown_the_progress(registry: Registry, tmp_path: Path) -> None:
    image(registry, "export/bar", 1)
    words = f"export {registry.host}/export/bar:image-1 oci:{tmp_path}/ours"
    script = ["script", "-qec", f"XDG_CACHE_HOME={tmp_path}/cache ocifs {words}", "/dev/null"]
    path = f"{Path('.venv/bin').resolve()}:{os.environ['PATH']}"
    done = subprocess.run(
        script, env={**os.environ, "PATH": path}, capture_output=True, timeout=60, check=True
    )
    assert b"390.7 KiB of 390.7 KiB  100%" in done.stdout
