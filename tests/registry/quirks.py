"""Shared parts of the tests of docs/reference/registries.md.

They are the register of rows, a client for a scripted registry, and other tools' clients. Each
module `quirks_*.py` registers functions under the names of rows, which test_quirks.py runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ocifs.content import Blob
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.registry.client import RegistryClient
from ocifs.settings import Limits, Settings
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Handler, Reply, Request, fault_server, http
from tests.support.secrets import keep_secret

SECRET = keep_secret("s3cr3t-of-the-quirks", "me:s3cr3t-of-the-quirks")
CONTENT = bytes(range(256)) * 8
BLOB = Blob("a/b", Digest.of(CONTENT), len(CONTENT))
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "layers": []}
).encode()
DIGEST = Digest.of(MANIFEST)
TAGS = http(200, b'{"tags": ["v1"]}')

Quirk = Callable[[Path, pytest.MonkeyPatch], Awaitable[None]]
QUIRKS: dict[str, Quirk] = {}


def quirk(name: str) -> Callable[[Quirk], Quirk]:
    def keep(function: Quirk) -> Quirk:
        QUIRKS[name] = function
        return function

    return keep


@asynccontextmanager
async def acting(
    handler: Handler, *, retries: int = 2
) -> AsyncIterator[tuple[RegistryClient, FaultServer]]:
    with fault_server(handler) as server:
        async with open_registry(server.host, Settings(limits=Limits(retries=retries))) as client:
            yield client, server


def log_in(home: Path, key: str, entry: dict[str, str] | None = None) -> None:
    packed = base64.b64encode(f"me:{SECRET}".encode()).decode()
    (home / "config.json").write_text(json.dumps({"auths": {key: entry or {"auth": packed}}}))


def with_tokens(
    server: Callable[[], FaultServer], challenge: str, answer: Handler, member: str = "token"
) -> Handler:
    """Wants a token, that its own server gives; `challenge` follows the realm."""

    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(200, json.dumps({member: "t0ken"}).encode())
        if request.headers.get("authorization") == "Bearer t0ken":
            return answer(request)
        return http(
            401, www_authenticate=f'Bearer realm="http://{server().host}/token",{challenge}'
        )

    return handler


async def read(
    client: RegistryClient, start: int, stop: int, blob: Blob = BLOB
) -> tuple[int, bytes]:
    """Where a read of a part begins, and its bytes."""
    async with client.open_blob(blob, start, stop) as stream:
        return stream.start, b"".join([piece async for piece in stream])
