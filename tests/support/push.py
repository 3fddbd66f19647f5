"""Uploads to a registry (distribution-spec "Push"): blobs, and manifests of any media type."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import httpx


def push_blob(url: str, repository: str, content: bytes) -> str:
    """Upload a blob in one request, and return its digest."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with httpx.Client(base_url=url, trust_env=False) as client:
        session = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
        place = client.base_url.join(session.headers["location"]).copy_merge_params(
            {"digest": digest}
        )
        client.put(
            place, content=content, headers={"content-type": "application/octet-stream"}
        ).raise_for_status()
    return digest


def push_manifest(url: str, repository: str, value: Mapping[str, object], tag: str = "") -> str:
    """Upload a manifest by tag if there is one, else by digest, and return its digest."""
    body = json.dumps(value).encode()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    path = f"{url}/v2/{repository}/manifests/{tag or digest}"
    headers = {"content-type": str(value["mediaType"])}
    httpx.put(path, content=body, headers=headers, trust_env=False).raise_for_status()
    return digest
