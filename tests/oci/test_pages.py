"""Parsing of the pages of lists."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.distribution.pages import read_fallback, read_names, read_referrers

GOOD = {"mediaType": mediatype.OCI_MANIFEST, "digest": str(Digest.of(b"good")), "size": 4}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(GOOD),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["digest", "size", "x"]), inner)
    ),
    max_leaves=8,
)


def index(*manifests: object, **members: object) -> bytes:
    listed = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": list(manifests),
        **members,
    }
    return json.dumps({name: value for name, value in listed.items() if value != "absent"}).encode()


def test_names_that_cannot_be_such_are_dropped_and_counted() -> None:
    tags = ["v1", None, 7, "sha256:" + "0" * 64, "", ".hidden", "v2", "a b"]
    page = read_names(json.dumps({"tags": tags}).encode(), "tags")
    assert (page.names, page.count, page.last) == (("v1", "v2"), 8, "a b")
    repositories = ["a/b", "A", "..", "a//b", {"name": "x"}, "c"]
    assert read_names(
        json.dumps({"repositories": repositories}).encode(), "repositories"
    ).names == ("a/b", "c")


@pytest.mark.parametrize(
    "body", [b'{"name": "a", "tags": null}', b'{"name": "a"}', b'{"tags": []}']
)
def test_null_and_nothing_are_an_empty_list(body: bytes) -> None:
    page = read_names(body, "tags")
    assert (page.names, page.count, page.last) == ((), 0, "")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b'{"tags": "v1"}', b"<html>", b'{"tags": {}}', b"\xff"),
        b'{"errors": [{"code": "UNAVAILABLE"}]}',
        b'{"tags": null, "errors": [{"code": "UNKNOWN"}]}',
    ],
)
def test_a_page_that_is_not_a_list_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_names(body, "tags")


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"[]",
            b"{}",
            b"<!doctype html>",
            b"null",
            b'{"manifests": "no"}',
            b'{"errors": [], "manifests": []}',
        ),
        index(mediaType=mediatype.OCI_MANIFEST),
        index(mediaType=mediatype.DOCKER_LIST),
    ],
)
def test_content_that_is_not_an_index_lists_no_referrers(body: bytes) -> None:
    assert read_referrers(body, "text/html") is None
    assert read_fallback(body, "text/html", Digest.of(b"subject")) is None


@pytest.mark.parametrize("media_type", [mediatype.OCI_INDEX, "application/json", ""])
def test_an_index_need_not_name_its_type_and_may_be_empty(media_type: str) -> None:
    for body in (index(mediaType="absent"), index(manifests=None)):
        assert read_referrers(body, media_type) == ()


def test_a_fallback_tag_that_is_the_subject_itself_is_not_a_list() -> None:
    body = index(GOOD)
    assert read_fallback(body, mediatype.OCI_INDEX, Digest.of(body)) is None
    assert read_fallback(body, mediatype.OCI_INDEX, Digest.of(b"another")) is not None


@given(st.lists(ANY_JSON, max_size=5), st.lists(ANY_JSON, max_size=5))
def test_no_entry_hides_a_good_one(before: list[object], after: list[object]) -> None:
    listed = read_referrers(index(*before, GOOD, *after), mediatype.OCI_INDEX)
    assert listed is not None
    assert Digest.of(b"good") in [descriptor.digest for descriptor in listed]
