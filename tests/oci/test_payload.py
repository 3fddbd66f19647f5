"""The precedence of names, and the layers that are files."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from ocifs.oci import mediatype
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.kinds.classification import Classification
from ocifs.oci.kinds.extensions import extension_of
from ocifs.oci.kinds.payload import PayloadFile, needs_config, payload_files
from ocifs.oci.kinds.predicates import predicate_word
from ocifs.oci.kinds.table import KINDS
from ocifs.oci.manifest import Manifest, digest_of_manifest, parse_manifest

DIGEST = "sha256:" + "2e" * 32
HELM = "application/vnd.cncf.helm."
CHART = HELM + "chart.content.v1.tar+gzip"


def manifest_of(
    config_type: str, *layers: dict[str, object], artifact_type: str = "", size: int = 90
) -> Manifest:
    complete = [{"digest": DIGEST, "size": 9} | layer for layer in layers]
    config = {"mediaType": config_type, "digest": DIGEST, "size": size}
    raw = json.dumps({"artifactType": artifact_type, "config": config, "layers": complete}).encode()
    return parse_manifest(raw, digest_of_manifest(raw))


def files_of(manifest: Manifest, config: bytes | None = None) -> list[tuple[str, bool]]:
    return [
        (file.path, file.unpack) for file in payload_files(manifest, classify(manifest), config)
    ]


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
    return {
        "mediaType": media_type,
        "annotations": {keys[key]: value for key, value in annotations.items()},
    }


def test_names_are_taken_in_their_order() -> None:
    notes = {"title": "t", "compose": "c", "model": "m", "kind": "Task", "name": "n", "ref": "r"}
    expected = ["t", "c", "m", "task/n", "chart.tgz"]
    dropped = ["title", "compose", "model", "kind"]
    for drop, name in zip([*dropped, ""], expected, strict=True):
        assert files_of(manifest_of(HELM + "config.v1+json", layer(CHART, **notes)))[0][0] == name
        notes.pop(drop, None)
    plain = manifest_of("a/b", layer("application/zip", ref="r"), layer("application/zip"))
    assert files_of(plain) == [("r", False), ("layer-1.zip", False)]


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("application/vnd.acme.dir.signature.v1+json", "signature.json"),
        ("application/vnd.acme.policy.layer.v1+json", "policy.json"),
        ("application/vnd.acme.data.v1.tar+gzip", "data.tar.gz"),
        ("application/vnd.acme.disk.raw+zstd", "disk.raw.zst"),
        ("application/vnd.acme.kernel", "kernel"),
        ("application/x.acme.kernel.v0.1", "kernel"),
        # The only word is the vendor's name.
        ("application/vnd.acme+json", "layer-0.json"),
        ("application/vnd.acme.layer.v1.tar", "layer-0.tar"),
        ("application/vnd.oci.empty.v1+json", "layer-0.json"),
        (mediatype.OCI_LAYER_GZIP, "layer-0.tar.gz"),
        ("application/acme.kernel", "layer-0.bin"),
        ("text/spdx+json", "sbom.spdx.json"),
        ("application/sarif+json", "report.sarif.json"),
    ],
)
def test_a_file_without_a_title_is_named_by_its_type(media_type: str, name: str) -> None:
    assert files_of(manifest_of("a/b", layer(media_type))) == [(name, False)]


def test_files_of_one_usual_name_are_numbered_in_the_order_of_the_layers() -> None:
    part = layer("application/vnd.acme.shard.v1.gguf")
    titled = layer("application/vnd.acme.shard.v1.gguf", title="a")
    assert [path for path, _ in files_of(manifest_of("a/b", part, titled, part))] == [
        "shard-00001.gguf",
        "a",
        "shard-00002.gguf",
    ]


def test_braces_in_the_publishers_text_are_not_placeholders() -> None:
    for key in ("title", "ref"):
        value = "{n}{shard}{title}"
        assert files_of(manifest_of("a/b", layer("a/c", **{key: value}))) == [(value, False)]
    named = layer("application/vnd.ollama.image.json") | {"name": "{n}.json"}
    assert files_of(manifest_of("", named)) == [("{n}.json", False)]


def test_a_title_of_the_whole_artifact_gives_way_to_the_usual_name() -> None:
    title = {"org.opencontainers.image.title": "ghcr.io/acme/policy"}
    body = {
        "config": {"mediaType": mediatype.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2},
        "annotations": {"org.openpolicyregistry.type": "policy", **title},
        "layers": [
            {
                "mediaType": mediatype.OCI_LAYER_GZIP,
                "digest": DIGEST,
                "size": 9,
                "annotations": {"org.openpolicyregistry.type": "policy", **title},
            }
        ],
    }
    raw = json.dumps(body).encode()
    assert files_of(parse_manifest(raw, digest_of_manifest(raw))) == [("bundle.tar.gz", False)]


def test_parts_are_joined_by_their_name_and_in_the_order_of_their_numbers() -> None:
    lume = "application/vnd.trycua.lume."
    parts = [
        {
            "mediaType": lume + "disk.v1",
            "size": size,
            "annotations": {"org.trycua.lume.part.number": number},
        }
        for number, size in (("2", 5), ("10", 6), ("1", 7))
    ]
    manifest = manifest_of(lume + "config.v1+json", *parts)
    [disk] = payload_files(manifest, classify(manifest))
    assert [part.size for part in disk.parts] == [7, 5, 6]
    vetu = "application/vnd.cirruslabs.vetu.disk.v1"
    disks = [
        {"mediaType": vetu, "annotations": {"org.cirruslabs.vetu.disk-name": name}}
        for name in ("a.img", "b.img", "a.img")
    ]
    several = manifest_of(mediatype.OCI_CONFIG, *disks)
    assert [(file.path, len(file.parts)) for file in payload_files(several, classify(several))] == [
        ("a.img.lz4", 2),
        ("b.img.lz4", 1),
    ]


def test_an_empty_title_is_no_name() -> None:
    assert files_of(manifest_of("a/b", layer("application/json", title=""))) == [
        ("layer-0.json", False)
    ]


@pytest.mark.parametrize(
    ("value", "unpack"), [("true", True), ("True", True), ("false", False), ("", False)]
)
def test_oras_directories_are_to_be_unpacked(value: str, unpack: bool) -> None:
    manifest = manifest_of("a/b", layer(mediatype.OCI_LAYER_GZIP, title="docs", unpack=value))
    assert files_of(manifest) == [("docs", unpack)]


def test_the_empty_descriptor_is_no_file_and_does_not_shift_the_numbers() -> None:
    empty = layer(mediatype.OCI_EMPTY) | {"digest": str(Digest.of(b"{}")), "size": 2}
    manifest = manifest_of("a/b", empty, layer("application/zip"))
    assert files_of(manifest) == [("layer-1.zip", False)]


def test_a_layer_of_the_empty_type_with_other_content_is_a_file() -> None:
    """manifest.md, "Guidance for an Empty Descriptor": the digest of `{}`, and a size of 2."""
    assert files_of(manifest_of("a/b", layer(mediatype.OCI_EMPTY))) == [("layer-0.json", False)]
    seven = layer(mediatype.OCI_EMPTY) | {"digest": str(Digest.of(b"{}")), "size": 7}
    assert files_of(manifest_of("a/b", seven)) == [("layer-0.json", False)]


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
def test_a_chart_is_named_by_its_config_where_that_can_be_read(
    config: bytes | None, name: str
) -> None:
    assert files_of(manifest_of(HELM + "config.v1+json", layer(CHART)), config) == [
        (name, False),
        ("Chart.json", False),
    ]


@pytest.mark.parametrize(
    "config",
    [
        {
            "components": [
                {"id": "api", "files": [{"path": "static/a.json", "content": {"digest": DIGEST}}]}
            ]
        },
        {
            "components": [
                None,
                {"files": 1},
                {"files": [2, {"digest": DIGEST, "path": "static/a.json"}]},
            ]
        },
    ],
)
def test_spin_names_its_files_in_the_config(config: object) -> None:
    manifest = manifest_of(
        "application/vnd.fermyon.spin.application.v1+config",
        {"mediaType": "application/vnd.wasm.content.layer.v1+data"},
    )
    result = files_of(manifest, json.dumps(config).encode())
    assert result == [("static/a.json", False), ("spin.lock.json", False)]


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
    config = {
        "mediaType": "application/vnd.cnab.config.v1+json",
        "digest": str(Digest.of(b"")),
        "size": 0,
    }
    raw = json.dumps({"config": config, "layers": []}).encode()
    assert files_of(parse_manifest(raw, digest_of_manifest(raw))) == []


def test_the_config_is_wanted_only_by_kinds_that_take_names_from_it() -> None:
    wanting = {
        kind.name for kind in KINDS if needs_config(Classification(kind.name, "", "", "", ""))
    }
    assert wanting == {"helm-chart", "spin-app"}
    assert not needs_config(Classification("no such kind", "", "", "", ""))


@pytest.mark.parametrize(
    ("media_type", "head", "extension"),
    [
        ("application/vnd.oci.image.layer.v1.tar+gzip", b"", ".tar.gz"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", b"", ".tar.gz"),
        ("application/vnd.example+json; charset=utf-8", b"", ".json"),
        ("text/plain", b"", ".txt"),
        ("archive/zip", b"\x1f\x8b", ".zip"),
        ("application/vnd.example+zip", b"", ".zip"),
        ("application/gzip", b"", ".gz"),
        ("application/x-gzip", b"", ".gz"),
        ("application/vnd.example.state.v1+gzip", b"", ".gz"),
        ("application/x-ndjson", b"", ".ndjson"),
        ("application/vnd.examplejson", b"", ".bin"),
        ("application/x-qemu-disk", b"", ".qcow2"),
        ("application/x-iso9660-image", b"", ".iso"),
        ("application/vnd.debian.binary-package", b"", ".deb"),
        ("application/java-archive", b"", ".jar"),
        ("image/svg+xml", b"", ".svg"),
        ("image/png", b"", ".png"),
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


@pytest.mark.parametrize(
    ("claimed", "name"), [(b"PK\x03\x04", "layer-0.zip"), (b"PK\x03\x05", "layer-0.bin")]
)
def test_first_bytes_that_the_manifest_carries_say_the_extension_where_they_are_the_blobs(
    claimed: bytes, name: str
) -> None:
    carried = {
        "mediaType": "c/d",
        "digest": f"sha256:{hashlib.sha256(b'PK' + bytes([3, 4])).hexdigest()}",
        "size": 4,
        "data": base64.b64encode(claimed).decode(),
    }
    manifest = manifest_of("a/b", carried)
    assert payload_files(manifest, classify(manifest)) == (PayloadFile(name, manifest.layers),)


COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE, CERTIFICATE = "dev.cosignproject.cosign/signature", "dev.sigstore.cosign/certificate"


def test_what_cosign_writes_into_annotations_are_files_beside_the_payload() -> None:
    signed = {
        "mediaType": COSIGN,
        "annotations": {SIGNATURE: "MEU=", CERTIFICATE: "-----BEGIN", "x": "y"},
    }
    manifest = manifest_of(mediatype.OCI_CONFIG, signed)
    result = payload_files(manifest, classify(manifest))
    assert [(file.path, file.text, file.size) for file in result] == [
        ("payload.json", "", 9),
        ("signature.b64", "MEU=", 4),
        ("certificate.pem", "-----BEGIN", 10),
    ]


def test_each_of_several_signatures_keeps_its_own_certificate() -> None:
    keyed, keyless = {SIGNATURE: "a"}, {SIGNATURE: "b", CERTIFICATE: "c"}
    layers = ({"mediaType": COSIGN, "annotations": notes} for notes in (keyed, keyless))
    assert files_of(manifest_of(mediatype.OCI_CONFIG, *layers)) == [
        ("0/payload.json", False),
        ("0/signature.b64", False),
        ("1/payload.json", False),
        ("1/signature.b64", False),
        ("1/certificate.pem", False),
    ]


def test_a_features_metadata_is_a_file() -> None:
    raw = json.dumps(
        {
            "config": {"mediaType": "application/vnd.devcontainers", "digest": DIGEST, "size": 0},
            "layers": [],
            "annotations": {
                "com.github.package.type": "devcontainer_feature",
                "dev.containers.metadata": '{"id": 1}',
            },
        }
    ).encode()
    manifest = parse_manifest(raw, digest_of_manifest(raw))
    result = payload_files(manifest, classify(manifest))
    assert result == (PayloadFile("devcontainer-feature.json", (), text='{"id": 1}'),)


TART = "application/vnd.cirruslabs.tart."


def test_pieces_of_one_stream_are_one_file_and_streams_of_their_own_are_numbered() -> None:
    old, new = (
        manifest_of(
            mediatype.OCI_CONFIG,
            {"mediaType": TART + "config.v1"},
            *({"mediaType": TART + f"disk.{version}", "size": size} for size in (5, 7)),
            {"mediaType": TART + "nvram.v1"},
        )
        for version in ("v1", "v2")
    )
    result = payload_files(old, classify(old))
    assert [(file.path, len(file.parts), file.size) for file in result] == [
        ("config.json", 1, 9),
        ("disk.img.lz4", 2, 12),
        ("nvram.bin", 1, 9),
    ]
    titled = {
        "mediaType": TART + "disk.v2",
        "annotations": {"org.opencontainers.image.title": "{n}.lz4"},
    }
    assert files_of(manifest_of(mediatype.OCI_CONFIG, titled)) == [("{n}.lz4", False)]
    assert [path for path, _ in files_of(new)][1:3] == ["disk.img.000.lz4", "disk.img.001.lz4"]


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        ('[{"identity": {"name": "notes", "version": "1"}, "kind": "resource"}]', "notes.txt"),
        ('{"identity": {"name": "notes"}, "kind": "source"}', "notes.txt"),
        ('[{"identity": {"name": 3}}]', "layer-0.txt"),
        ("[]", "layer-0.txt"),
        ("no json", "layer-0.txt"),
    ],
)
def test_resources_of_a_component_are_called_as_they_are_identified(
    annotation: str, name: str
) -> None:
    config = "application/vnd.ocm.software.component.config.v1+json"
    assert files_of(
        manifest_of(
            config,
            {"mediaType": "text/plain", "annotations": {"software.ocm.artifact": annotation}},
        )
    ) == [(name, False)]


@pytest.mark.parametrize(
    ("metadata", "size"),
    [
        ('{"name": "m", "size": 7, "typeflag": 48}', 7),
        ('{"size": 7}', 7),
        ('{"size": 7, "typeflag": 53}', UNKNOWN_SIZE),
        ('{"size": -7}', UNKNOWN_SIZE),
        ('{"size": true}', UNKNOWN_SIZE),
        ('{"size": 9223372036854775808}', UNKNOWN_SIZE),
        ("[7]", UNKNOWN_SIZE),
        ("7", UNKNOWN_SIZE),
        (" " * 5000 + '{"size": 7}', UNKNOWN_SIZE),
    ],
)
def test_the_size_of_a_single_file_in_a_tar_comes_from_its_annotation(
    metadata: str, size: int
) -> None:
    packed = {
        "mediaType": "application/vnd.cncf.model.weight.v1.tar",
        "annotations": {
            "org.cncf.model.filepath": "m",
            "org.cncf.model.file.metadata+json": metadata,
        },
    }
    manifest = manifest_of("application/vnd.cncf.model.config.v1+json", packed)
    [file] = payload_files(manifest, classify(manifest))
    assert (file.unpack, file.member_size) == (True, size)


@pytest.mark.parametrize(
    ("kind", "unpack"),
    [("weight.v1.raw", False), ("weight.v1.tar", True), ("doc.v1.tar+gzip", True)],
)
def test_a_part_of_a_model_that_was_packed_as_a_tar_is_a_directory(kind: str, unpack: bool) -> None:
    result = files_of(
        manifest_of(
            "application/vnd.cncf.model.config.v1+json",
            layer("application/vnd.cncf.model." + kind, model="m"),
        )
    )
    assert result == [("m", unpack)]


def test_a_cache_that_is_an_index_of_blobs_has_them_as_files() -> None:
    children = [
        {"mediaType": kind, "digest": DIGEST, "size": 9}
        for kind in (mediatype.OCI_LAYER_GZIP, "application/vnd.buildkit.cacheconfig.v0")
    ]
    raw = json.dumps({"mediaType": mediatype.OCI_INDEX, "manifests": children}).encode()
    assert files_of(parse_manifest(raw, digest_of_manifest(raw))) == [
        ("layer-0.tar.gz", False),
        ("cacheconfig.json", False),
    ]


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
