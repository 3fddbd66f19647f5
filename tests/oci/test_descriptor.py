"""Descriptors and JSON (image-spec, descriptor.md, considerations.md and manifest.md)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import Malformed, Unsupported
from ocifs.oci import mediatype
from ocifs.oci.descriptor import UNKNOWN_SIZE, parse_descriptor
from ocifs.oci.digest import MAX_DIGEST_LENGTH, Digest
from ocifs.oci.jsontext import load_json
from ocifs.oci.manifest import Form, digest_of_manifest, parse_manifest
from ocifs.tree.manifest.times import config_members

DIGEST = f"sha256:{'2e' * 32}"


@pytest.mark.parametrize(
    ("said", "digest", "size"),
    [
        ({}, DIGEST, UNKNOWN_SIZE),
        ({"size": None}, DIGEST, UNKNOWN_SIZE),
        ({"size": 0}, DIGEST, UNKNOWN_SIZE),
        ({"size": 0}, str(Digest.of(b"")), 0),
        ({"size": 0}, str(Digest.of(b"", "sha512")), 0),
        ({"size": 7}, DIGEST, 7),
        ({"size": 0}, "blake3:abc", UNKNOWN_SIZE),
    ],
)
def test_descriptor_properties_size(said: dict[str, object], digest: str, size: int) -> None:
    """A missing size is not known.

    A size of 0 is only that of no bytes: a file of it would be read as empty, whatever its digest.
    """
    assert parse_descriptor({"digest": digest, **said}, "x").size == size


@pytest.mark.parametrize("size", [-1, "7", 1.5, True, 2**63, [], {}])
def test_a_size_that_is_not_one_is_refused(size: object) -> None:
    with pytest.raises(Malformed, match="size"):
        parse_descriptor({"digest": DIGEST, "size": size}, "x")


@pytest.mark.parametrize(
    ("media_type", "digest", "size", "empty"),
    [
        ("application/vnd.oci.empty.v1+json", str(Digest.of(b"{}")), 2, True),
        ("application/vnd.unknown.config.v1+json", str(Digest.of(b"{}")), 2, True),
        ("application/vnd.oci.empty.v1+json", str(Digest.of(b"{}", "sha512")), 2, True),
        ("application/vnd.oci.empty.v1+json", str(Digest.of(b"{}")), 7, False),
        ("application/vnd.oci.empty.v1+json", DIGEST, 2, False),
    ],
)
def test_guidance_for_an_empty_descriptor(
    media_type: str, digest: str, size: int, empty: bool
) -> None:
    result = parse_descriptor({"mediaType": media_type, "digest": digest, "size": size}, "x")
    assert (result.is_empty, result.embedded) == (empty, b"{}" if empty else None)


@pytest.mark.parametrize(
    "digest",
    [
        "multihash+base58:" + "Q" * 185,
        "sha256+b64u:" + "A" * 43,
        "blake3:" + "0" * 64,
        "x:" + "y" * (MAX_DIGEST_LENGTH - 2),
    ],
)
def test_digests_of_unknown_algorithms_pass_and_cannot_be_read(digest: str) -> None:
    raw = json.dumps(
        {"config": {"digest": DIGEST, "size": 9}, "layers": [{"digest": digest, "size": 9}]}
    ).encode()
    manifest = parse_manifest(raw, digest_of_manifest(raw))
    assert (manifest.form, str(manifest.layers[0].digest)) == (Form.MANIFEST, digest)
    with pytest.raises(Unsupported):
        manifest.layers[0].digest.hasher()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        ({"x": [1, None]}, '{"x": [1, null]}'),
        ("None", "None"),
        (["\u00e9"], '["\u00e9"]'),
    ],
)
def test_annotations_that_are_not_strings_are_shown_as_json_spells_them(
    value: object, shown: str
) -> None:
    assert (
        parse_descriptor({"digest": DIGEST, "annotations": {"a": value}}, "x").annotations["a"]
        == shown
    )


TEXT = json.dumps(
    {"mediaType": mediatype.OCI_MANIFEST, "config": {"digest": DIGEST, "size": 2}, "layers": []}
)


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "utf-7"]
)
def test_i_json_is_utf_8_alone(encoding: str) -> None:
    """considerations.md, "Extensibility" and "Canonicalization": all clients reject these."""
    body = TEXT.replace("{", '{"x": "\u00e9", ', 1).encode(encoding)
    assert (
        parse_manifest(body, digest_of_manifest(body)).form is Form.UNKNOWN
        if encoding != "utf-7"
        else True
    )
    if encoding != "utf-7":  # which is ASCII, and so JSON
        assert config_members(body) == {}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '{"a": NaN}', "[1, -Infinity]"])
def test_numbers_that_json_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(Malformed, match="JSON"):
        load_json(text.encode(), "it")


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_malformed(body: bytes) -> None:
    try:
        load_json(body, "it")
    except Malformed:
        return
    body.decode("utf-8")
