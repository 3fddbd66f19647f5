"""The order in which a file's name is decided, and what is and is not a file."""

from __future__ import annotations

import json

import pytest

from ocifs.oci import mediatype
from ocifs.oci.artifact import Classification, classify
from ocifs.oci.digest import Digest
from ocifs.oci.kinds_table import KINDS
from ocifs.oci.manifest import Manifest, digest_of_manifest, parse_manifest
from ocifs.oci.payload import PayloadFile, extension_of, payload_files, predicate_word, wants_config

DIGEST = "sha256:" + "2e" * 32
HELM = "application/vnd.cncf.helm."
CHART = HELM + "chart.content.v1.tar+gzip"


def manifest_of(config_type: str, *layers: dict[str, object], artifact_type: str = "", size: int = 90) -> Manifest:
    whole = [{"digest": DIGEST, "size": 9} | layer for layer in layers]
    config = {"mediaType": config_type, "digest": DIGEST, "size": size}
    raw = json.dumps({"artifactType": artifact_type, "config": config, "layers": whole}).encode()
    return parse_manifest(raw, digest_of_manifest(raw))


def files_of(manifest: Manifest, config: bytes | None = None) -> list[tuple[str, bool]]:
    return [(file.path, file.unpack) for file in payload_files(manifest, classify(manifest), config)]


def layer(media_type: str, **annotations: str) -> dict[str, object]:
    keys = {
        "title": "org.opencontainers.image.title",
        "ref": "org.opencontainers.image.ref.name",
        "compose": "com.docker.compose.file",
        "model": "org.cncf.model.filepath",
        "kind": "dev.tekton.image.kind",
        "name": "dev.tekton.image.name",
        "unpack": "io.deis.oras.content.unpack",
    }
    return {"mediaType": media_type, "annotations": {keys[key]: value for key, value in annotations.items()}}


def test_names_are_taken_in_their_order() -> None:
    notes = {"title": "t", "compose": "c", "model": "m", "kind": "Task", "name": "n", "ref": "r"}
    expected = ["t", "c", "m", "task/n", "chart.tgz"]
    dropped = ["title", "compose", "model", "kind"]
    for drop, name in zip([*dropped, ""], expected, strict=True):
        assert files_of(manifest_of(HELM + "config.v1+json", layer(CHART, **notes)))[0][0] == name
        notes.pop(drop, None)
    plain = manifest_of("a/b", layer("application/zip", ref="r"), layer("application/zip"))
    assert files_of(plain) == [("r", False), ("layer-1.zip", False)]


def test_an_empty_title_is_no_name() -> None:
    assert files_of(manifest_of("a/b", layer("application/json", title=""))) == [("layer-0.json", False)]


@pytest.mark.parametrize(("value", "unpack"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_oras_directories_are_to_be_unpacked(value: str, unpack: bool) -> None:
    manifest = manifest_of("a/b", layer(mediatype.OCI_LAYER_GZIP, title="docs", unpack=value))
    assert files_of(manifest) == [("docs", unpack)]


def test_the_empty_descriptor_is_no_file_and_does_not_shift_the_numbers() -> None:
    manifest = manifest_of("a/b", layer(mediatype.OCI_EMPTY), layer("application/zip"))
    assert files_of(manifest) == [("layer-1.zip", False)]


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (b'{"name": "web", "version": "1.2.0+b1"}', "web-1.2.0+b1.tgz"),
        (b'{"name": "web"}', "chart.tgz"),
        (b'{"name": 3, "version": []}', "chart.tgz"),
        (b"[]", "chart.tgz"),
        (b"\xff", "chart.tgz"),
        (None, "chart.tgz"),
    ],
)
def test_a_chart_is_named_by_its_config_where_that_can_be_read(config: bytes | None, name: str) -> None:
    assert files_of(manifest_of(HELM + "config.v1+json", layer(CHART)), config) == [(name, False)]


@pytest.mark.parametrize(
    "config",
    [
        {"components": [{"id": "api", "files": [{"path": "static/a.json", "content": {"digest": DIGEST}}]}]},
        {"components": [None, {"files": 1}, {"files": [2, {"digest": DIGEST, "path": "static/a.json"}]}]},
    ],
)
def test_spin_names_its_files_in_the_config(config: object) -> None:
    manifest = manifest_of(
        "application/vnd.fermyon.spin.application.v1+config",
        {"mediaType": "application/vnd.wasm.content.layer.v1+data"},
    )
    found = files_of(manifest, json.dumps(config).encode())
    assert found == [("static/a.json", False), ("spin.lock.json", False)]


def test_a_config_with_a_title_is_a_file() -> None:
    raw = json.dumps(
        {
            "config": {
                "mediaType": "application/vnd.gadget.config.v1+yaml",
                "digest": DIGEST,
                "size": 9,
                "annotations": {"org.opencontainers.image.title": "mine.yaml"},
            },
            "layers": [],
        }
    ).encode()
    assert files_of(parse_manifest(raw, digest_of_manifest(raw))) == [("mine.yaml", False)]


def test_a_config_that_is_empty_is_no_file() -> None:
    assert files_of(manifest_of("application/vnd.cnab.config.v1+json", size=0)) == []


def test_the_config_is_wanted_only_by_kinds_that_take_names_from_it() -> None:
    wanting = {kind.word for kind in KINDS if wants_config(Classification(kind.word, "", "", "", ""))}
    assert wanting == {"helm-chart", "spin-app"}
    assert not wants_config(Classification("no such kind", "", "", "", ""))


@pytest.mark.parametrize(
    ("media_type", "head", "extension"),
    [
        ("application/vnd.oci.image.layer.v1.tar+gzip", b"", ".tar.gz"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", b"", ".tar.gz"),
        ("application/vnd.example+json; charset=utf-8", b"", ".json"),
        ("text/plain", b"", ".txt"),
        ("archive/zip", b"\x1f\x8b", ".zip"),
        ("", b"", ".bin"),
        ("a/b", b"\x1f\x8b\x08", ".gz"),
        ("a/b", b"\x28\xb5\x2f\xfd", ".zst"),
        ("a/b", b"GGUF\x03", ".gguf"),
        ("a/b", b"\0asm\x01", ".wasm"),
        ("a/b", b"x" * 257 + b"ustar\0", ".tar"),
        ("a/b", b"MZ", ".bin"),
    ],
)
def test_extensions_come_from_the_type_and_then_from_the_first_bytes(
    media_type: str, head: bytes, extension: str
) -> None:
    assert extension_of(media_type, head) == extension


def test_first_bytes_are_used_for_the_layer_that_has_them() -> None:
    manifest = manifest_of("a/b", {"mediaType": "c/d"})
    found = payload_files(manifest, classify(manifest), None, {Digest.parse(DIGEST): b"PK\x03\x04"})
    assert found == (PayloadFile("layer-0.zip", manifest.layers[0]),)


@pytest.mark.parametrize(
    ("predicate", "word"),
    [
        ("https://slsa.dev/provenance/v0.2", "slsa-provenance-v0.2"),
        ("https://spdx.dev/Document/v2.3", "spdx"),
        ("https://cyclonedx.org/bom/v1.4", "cyclonedx"),
        ("https://apko.dev/image-configuration", "apko-image-configuration"),
        ("custom", "custom"),
        ("https://", "https:"),
    ],
)
def test_predicate_types_as_words(predicate: str, word: str) -> None:
    assert predicate_word(predicate) == word
    assert "/" not in predicate_word(predicate)
