"""Mounts of registries with mirrors."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from tests.support.faults import fault_server
from tests.support.mount import mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.serving import serving

pytestmark = [pytest.mark.mount, pytest.mark.servers]

LAYER = random.Random(21).randbytes(32 << 20)
DIGEST = Digest.of(LAYER)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("origin")) as running:
        for content in (b"{}", LAYER):
            push_blob(running.url, "team/app", content)
        image = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {
                "mediaType": mediatype.OCI_EMPTY,
                "digest": str(Digest.of(b"{}")),
                "size": 2,
            },
            "layers": [
                {"mediaType": "application/x.bytes", "digest": str(DIGEST), "size": len(LAYER)}
            ],
        }
        push_manifest(running.url, "team/app", image, "v1")
        yield running


def options(tmp_path: Path, origin: Registry, mirror: str) -> list[str]:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'[[registry]]\nlocation = "{origin.host}"\n[[registry.mirror]]\nlocation = "{mirror}"\n'
    )
    return ["--registries-conf", str(conf)]


def test_a_reader_does_not_notice_that_the_mirror_stops(origin: Registry, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    with running_registry(
        tmp_path / "mirror", more=f"proxy: {{remoteurl: {origin.url}}}\n"
    ) as mirror:
        chosen = options(tmp_path, origin, mirror.host)
        with mounted(origin.host, tmp_path / "mnt", tmp_path / "cache", chosen) as mount:
            with (mount.path / "team/app:v1/layers/0/blob").open("rb") as file:
                hasher = hashlib.sha256(file.read(1 << 16))
                mirror.stop()
                while piece := file.read(1 << 20):
                    hasher.update(piece)
            assert hasher.hexdigest() == DIGEST.encoded
            (told,) = json.loads((mount.path / ".ocifs/status.json").read_text())["registries"]
            by_role = {each["role"]: each for each in told["endpoints"]}
            assert by_role["mirror"]["url"] == mirror.host
            assert by_role["mirror"]["state"] == "failing"
            assert by_role["mirror"]["bytes_received"] + by_role["registry"][
                "bytes_received"
            ] >= len(LAYER)
            assert told["reachable"] is True


def test_after_corrupt_content_of_a_mirror_the_next_open_reads_the_right_content(
    origin: Registry, tmp_path: Path
) -> None:
    wrong = bytes(len(LAYER))
    with fault_server(serving(wrong, DIGEST)) as mirror:
        chosen = options(tmp_path, origin, mirror.host)
        with mounted(origin.host, tmp_path / "mnt", tmp_path / "cache", chosen) as mount:
            blob = mount.path / "team/app:v1/layers/0/blob"
            with pytest.raises(OSError, match="Input/output error"):
                blob.read_bytes()
            assert blob.read_bytes() == LAYER, "pages that were wrong are not kept"
