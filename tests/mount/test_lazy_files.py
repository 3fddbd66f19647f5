"""Files of artifacts are lazy: only the parts that are read are fetched.

The first byte costs a manifest and one range.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from tests.support.faults import Reply, Request, fault_server, http
from tests.support.mount import mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

pytestmark = [pytest.mark.servers, pytest.mark.mount]
GIB = 1 << 30
SIZE = 5 * GIB
MODEL = "application/vnd.docker.ai."


MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    for place in map(int, sys.argv[2:]):
        sys.stdout.buffer.write(mapped[place:place + 4096])
"""


def manifest_of(config: dict[str, object], *layers: dict[str, object]) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": config,
        "layers": list(layers),
    }


def described(media_type: str, digest: str, size: int, title: str = "") -> dict[str, object]:
    notes = {"annotations": {"org.opencontainers.image.title": title}} if title else {}
    return {"mediaType": media_type, "digest": digest, "size": size, **notes}


def asked(registry: Registry, repository: str) -> list[str]:
    """The requests for a repository, by method and kind."""
    found = re.findall(
        rf'"(\w+) /v2/{repository}/(\w+)/\S+ HTTP/', registry.log.read_text(errors="replace")
    )
    return [f"{method} {what}" for method, what in found]


@pytest.mark.parametrize("by", ["digest", "tag"])
def test_the_first_byte_costs_the_manifest_and_one_range(
    registry: Registry, tmp_path: Path, by: str
) -> None:
    repository = f"lazy/{by}"
    layers = [
        described("a/x", push_blob(registry.url, repository, os.urandom(4 << 20)), 4 << 20, title)
        for title in ("a", "b/c")
    ]
    empty = described(mediatype.OCI_EMPTY, push_blob(registry.url, repository, b"{}"), 2)
    digest = push_manifest(registry.url, repository, manifest_of(empty, *layers), "v1")
    before = len(asked(registry, repository))
    version = f"@{digest}" if by == "digest" else ":v1"
    with mounted(
        f"{registry.host}/{repository}{version}", tmp_path / "mnt", tmp_path / "cache"
    ) as mount:
        with (mount.path / "files/b/c").open("rb", buffering=0) as file:
            assert len(file.read(1)) == 1
        assert asked(registry, repository)[before:] == ["GET manifests", "GET blobs"]


def content(start: int, stop: int) -> bytes:
    """Bytes of a file of 5 GiB, in which each eight bytes are their offset."""
    first, last = start // 8, (stop + 7) // 8
    return struct.pack(f">{last - first}Q", *range(first, last))[start - first * 8 :][
        : stop - start
    ]


def model_server(sent: list[int]) -> Callable[[Request], Reply]:
    """A registry with one model, `q:8b`, that counts the bytes it sends of the model."""
    digest = "sha256:" + "5e" * 32
    config = b'{"config": {"format": "gguf"}}'
    layers = described(MODEL + "gguf.v3", digest, SIZE)
    body = json.dumps(
        manifest_of(
            described(MODEL + "model.config.v0.1+json", str(Digest.of(config)), len(config)), layers
        )
    ).encode()
    own = {"content_type": mediatype.OCI_MANIFEST, "docker_content_digest": str(Digest.of(body))}

    def answer(request: Request) -> Reply:
        if "/manifests/" in request.target:
            head = {"content_length": str(len(body))} if request.method == "HEAD" else {}
            return http(200, b"" if head else body, **own, **head)
        if request.target.endswith(str(Digest.of(config))):
            return http(200, config)
        asked_for = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if not request.target.endswith(digest) or asked_for is None:
            return http(200 if request.target == "/v2/" else 404)
        start, stop = int(asked_for[1]), min(SIZE, int(asked_for[2]) + 1)
        sent.append(stop - start)
        return http(206, content(start, stop), content_range=f"bytes {start}-{stop - 1}/{SIZE}")

    return answer


def test_a_model_of_five_gibibytes_opens_at_once_and_is_mapped_where_it_is_read(
    tmp_path: Path,
) -> None:
    sent: list[int] = []
    with (
        fault_server(model_server(sent)) as server,
        mounted(f"{server.host}/models/q:8b", tmp_path / "mnt", tmp_path / "cache") as mount,
    ):
        model = mount.path / "files/model.gguf"
        assert (mount.path / "kind").read_text() == "docker-model\n"
        assert model.stat().st_size == SIZE
        assert sent == []
        places = (0, 3 * GIB + 12345, SIZE - 4096)
        # In another process: a page fault holds the GIL, which the server's threads need.
        command = [sys.executable, "-c", MAPPED, str(model), *map(str, places)]
        seen = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
        assert seen == b"".join(content(place, place + 4096) for place in places)
        assert 0 < sum(sent) <= 4 << 20
