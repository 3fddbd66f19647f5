"""Targets of requests to a registry."""

from __future__ import annotations

import pytest

from ocifs.oci.digest import Digest
from ocifs.oci.distribution import endpoints
from ocifs.oci.reference import is_tag

DIGEST = Digest.of(b"content")


@pytest.mark.parametrize(
    ("target", "scope"),
    [
        (endpoints.catalog(), "registry:catalog:*"),
        (endpoints.tags("a/b"), "repository:a/b:pull"),
        (endpoints.manifest("a/b", "v1"), "repository:a/b:pull"),
        (endpoints.manifest("a/b", DIGEST), "repository:a/b:pull"),
        (endpoints.blob("a", DIGEST), "repository:a:pull"),
        (endpoints.referrers("a/b/c", DIGEST), "repository:a/b/c:pull"),
        ("/v2/", ""),
    ],
)
def test_a_target_needs_the_scope_of_its_repository(target: str, scope: str) -> None:
    assert endpoints.scope_of(target) == scope


@pytest.mark.parametrize(
    "repository", ["tags/list", "blobs/x", "manifests/manifests", "referrers/blobs/a"]
)
def test_a_repository_named_like_an_endpoint_keeps_its_name_in_the_scope(repository: str) -> None:
    requested = [
        endpoints.tags(repository),
        endpoints.manifest(repository, "latest"),
        endpoints.blob(repository, DIGEST),
    ]
    assert [endpoints.scope_of(target) for target in requested] == [
        f"repository:{repository}:pull"
    ] * 3


def test_lists_ask_for_a_page_that_every_registry_grants() -> None:
    assert endpoints.catalog() == "/v2/_catalog?n=1000"
    assert endpoints.tags("r") == "/v2/r/tags/list?n=1000"


def test_the_tag_that_stands_in_for_referrers_is_a_tag_for_every_algorithm() -> None:
    assert endpoints.referrers_tag(DIGEST) == f"sha256-{DIGEST.encoded}"
    long = endpoints.referrers_tag(Digest.of(b"x", "sha512"))
    assert is_tag(long)
    assert (
        len(long) == len("sha512-") + 64
    )  # distribution-spec: the encoded part is cut at 64 characters
