"""`ocifs cache` with a real registry, and next to a real mount."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.store.disk import Disk
from tests.mount.test_registry_mount import push_files
from tests.support.image import COMPRESSIONS, LAYER
from tests.support.mount import mounted, run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry
from tests.support.tars import a_tar

pytestmark = [pytest.mark.servers]


def cached(cache: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return run_ocifs("cache", *words, cache=cache, check=check)


def listed(cache: Path) -> dict[str, dict[str, object]]:
    """The output of `list --json`, by digest and kind."""
    return {
        f"{each['kind']} {each['digest']}": each
        for each in json.loads(cached(cache, "list", "--json").stdout)["items"]
    }


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push_image(
    registry: Registry, repository: str, seed: int, machine: str = "amd64"
) -> tuple[dict[str, object], str]:
    """An image of one layer for a platform: its descriptor, and the digest of the layer."""
    plain = a_tar(file=random.Random(seed).randbytes(100_000))
    # The uncompressed tar of a bzip2 layer is cached next to its index.
    layer = COMPRESSIONS["+bzip2"](plain)
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]},
    }
    body = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {
            "mediaType": mediatype.OCI_CONFIG,
            "digest": push_blob(registry.url, repository, body),
            "size": len(body),
        },
        "layers": [
            {
                "mediaType": f"{LAYER}+gzip",
                "digest": push_blob(registry.url, repository, layer),
                "size": len(layer),
            }
        ],
    }
    digest = push_manifest(registry.url, repository, manifest, f"image-{seed}")
    platform = {"architecture": machine, "os": "linux"}
    size = len(json.dumps(manifest).encode())
    return {
        "mediaType": mediatype.OCI_MANIFEST,
        "digest": digest,
        "size": size,
        "platform": platform,
    }, digest_of(layer)


def test_path_is_the_directory_or_the_file_of_a_digest(registry: Registry, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(100_000)
    push_files(registry, "cache/path", "v1", content)
    assert cached(tmp_path, "path").stdout.decode() == f"{tmp_path}/ocifs\n"
    run_ocifs("prefetch", f"{registry.host}/cache/path:v1", cache=tmp_path)
    printed = cached(tmp_path, "path", digest_of(content)).stdout.decode().strip()
    assert Path(printed).read_bytes() == content
    assert cached(tmp_path, "path", digest_of(b"never"), check=False).returncode == 1
    assert cached(tmp_path, "path", "nonsense", check=False).returncode == 2


def test_list_says_what_is_there_and_where_it_is_from(registry: Registry, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(2_000_000)
    manifest = push_files(registry, "cache/list", "v1", content)
    run_ocifs("cat", f"{registry.host}/cache/list:v1", "kind", cache=tmp_path)
    with mounted(registry.host, tmp_path / "mnt", tmp_path) as mount:
        with (mount.path / "cache/list:v1/layers/0/blob").open("rb", buffering=0) as file:
            os.pread(file.fileno(), 1000, 1_500_000)
    found = listed(tmp_path)
    assert found[f"whole {manifest}"]["repositories"] == [f"{registry.host}/cache/list"]
    partial = found[f"partial {digest_of(content)}"]
    assert partial["repositories"] == [f"{registry.host}/cache/list"]
    assert partial["length"] == 2_000_000 > partial["size"] > 0
    lines = cached(tmp_path, "list").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines if digest_of(content) in line] == ["partial"]


def test_verify_drops_what_is_wrong_and_the_next_read_heals_it(
    registry: Registry, tmp_path: Path
) -> None:
    child, layer = push_image(registry, "cache/verify", 3)
    reference = f"{registry.host}/cache/verify@{child['digest']}"
    run_ocifs("prefetch", reference, cache=tmp_path)
    good = cached(tmp_path, "verify")
    assert b"good, 0 damaged" in good.stderr
    disk = Disk(tmp_path / "ocifs")
    digest = Digest.parse(layer)
    broken = [disk.whole(digest), disk.root / "derived/layer-plain.1/sha256" / digest.encoded]
    for path in broken:
        with path.open("r+b") as file:
            file.seek(5000)
            file.write(b"rot")
    done = cached(tmp_path, "verify", "--json", check=False)
    assert done.returncode == 1
    assert {each["path"] for each in json.loads(done.stdout)["dropped"]} == set(map(str, broken))
    assert not any(path.exists() for path in broken)
    assert cached(tmp_path, "verify").returncode == 0
    run_ocifs("prefetch", reference, cache=tmp_path)
    assert hashlib.sha256(broken[0].read_bytes()).hexdigest() == digest.encoded


@pytest.mark.parametrize("kind", ["layer-index", "layer-tree", "layer-root"])
def test_verify_checks_what_was_made_of_layers(
    registry: Registry, tmp_path: Path, kind: str
) -> None:
    child, _ = push_image(registry, "cache/made", 5)
    reference = f"{registry.host}/cache/made@{child['digest']}"
    run_ocifs("ls", reference, "rootfs", cache=tmp_path)
    assert (
        b"0 damaged" in (good := cached(tmp_path, "verify")).stderr
        and b"passed over" not in good.stderr
    )
    [made] = (Disk(tmp_path / "ocifs").root / "derived").glob(f"{kind}.*/sha256/*")
    before = made.read_bytes()
    made.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    done = cached(tmp_path, "verify", check=False)
    assert done.returncode == 1 and kind.encode() in done.stdout
    assert not made.exists()
    run_ocifs("ls", reference, "rootfs", cache=tmp_path)
    assert made.read_bytes() == before


def test_verify_checks_names_and_the_blocks_of_partial_blobs(
    registry: Registry, tmp_path: Path
) -> None:
    content = random.Random(4).randbytes(2_000_000)
    push_files(registry, "cache/blocks", "v1", content)
    with mounted(registry.host, tmp_path / "mnt", tmp_path) as mount:
        with (mount.path / "cache/blocks:v1/layers/0/blob").open("rb", buffering=0) as file:
            os.pread(file.fileno(), 1000, 1_500_000)
    disk = Disk(tmp_path / "ocifs")
    with disk.partial(Digest.parse(digest_of(content))).open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"rot")
    name = next((disk.root / "names").rglob("*.json"))
    name.write_bytes(b"{")
    done = cached(tmp_path, "verify", check=False)
    assert done.returncode == 1
    assert b"blocks of 65536 bytes are damaged" in done.stdout
    assert b"is not valid JSON" in done.stdout
    assert not name.exists()
    assert b"0 damaged" in cached(tmp_path, "verify").stderr


def test_gc_keeps_the_bound_and_what_is_pinned(registry: Registry, tmp_path: Path) -> None:
    kept, other = (random.Random(n).randbytes(300_000) for n in (5, 6))
    push_files(registry, "cache/kept", "v1", kept)
    push_files(registry, "cache/other", "v1", other)
    for name in ("kept", "other"):
        run_ocifs("prefetch", f"{registry.host}/cache/{name}:v1", cache=tmp_path)
    reference = f"{registry.host}/cache/kept:v1"
    assert b"2 blobs" in cached(tmp_path, "pin", reference).stdout
    leftover = tmp_path / "ocifs/v1/blobs/.tmp-dead"
    leftover.write_bytes(b"x")
    os.utime(leftover, (100, 100))
    done = cached(tmp_path, "gc", "--cache-size", "0", "--json", check=False)
    assert done.returncode == 1  # pinned content exceeds the limit
    assert json.loads(done.stdout)["leftovers"] == 1
    left = listed(tmp_path)
    assert f"whole {digest_of(kept)}" in left
    assert f"whole {digest_of(other)}" not in left
    assert all(each["pinned"] for each in left.values())
    # pinned content is readable without the registry
    shown = run_ocifs("cat", "--offline", reference, "layers/0/blob", cache=tmp_path)
    assert shown.stdout == kept
    assert cached(tmp_path, "unpin", reference).returncode == 0
    assert cached(tmp_path, "unpin", reference, check=False).returncode == 1
    assert cached(tmp_path, "gc", "--cache-size", "0").returncode == 0
    assert not listed(tmp_path)


def test_a_pinned_index_keeps_the_child_for_the_platform(
    registry: Registry, tmp_path: Path
) -> None:
    repository = "cache/index"
    (amd, amd_layer), (arm, arm_layer) = (
        push_image(registry, repository, seed, machine)
        for seed, machine in ((7, "amd64"), (8, "arm64"))
    )
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [amd, arm]}
    top = push_manifest(registry.url, repository, index, "v1")
    cached(tmp_path, "pin", "--platform", "linux/arm64", f"{registry.host}/{repository}:v1")
    (pin,) = json.loads(cached(tmp_path, "list", "--json").stdout)["pins"]
    assert {top, str(arm["digest"]), arm_layer} <= set(pin["digests"])
    assert not {str(amd["digest"]), amd_layer} & set(pin["digests"])


def test_a_digest_is_pinned_before_it_is_here(tmp_path: Path) -> None:
    digest = digest_of(b"later")
    cached(tmp_path, "pin", digest)
    assert [
        pin["what"] for pin in json.loads(cached(tmp_path, "list", "--json").stdout)["pins"]
    ] == [digest]
    assert cached(tmp_path, "pin", "registry.example.com/a", check=False).returncode == 2


@pytest.mark.mount
def test_clear_refuses_what_is_in_use_unless_forced(registry: Registry, tmp_path: Path) -> None:
    content, other = (random.Random(n).randbytes(300_000) for n in (9, 10))
    push_files(registry, "cache/clear", "v1", content, other)
    run_ocifs("prefetch", f"{registry.host}/cache/clear:v1", cache=tmp_path)
    with mounted(registry.host, tmp_path / "mnt", tmp_path) as mount:
        with (mount.path / "cache/clear:v1/layers/0/blob").open("rb", buffering=0) as file:
            assert file.read(1000) == content[:1000]
            done = cached(tmp_path, "clear", check=False)
            assert done.returncode == 1
            assert b"1 in use and not removed" in done.stderr
            assert set(listed(tmp_path)) == {f"whole {digest_of(content)}"}
            assert cached(tmp_path, "clear", "--force").returncode == 0
            assert not listed(tmp_path)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file.fileno(), len(content), 0) == content
        assert (mount.path / "cache/clear:v1/layers/1/blob").read_bytes() == other


def test_the_blobs_are_those_of_an_image_layout_that_others_read(
    registry: Registry, tmp_path: Path
) -> None:
    described, _ = push_image(registry, "cache/layout", 3)
    run_ocifs("prefetch", f"{registry.host}/cache/layout:image-3", cache=tmp_path)
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "blobs").symlink_to(tmp_path / "ocifs/v1/blobs")
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    annotations = {"org.opencontainers.image.ref.name": "v1"}
    index = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [{**described, "annotations": annotations}],
    }
    (layout / "index.json").write_text(json.dumps(index))
    theirs = f"dir:{tmp_path / 'theirs'}"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}:v1", theirs], check=True, timeout=60)
    assert digest_of((tmp_path / "theirs/manifest.json").read_bytes()) == described["digest"]
