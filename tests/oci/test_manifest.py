"""Parsing of manifests of every form. Ambiguous manifests are not interpreted."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import IntegrityError, Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import UNKNOWN_SIZE
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import JSON_CONTAINERS, JSON_DEPTH, JSON_VALUES, load_json
from ocifs.oci.manifest import Form, digest_of_manifest, parse_manifest, verify_manifest

LAYER = {"mediaType": mediatype.OCI_LAYER_GZIP, "digest": "sha256:" + "b" * 64, "size": 5}
CONFIG = {"mediaType": mediatype.OCI_CONFIG, "digest": "sha256:" + "c" * 64, "size": 7}
IMAGE = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}
INDEX = {"schemaVersion": 2, "manifests": [{**LAYER, "mediaType": mediatype.OCI_MANIFEST}]}


def parse(members: object, served: str = "", descriptor: str = ""):
    body = json.dumps(members).encode()
    return parse_manifest(body, Digest.of(body), served, descriptor)


@pytest.mark.parametrize(
    ("members", "served", "descriptor", "form", "media_type"),
    [
        (IMAGE, "", "", Form.MANIFEST, mediatype.OCI_MANIFEST),
        (IMAGE, mediatype.DOCKER_MANIFEST, "", Form.MANIFEST, mediatype.DOCKER_MANIFEST),
        (
            {**IMAGE, "mediaType": ""},
            f"{mediatype.OCI_MANIFEST}; charset=utf-8",
            "",
            Form.MANIFEST,
            None,
        ),
        (
            {**IMAGE, "mediaType": mediatype.OCI_MANIFEST},
            mediatype.DOCKER_MANIFEST,
            "",
            Form.MANIFEST,
            mediatype.OCI_MANIFEST,
        ),
        (IMAGE, "application/json", "", Form.MANIFEST, mediatype.OCI_MANIFEST),
        (INDEX, "", "", Form.INDEX, mediatype.OCI_INDEX),
        (INDEX, mediatype.DOCKER_LIST, "", Form.INDEX, mediatype.DOCKER_LIST),
        (
            IMAGE,
            mediatype.OCI_MANIFEST,
            mediatype.DOCKER_MANIFEST,
            Form.MANIFEST,
            mediatype.DOCKER_MANIFEST,
        ),
        (
            {"blobs": [LAYER]},
            mediatype.OCI_ARTIFACT_MANIFEST,
            "",
            Form.ARTIFACT,
            mediatype.OCI_ARTIFACT_MANIFEST,
        ),
        ({"blobs": [LAYER]}, "", "", Form.ARTIFACT, mediatype.OCI_ARTIFACT_MANIFEST),
        # ambiguous or contradicting (CVE-2021-41190): nothing is interpreted
        ({**IMAGE, **INDEX}, mediatype.OCI_MANIFEST, "", Form.UNKNOWN, None),
        (IMAGE, mediatype.OCI_INDEX, "", Form.UNKNOWN, None),
        ({**INDEX, "mediaType": mediatype.OCI_MANIFEST}, "", "", Form.UNKNOWN, None),
        (
            {"hello": 1},
            "application/vnd.example+json",
            "",
            Form.UNKNOWN,
            "application/vnd.example+json",
        ),
        ([1, 2], mediatype.OCI_MANIFEST, "", Form.UNKNOWN, None),
    ],
)
def test_the_form_is_decided_by_descriptor_then_body_then_header_then_structure(
    members, served, descriptor, form, media_type
) -> None:
    manifest = parse(members, served, descriptor)
    assert manifest.form is form
    if media_type is not None:
        assert manifest.media_type == media_type
    if form is Form.UNKNOWN:
        assert (manifest.layers, manifest.manifests, manifest.config) == ((), (), None)


@pytest.mark.parametrize(
    ("own", "served", "descriptor", "notes"),
    [
        (
            mediatype.OCI_MANIFEST,
            mediatype.OCI_INDEX,
            "",
            ["the Content-Type application/vnd.oci.image.index"],
        ),
        (
            mediatype.OCI_MANIFEST,
            "",
            mediatype.DOCKER_MANIFEST,
            ["its descriptor has the mediaType"],
        ),
        (
            mediatype.OCI_MANIFEST,
            mediatype.OCI_INDEX,
            mediatype.DOCKER_MANIFEST,
            ["the Content-Type", "its descriptor"],
        ),
        ("application/x", mediatype.OCI_MANIFEST, "", ["its own mediaType is application/x"]),
        (
            mediatype.OCI_MANIFEST,
            f"{mediatype.OCI_MANIFEST}; charset=utf-8",
            mediatype.OCI_MANIFEST,
            [],
        ),
        (mediatype.OCI_MANIFEST, "application/json", "", []),
        ("", mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST, []),
    ],
)
def test_types_that_contradict_the_manifests_own_are_notes(
    own: str, served: str, descriptor: str, notes: list[str]
) -> None:
    manifest = parse({**IMAGE, "mediaType": own}, served, descriptor)
    assert manifest.form is Form.MANIFEST
    assert [note in given for note, given in zip(notes, manifest.notes, strict=True)] == [
        True
    ] * len(notes)


def test_bytes_are_kept_as_they_came() -> None:
    body = b'{ "schemaVersion":2,\n\n "layers": [ ] }'
    assert parse_manifest(body, Digest.of(body)).raw is body


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"layers": 1, "layers": 2}', b"[" * 100_000]
)
def test_what_is_no_json_is_shown_raw(body: bytes) -> None:
    assert parse_manifest(body, Digest.of(body), mediatype.OCI_MANIFEST).form is Form.UNKNOWN


@pytest.mark.parametrize(
    "broken",
    [
        {**IMAGE, "layers": 5},
        {**IMAGE, "layers": [{**LAYER, "digest": "../../etc/passwd"}]},
        {**IMAGE, "layers": [{**LAYER, "size": -1}]},
        {**IMAGE, "layers": [{**LAYER, "size": "9"}]},
        {**IMAGE, "config": "x"},
        {**IMAGE, "annotations": []},
    ],
)
def test_a_known_form_that_breaks_its_rules_is_malformed(broken: object) -> None:
    with pytest.raises(Malformed):
        parse(broken)


def signed(payload: bytes) -> bytes:
    """A schema 1 manifest with a signature block, laid out as Docker's registry does."""
    assert payload.endswith(b"\n}")
    head, tail = payload[:-2], payload[-2:]
    header = {
        "formatLength": len(head),
        "formatTail": base64.urlsafe_b64encode(tail).decode().rstrip("="),
    }
    protected = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return head + b',\n "signatures": [{"protected": "' + protected.encode() + b'"}]\n}'


