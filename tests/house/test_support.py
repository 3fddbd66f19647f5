"""The helpers of the tests work against a real registry."""

from __future__ import annotations

import httpx
import pytest

from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry


@pytest.mark.servers
def test_pushed_content_is_served_and_requests_are_counted(registry: Registry) -> None:
    config = push_blob(registry.url, "house/support", b"{}")
    kind = "application/vnd.oci.image.manifest.v1+json"
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": config,
        "size": 2,
    }
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": descriptor, "layers": []}
    digest = push_manifest(registry.url, "house/support", manifest, "one")
    path = "/v2/house/support/manifests/one"
    assert registry.requests("HEAD", path) == 0
    answer = httpx.head(registry.url + path, headers={"accept": kind}, trust_env=False)
    assert answer.headers["docker-content-digest"] == digest
    assert registry.requests("HEAD", path) == 1
