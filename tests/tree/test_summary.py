"""The page that tells a person what a manifest is."""

from __future__ import annotations

import json

import pytest

from ocifs.oci import mediatype
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.manifest import Manifest, digest_of_manifest, parse_manifest
from ocifs.tree.manifest.summary import summarise
from ocifs.tree.node import File
from ocifs.tree.registry.single import open_single
from ocifs.tree.walk import walk
from tests.tree.memory import MemoryRegistry
from tests.tree.test_semantics import context_of

DIGEST = "sha256:" + "3c" * 32
TITLE = "org.opencontainers.image.title"


def descriptor(media_type: str, size: int = 2048, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": DIGEST, "size": size, **more}


def parsed(**members: object) -> Manifest:
    raw = json.dumps(members).encode()
    return parse_manifest(raw, digest_of_manifest(raw))


def page(manifest: Manifest, config: object = None) -> str:
    return summarise(manifest, classify(manifest), json.dumps(config).encode() if config else None)


def test_an_image_says_when_for_what_what_it_runs_and_what_made_its_layers() -> None:
    layers = [
        descriptor(mediatype.OCI_LAYER_GZIP, 3 << 20),
        descriptor(mediatype.OCI_LAYER_GZIP, 100),
    ]
    image = parsed(config=descriptor(mediatype.OCI_CONFIG), layers=layers)
    config = {
        "created": "2024-01-02T03:04:05Z",
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "config": {"Entrypoint": ["/app"], "Cmd": ["--serve"]},
        "history": [
            {"created_by": "ADD rootfs.tar /"},
            {"created_by": "ENV A=b", "empty_layer": True},
            {"created_by": "COPY  app\n/"},
        ],
    }
    lines = page(image, config).splitlines()
    for expected in (
        "Kind:          image — Container image for one platform",
        "Created:       2024-01-02T03:04:05Z",
        "Platform:      linux/arm64/v8",
        "Runs:          /app --serve",
        "Content:       2 layers, 3.0 MiB",
        f"  0  3.0 MiB  {mediatype.OCI_LAYER_GZIP}  ADD rootfs.tar /",
        f"  1  100 B    {mediatype.OCI_LAYER_GZIP}  COPY app /",
    ):
        assert expected in lines
    assert "Files" not in lines


def test_history_that_does_not_fit_the_layers_is_left_out() -> None:
    image = parsed(
        config=descriptor(mediatype.OCI_CONFIG), layers=[descriptor(mediatype.OCI_LAYER_GZIP)]
    )
    assert "ADD" not in page(image, {"history": [{"created_by": "ADD a"}, {"created_by": "ADD b"}]})


def test_an_artifact_says_its_name_and_its_files() -> None:
    helm = "application/vnd.cncf.helm."
    chart = parsed(
        config=descriptor(f"{helm}config.v1+json", 90),
        layers=[descriptor(f"{helm}chart.content.v1.tar+gzip")],
    )
    text = page(chart, {"name": "web", "version": "1.2.0"})
    assert "Name:          web 1.2.0\n" in text
    assert "Content:       1 layer, 2.0 KiB\n" in text
    assert "\nFiles\n  2.0 KiB  web-1.2.0.tgz\n  90 B     Chart.json\n" in text


def test_an_index_says_of_which_platform_an_attestation_is() -> None:
    image, attestation = (descriptor(mediatype.OCI_MANIFEST, 500 + n) for n in range(2))
    image["platform"] = {"os": "linux", "architecture": "amd64"}
    attestation |= {
        "digest": "sha256:" + "4d" * 32,
        "annotations": {"vnd.docker.reference.digest": DIGEST},
    }
    attestation["platform"] = {"os": "unknown", "architecture": "unknown"}
    text = page(parsed(manifests=[image, attestation]))
    assert "Children:      2 manifests\n" in text
    assert "\n  0  platform  linux-amd64     " in text
    assert "\n  1  artifact  of linux-amd64  " in text


def test_text_of_strangers_stays_on_its_line() -> None:
    notes = {"a": "x\ny\x1b[31m", "b": "z" * 3000, "c": "tab\there"}
    text = page(
        parsed(
            config=descriptor("a/b"),
            layers=[descriptor("c/d", annotations={TITLE: "r\rs"})],
            annotations=notes,
        )
    )
    assert "a  x\\ny\\x1b[31m\n" in text
    assert f"b  {'z' * 160}… (3000 characters)\n" in text
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    ("version", "note"),
    [
        (2, ""),
        (3, "its schemaVersion is 3"),
        ("2", 'its schemaVersion is "2"'),
        (True, "its schemaVersion is true"),
        (2.0, "its schemaVersion is 2.0"),
        (None, "it has no schemaVersion"),
    ],
)
@pytest.mark.parametrize("member", ["layers", "manifests"])
def test_a_schema_version_that_is_not_2_is_noted(version: object, note: str, member: str) -> None:
    """image-spec, manifest.md and image-index.md "schemaVersion"."""
    shown = page(parsed(schemaVersion=version, **{member: []}))
    assert (f"{note}, the specification requires 2" in shown) if note else ("Note:" not in shown)


async def test_a_child_of_another_size_than_its_descriptor_is_noted() -> None:
    """image-spec, descriptor.md "Properties": size."""
    registry = MemoryRegistry()
    child = registry.put_manifest("app", "child", {"layers": []})
    registry.put_manifest("app", "v1", {"manifests": [{**child, "size": 7}]})
    root = await open_single(context_of(registry), "app", "v1")
    shown = await walk(root, b"manifests/0/summary.txt")
    assert isinstance(shown, File)
    assert b"its descriptor in an index records 7 bytes, it has" in await shown.read(0, 4096)