def schema1() -> bytes:
    history = [
        {"v1Compatibility": '{"id":"2"}'},
        {"v1Compatibility": '{"throwaway":true}'},
        {"v1Compatibility": "{}"},
    ]
    layers = [{"blobSum": f"sha256:{n * 64}"} for n in "123"]
    return json.dumps(
        {"schemaVersion": 1, "fsLayers": layers, "history": history}, indent=1
    ).encode()


def test_a_signed_schema_1_manifest_is_named_by_its_payload() -> None:
    payload = schema1()
    body = signed(payload)
    assert digest_of_manifest(body) == Digest.of(payload)
    verify_manifest(body, Digest.of(payload))
    with pytest.raises(IntegrityError):
        verify_manifest(body.replace(b"sha256:1", b"sha256:9"), Digest.of(payload))


def test_the_layers_of_schema_1_are_in_the_order_of_application_without_empty_ones() -> None:
    manifest = parse_manifest(schema1(), Digest.of(schema1()), mediatype.DOCKER_SCHEMA1)
    assert [layer.digest.encoded[0] for layer in manifest.layers] == ["3", "1"]
    assert {layer.size for layer in manifest.layers} == {UNKNOWN_SIZE}


def test_another_digest_is_an_integrity_error() -> None:
    with pytest.raises(IntegrityError):
        verify_manifest(b"{}", Digest.of(b"[]"))
    verify_manifest(b"{}", Digest.of(b"{}", "sha512"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
members = st.dictionaries(
    st.sampled_from(
        [
            "config",
            "layers",
            "manifests",
            "blobs",
            "fsLayers",
            "history",
            "subject",
            "annotations",
            "mediaType",
            "artifactType",
        ]
    ),
    json_values | st.just(LAYER) | st.just([LAYER]),
)


@given(members, st.sampled_from(["", *mediatype.MANIFESTS]))
def test_any_json_is_a_manifest_or_malformed(value: dict[str, object], served: str) -> None:
    try:
        parse(value, served)
    except Malformed:
        pass


@given(st.lists(st.booleans(), min_size=1, max_size=2 * JSON_DEPTH))
def test_json_is_as_deep_as_it_may_be_and_no_deeper(lists: list[bool]) -> None:
    body = b"0"
    for is_list in lists:
        body = b"[1, %s]" % body if is_list else b'{"a": "[", "b": %s}' % body
    if len(lists) <= JSON_DEPTH:
        assert load_json(body, "it") == json.loads(body)
    else:
        with pytest.raises(Malformed, match="deep"):
            load_json(body, "it")


def test_values_are_counted_outside_strings() -> None:
    words = json.dumps({"annotations": {"x": '[],"{}' * JSON_CONTAINERS}}).encode()
    assert load_json(words, "it") == json.loads(words)
    many = b"[" + b"0," * JSON_VALUES + b"0]"
    with pytest.raises(Malformed, match="values"):
        load_json(many, "it")
    with pytest.raises(Malformed, match="arrays and objects"):
        load_json(b"[" + b"[]," * JSON_CONTAINERS + b"[]]", "it")
    assert load_json(b"[" + b"0," * (JSON_VALUES - 2) + b"0]", "it")
    assert load_json(b"[" + b"[]," * (JSON_CONTAINERS - 2) + b"[]]", "it")


@pytest.mark.parametrize("tail", [b'"', b'"\\', b'"\\"', b'"x'])
def test_a_string_without_an_end_hides_no_values(tail: bytes) -> None:
    with pytest.raises(Malformed, match="arrays and objects"):
        load_json(b"[" * (JSON_CONTAINERS + 1) + tail, "it")


def test_a_manifest_of_too_many_values_is_shown_raw() -> None:
    body = b'{"schemaVersion": 2, "layers": [], "x": [' + b"[]," * JSON_CONTAINERS + b"[]]}"
    manifest = parse_manifest(body, Digest.of(body), mediatype.OCI_MANIFEST)
    assert manifest.form is Form.UNKNOWN
    assert "arrays and objects" in manifest.form_reason
    assert manifest.raw == body
