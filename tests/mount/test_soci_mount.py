"""Images with a SOCI index of either version in a real mount: the same tree, and few bytes.

SOCI's own code writes the tables.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ocifs.oci import mediatype
from tests.layers.tars import DIRECTORY, HARDLINK, SYMLINK, entry, tar
from tests.support.image import make_layout
from tests.support.mount import mounted
from tests.support.oracle import differences, facts
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.tools import tool

pytestmark = [
    pytest.mark.mount,
    pytest.mark.servers,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can unpack owners and devices to compare with"
    ),
]
AS_IT_IS = ["--owner", "keep", "--links", "raw"]
DICE = random.Random(31)
WANTED = DICE.randbytes(100_000)
T = {"mtime": 1_700_000_000}
LOWER = tar(
    entry("./", DIRECTORY, mode=0o755, **T),
    entry("etc", DIRECTORY, **T),
    entry("etc/passwd", content=b"root:x:0:0\n", uid=0, gid=42, **T),
    entry("etc/gone", content=b"x", **T),
    entry("first", content=DICE.randbytes(6_000_000), **T),
    entry("wanted", content=WANTED, **T),
    entry("last", content=DICE.randbytes(6_000_000), **T),
)
UPPER = tar(
    entry("etc/.wh.gone", **T),
    entry("etc/shadow", HARDLINK, linkname="etc/passwd", **T),
    entry("link", SYMLINK, linkname="etc/passwd", **T),
    entry("pipe", b"6", **T),
)
LAYERS = [gzip.compress(each, 6, mtime=0) for each in (LOWER, UPPER)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def ztocs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    place = tmp_path_factory.mktemp("ztocs")
    program = tool("ztocs", place)
    made = []
    for layer in LAYERS:
        (place / "layer").write_bytes(layer)
        made.append(program(str(place / "layer"), str(1 << 20), "gzip"))
    return made


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(
    registry: Registry, name: str, data: bytes, media_type: str, **more: object
) -> dict[str, object]:
    return {
        "mediaType": media_type,
        "digest": push_blob(registry.url, name, data),
        "size": len(data),
        **more,
    }


def index_of(
    registry: Registry, name: str, version: int, ztocs: list[bytes], **more: object
) -> dict[str, object]:
    """The index that `soci create` (version 1) or `soci convert` (version 2) would push."""
    tables = []
    for layer, table in zip(LAYERS, ztocs, strict=True):
        of = {
            "com.amazon.soci.image-layer-digest": digest_of(layer),
            "com.amazon.soci.image-layer-mediaType": mediatype.OCI_LAYER_GZIP,
        }
        tables.append(descriptor(registry, name, table, "application/octet-stream", annotations=of))
    config = descriptor(registry, name, b"{}", f"application/vnd.amazon.soci.index.v{version}+json")
    return {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": config,
        "layers": tables,
        **more,
    }


def push(registry: Registry, name: str, version: int, ztocs: list[bytes]) -> str:
    """Push an image with its SOCI index.

    In version 2, an annotation of the image names the index. In version 1, the index refers to the
    image, by the fallback tag of the referrers API.
    """
    diff_ids = [digest_of(each) for each in (LOWER, UPPER)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    image: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": descriptor(registry, name, json.dumps(config).encode(), mediatype.OCI_CONFIG),
        "layers": [descriptor(registry, name, layer, mediatype.OCI_LAYER_GZIP) for layer in LAYERS],
    }
    if version == 2:
        named = push_manifest(registry.url, name, index_of(registry, name, 2, ztocs))
        image["annotations"] = {"com.amazon.soci.index-digest": named}
        push_manifest(registry.url, name, image, "v1")
        return f"{registry.host}/{name}:v1"
    digest = push_manifest(registry.url, name, image, "v1")
    subject = {
        "mediaType": mediatype.OCI_MANIFEST,
        "digest": digest,
        "size": len(json.dumps(image)),
    }
    index = index_of(registry, name, 1, ztocs, subject=subject)
    listed = {
        "mediaType": mediatype.OCI_MANIFEST,
        "digest": push_manifest(registry.url, name, index),
        "size": len(json.dumps(index)),
        "artifactType": "application/vnd.amazon.soci.index.v1+json",
    }
    fallback = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [listed]}
    push_manifest(registry.url, name, fallback, digest.replace(":", "-"))
    return f"{registry.host}/{name}:v1"


def sent(registry: Registry, after: int) -> int:
    """The number of bytes that the registry has sent, from its log after an offset."""
    lines = registry.log.read_text(errors="replace")[after:].splitlines()
    written = (
        re.search(r"http.response.written=(\d+)", line)
        for line in lines
        if "response completed" in line
    )
    return sum(int(match[1]) for match in written if match)


@pytest.mark.parametrize("version", [1, 2])
def test_an_image_is_listed_by_its_index_and_a_file_fetches_its_spans(
    registry: Registry, ztocs: list[bytes], tmp_path: Path, version: int
) -> None:
    source = push(registry, f"soci/v{version}", version, ztocs)
    layout = make_layout(tmp_path / "layout", [LOWER, UPPER])
    unpacked = tmp_path / "unpacked"
    subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{layout}:v1", unpacked],
        check=True,
        capture_output=True,
    )
    before = len(registry.log.read_text(errors="replace"))
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", [*AS_IT_IS, "--soci"]) as mount:
        root = mount.path / "rootfs"
        assert (root / "wanted").read_bytes() == WANTED
        assert sent(registry, before) < 4_000_000 < len(LAYERS[0])
        assert differences(facts(root), facts(unpacked)) == []


def test_soci_indexes_are_ignored_by_default(
    registry: Registry, ztocs: list[bytes], tmp_path: Path
) -> None:
    source = push(registry, "soci/unwanted", 2, ztocs)
    before = len(registry.log.read_text(errors="replace"))
    with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
        assert (mount.path / "rootfs/wanted").read_bytes() == WANTED
    assert sent(registry, before) > len(LAYERS[0])


@pytest.mark.parametrize("lie", ["junk", "other layer", "gone", "digests"])
def test_a_false_table_is_rejected_and_the_layer_is_read_instead(
    registry: Registry, ztocs: list[bytes], tmp_path: Path, lie: str
) -> None:
    name = f"soci/{lie.replace(' ', '-')}"
    others = [
        re.sub(rb"sha256:(.)", lambda each: b"sha256:" + (b"1" if each[1] == b"0" else b"0"), table)
        for table in ztocs
    ]
    told = {
        "junk": [b"junk", ztocs[1]],
        "other layer": ztocs[::-1],
        "gone": ztocs,
        "digests": others,
    }[lie]
    source = push(registry, name, 2, told)
    if lie == "gone":
        image = httpx.get(
            f"{registry.url}/v2/{name}/manifests/v1",
            headers={"accept": mediatype.OCI_MANIFEST},
            trust_env=False,
        ).json()
        image["annotations"]["com.amazon.soci.index-digest"] = digest_of(b"nothing")
        push_manifest(registry.url, name, image, "v1")
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", ["--soci"]) as mount:
        assert (mount.path / "rootfs/wanted").read_bytes() == WANTED
        assert sorted(os.listdir(mount.path / "rootfs/etc")) == ["passwd", "shadow"]
