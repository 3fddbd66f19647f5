"""Roles of an index's children, types of layers, and flavours of images."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.oci import mediatype
from ocifs.oci.descriptor import parse_descriptor
from ocifs.oci.kinds.artifact import classify, is_rootfs_layer
from ocifs.oci.kinds.children import (
    attached_to,
    child_name,
    child_role,
    main_child,
    platform_name,
)
from ocifs.oci.kinds.flavours import config_flavours
from ocifs.oci.kinds.payload import payload_files
from ocifs.oci.kinds.refine import is_refined, refine
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.oci.manifest import Manifest, digest_of_manifest, parse_manifest

DIGEST = "sha256:" + "1f" * 32
LAYER = mediatype.OCI_LAYER_GZIP


@pytest.mark.parametrize(
    ("members", "role"),
    [
        ({"platform": {"os": "linux", "architecture": "amd64"}}, "platform"),
        ({"platform": {"os": "multi", "architecture": "amd64"}}, "platform"),
        (
            {
                "platform": {"os": "linux", "architecture": "amd64"},
                "artifactType": "application/vnd.nydus.image.manifest.v1+json",
            },
            "platform",
        ),
        ({}, "manifest"),
        ({"artifactType": "application/spdx+json"}, "artifact"),
        ({"platform": {"os": "unknown", "architecture": "unknown"}}, "artifact"),
        (
            {
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
            },
            "attestation",
        ),
        ({"artifactType": "application/vnd.in-toto+json"}, "attestation"),
        (
            {
                "platform": {"os": "linux", "architecture": "amd64"},
                "artifactType": "application/vnd.amazon.soci.index.v2+json",
            },
            "artifact",
        ),
        ({"mediaType": LAYER}, "blob"),
        ({"mediaType": "application/vnd.acme.vm.v1+json"}, "blob"),
        (
            {
                "mediaType": "application/vnd.acme.vm.v1+json",
                "platform": {"os": "darwin", "architecture": "arm64"},
            },
            "unknown",
        ),
        ({"mediaType": mediatype.DOCKER_LIST}, "manifest"),
    ],
)
def test_the_role_of_a_child(members: dict[str, object], role: str) -> None:
    base: dict[str, object] = {"mediaType": mediatype.OCI_MANIFEST, "digest": DIGEST, "size": 9}
    assert child_role(parse_descriptor(base | members, "child")) == role


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        (LAYER, True),
        ("application/vnd.oci.image.layer.v1.tar.gz", True),
        ("Application/vnd.OCI.image.layer.v1.tar+zstd; x=1", True),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", True),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", True),
        (mediatype.OCI_CONFIG, False),
        ("application/vnd.in-toto+json", False),
        ("application/tar+gzip", False),
        ("", False),
    ],
)
def test_which_layers_are_of_a_root_filesystem(media_type: str, expected: bool) -> None:
    assert is_rootfs_layer(media_type) is expected


@pytest.mark.parametrize(
    ("layer", "annotations", "flavours"),
    [
        ({}, {}, ()),
        ({"annotations": {"containerd.io/snapshot/stargz/toc.digest": DIGEST}}, {}, ("estargz",)),
        (
            {"annotations": {"io.github.containers.zstd-chunked.manifest-checksum": DIGEST}},
            {},
            ("zstd:chunked",),
        ),
        ({"mediaType": LAYER + "+encrypted"}, {}, ("encrypted",)),
        ({"urls": ["https://example.com/x"]}, {}, ("foreign-layers",)),
        ({"mediaType": "application/vnd.oci.image.layer.squashfs"}, {}, ("squashfs",)),
        (
            {"mediaType": "application/vnd.stacker.image.layer.squashfs+zstd+verity"},
            {},
            ("squashfs",),
        ),
        ({"mediaType": "application/vnd.sylabs.image.layer.v1.squashfs"}, {}, ("squashfs",)),
        ({"mediaType": "application/vnd.oci.image.layer.v1.erofs"}, {}, ("erofs",)),
        ({"mediaType": "application/vnd.oci.image.layer.nydus.blob.v1"}, {}, ("nydus",)),
        ({"mediaType": "application/vnd.erofs.layer.v1"}, {}, ("erofs",)),
        (
            {"annotations": {"containerd.io/snapshot/overlaybd/version": "0.1.0"}},
            {},
            ("overlaybd",),
        ),
        (
            {"annotations": {"containerd.io/snapshot/overlaybd/turbo-oci/target-digest": DIGEST}},
            {},
            ("overlaybd",),
        ),
        ({}, {"vnd.docker.sandbox.kit.descriptor": "{}"}, ("sandbox-kit",)),
        ({}, {"com.amazon.soci.index-digest": DIGEST}, ("soci-v2",)),
        ({}, {"io.backstage.dynamic-packages": "W10="}, ("backstage-plugin",)),
    ],
)
def test_flavours_of_an_image(
    layer: dict[str, object], annotations: dict[str, str], flavours: tuple[str, ...]
) -> None:
    config = {"mediaType": mediatype.OCI_CONFIG, "digest": DIGEST, "size": 90}
    body = {
        "config": config,
        "layers": [{"mediaType": LAYER, "digest": DIGEST, "size": 9} | layer],
        "annotations": annotations,
    }
    raw = json.dumps(body).encode()
    result = classify(parse_manifest(raw, digest_of_manifest(raw)))
    assert (result.kind, result.flavours) == ("image", flavours)


@pytest.mark.parametrize(
    ("config", "flavours"),
    [
        (b'{"config": {"Labels": {"containers.bootc": "1"}}}', ("bootable",)),
        (b'{"config": {"Labels": {"ostree.commit": "ab"}}}', ("bootable",)),
        (b'{"config": {"Labels": {"containers.bootc": "0"}}}', ()),
        (b'{"config": {"Labels": {"dev.carvel.imgpkg.bundle": ""}}}', ("imgpkg-bundle",)),
        (
            b'{"config": {"Labels": {"com.docker.desktop.extension.api.version": "1"}}}',
            ("docker-desktop-extension",),
        ),
        (
            b'{"config": {"Labels": {"io.modelcontextprotocol.server.name": "io.x/y"}}}',
            ("mcp-server",),
        ),
        (b'{"config": {"Labels": {"io.ebpf.programs": "{}"}}}', ("ebpf-bytecode",)),
        (
            b'{"config": {"Labels": {"operators.operatorframework.io.bundle.mediatype.v1": "x"}}}',
            ("olm-bundle",),
        ),
        (
            b'{"config": {"Labels": {"operators.operatorframework.io.index.configs.v1": "/c"}}}',
            ("olm-catalog",),
        ),
        (
            b'{"config": {"Labels": {"io.buildpacks.buildpackage.metadata": "{}"}}}',
            ("buildpackage",),
        ),
        (b'{"config": {"Labels": {"org.flatpak.ref": "app/x"}}}', ("flatpak",)),
        (b'{"config": {"Labels": null}}', ()),
        (b'{"config": []}', ()),
        (b"[1]", ()),
        (b"not: json", ()),
        (b"", ()),
    ],
)
def test_flavours_by_the_labels_of_the_config(config: bytes, flavours: tuple[str, ...]) -> None:
    assert config_flavours(config) == flavours


_TYPES = st.sampled_from(
    ["", LAYER, mediatype.OCI_EMPTY, mediatype.OCI_CONFIG, "a/b", "application/wasm"]
) | st.text(max_size=20)
_NOTES = st.dictionaries(
    st.sampled_from(["dev.tekton.image.kind", "predicateType", "x"]) | st.text(max_size=5),
    st.text(max_size=9),
)
_DESCRIPTORS = st.fixed_dictionaries(
    {
        "mediaType": _TYPES,
        "digest": st.just(DIGEST),
        "size": st.integers(0, 5),
        "annotations": _NOTES,
        "artifactType": _TYPES,
    }
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "config": _DESCRIPTORS,
            "layers": st.lists(_DESCRIPTORS, max_size=4),
            "manifests": st.lists(_DESCRIPTORS, max_size=4),
            "annotations": _NOTES,
            "artifactType": _TYPES,
        },
    ),
    st.binary(max_size=20),
)
def test_every_manifest_has_a_kind_of_the_table_and_files_for_layers_only(
    body: dict[str, object], config: bytes
) -> None:
    raw = json.dumps(body).encode()
    manifest = parse_manifest(raw, digest_of_manifest(raw))
    result = classify(manifest)
    assert result.kind in KINDS_BY_NAME
    files = payload_files(manifest, result, config)
    assert len(files) <= len(manifest.layers or manifest.manifests) + 1
    assert all(file.path and not any(part.is_empty for part in file.parts) for file in files)


def test_an_image_config_of_two_bytes_is_blank_by_any_algorithm() -> None:
    config = {"mediaType": mediatype.OCI_CONFIG, "digest": "sha512:" + "3a" * 64, "size": 2}
    raw = json.dumps(
        {"config": config, "layers": [{"mediaType": LAYER, "digest": DIGEST, "size": 9}]}
    ).encode()
    assert classify(parse_manifest(raw, digest_of_manifest(raw))).kind == "files"


@pytest.mark.parametrize(
    ("annotations", "digest"),
    [
        ({"vnd.docker.reference.digest": DIGEST}, DIGEST),
        ({"com.amazon.soci.image-manifest-digest": DIGEST}, DIGEST),
        ({"vnd.docker.reference.digest": "no digest"}, None),
        ({}, None),
    ],
)
def test_which_sibling_a_child_is_about(annotations: dict[str, str], digest: str | None) -> None:
    result = attached_to(
        parse_descriptor({"digest": DIGEST, "size": 9, "annotations": annotations}, "child")
    )
    assert (str(result) if result else None) == digest


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({"org.opencontainers.image.title": "t", "type": "sbom"}, "t"),
        ({"io.cnab.manifest.type": "component", "io.cnab.component.name": "image-1"}, "image-1"),
        ({"io.cnab.manifest.type": "invocation"}, "invocation"),
        ({"type": "sig"}, "sig"),
        ({}, "1f" * 6),
    ],
)
def test_what_a_child_without_a_platform_is_called(annotations: dict[str, str], name: str) -> None:
    assert (
        child_name(
            parse_descriptor({"digest": DIGEST, "size": 9, "annotations": annotations}, "child")
        )
        == name
    )


def index_of(children: list[dict[str, object]], **annotations: str) -> Manifest:
    whole = [
        {"mediaType": mediatype.OCI_MANIFEST, "digest": DIGEST, "size": 9} | child
        for child in children
    ]
    notes = {key.replace("_", "."): value for key, value in annotations.items()}
    raw = json.dumps(
        {"mediaType": mediatype.OCI_INDEX, "manifests": whole, "annotations": notes}
    ).encode()
    return parse_manifest(raw, digest_of_manifest(raw))


def test_bottles_are_called_after_the_release_that_they_are_for() -> None:
    platform = {"os": "darwin", "architecture": "amd64"}
    children: list[dict[str, object]] = [
        {"platform": platform, "annotations": {"org.opencontainers.image.ref.name": name}}
        for name in ("3.04_1.big_sur", "3.04_1.mojave", "other")
    ]
    bottles = {
        "com_github_package_type": "homebrew_bottle",
        "org_opencontainers_image_version": "3.04_1",
    }
    index = index_of(children, **bottles)
    assert [platform_name(index, child) for child in index.manifests] == [
        "big_sur",
        "mojave",
        "darwin-amd64",
    ]
    assert platform_name(index_of(children), index.manifests[0]) == "darwin-amd64"


CNAB = "io.cnab.manifest.type"


@pytest.mark.parametrize(
    ("children", "number"),
    [
        ([{}], 0),
        ([{}, {}], None),
        ([], None),
        ([{"annotations": {CNAB: "invocation"}}, {"annotations": {CNAB: "config"}}], 1),
        ([{"annotations": {"vnd.docker.reference.digest": DIGEST}}, {}], 1),
        ([{"mediaType": LAYER}], None),
    ],
)
def test_which_child_stands_for_an_index_without_platforms(
    children: list[dict[str, object]], number: int | None
) -> None:
    assert main_child(index_of(children)) == number


WASM = "application/vnd.wasm.config.v0+json"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (b'{"architecture": "wasm", "os": "wasip1"}', "wasm-module"),
        (b'{"architecture": "wasm", "os": "wasip1", "component": null}', "wasm-module"),
        (b'{"architecture": "wasm", "os": "wasip2", "component": {}}', "wasm-component"),
        (b'{"architecture": "wasm", "os": "wasip2"}', "wasm-component"),
        (b'{"os": 3}', "wasm-component"),
        (b"[]", "wasm-component"),
        (b"", "wasm-component"),
    ],
)
def test_the_config_tells_modules_from_components(config: bytes, kind: str) -> None:
    body = {
        "config": {"mediaType": WASM, "digest": DIGEST, "size": 90},
        "layers": [{"mediaType": "application/wasm", "digest": DIGEST, "size": 9}],
    }
    raw = json.dumps(body).encode()
    found = classify(parse_manifest(raw, digest_of_manifest(raw)))
    assert is_refined(found) and found.kind == "wasm-component"
    assert refine(found, config).kind == kind


def test_other_kinds_do_not_depend_on_the_config() -> None:
    raw = json.dumps({"config": {"mediaType": "a/b", "digest": DIGEST, "size": 9}}).encode()
    found = classify(parse_manifest(raw, digest_of_manifest(raw)))
    assert not is_refined(found) and refine(found, b'{"os": "wasip1"}') == found


def test_an_sbom_in_a_bundle_or_an_attestation_is_also_that_kind() -> None:
    spdx = "https://spdx.dev/Document/v2.3"
    bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    for more, notes, also in (
        ({"artifactType": bundle}, {"dev.sigstore.bundle.predicateType": spdx}, ("sbom",)),
        ({"artifactType": bundle}, {}, ()),
        ({"artifactType": "a/b"}, {"dev.sigstore.bundle.predicateType": spdx}, ()),
    ):
        raw = json.dumps({"layers": [], "annotations": notes, **more}).encode()
        found = classify(parse_manifest(raw, digest_of_manifest(raw)))
        assert found.also == also
        assert found.is_kind(found.kind) and found.is_kind("sbom") == bool(also)
    statements = [
        {
            "mediaType": "application/vnd.in-toto+json",
            "digest": DIGEST,
            "size": 9,
            "annotations": {"in-toto.io/predicate-type": predicate},
        }
        for predicate in (spdx, "https://openvex.dev/ns/v0.2.0", "https://slsa.dev/provenance/v1")
    ]
    raw = json.dumps({"layers": statements}).encode()
    found = classify(parse_manifest(raw, digest_of_manifest(raw)))
    assert (found.kind, found.also) == ("attestation", ("sbom", "vex"))
