"""The responses of a real registry: paged lists, sizes, and Basic credentials."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ocifs.content import Blob
from ocifs.errors import AccessDenied, NotFound
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import endpoints
from ocifs.settings import NetworkSettings, Settings
from tests.support.clients import open_registry
from tests.support.ports import free_port
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry
from tests.support.secrets import keep_secret

pytestmark = pytest.mark.servers

PASSWORD, WRONG = (
    keep_secret("geheimes-wort", "me:geheimes-wort"),
    keep_secret("falsches-wort", "me:falsches-wort"),
)
CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {passwords}}}}}
"""


def push_empty(registry: Registry, repository: str, *tags: str) -> Digest:
    digest = push_blob(registry.url, repository, b"{}")
    empty = {"mediaType": mediatype.OCI_EMPTY, "digest": digest, "size": 2}
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": empty,
        "layers": [empty],
    }
    return Digest.parse(
        [push_manifest(registry.url, repository, manifest, tag) for tag in tags][-1]
    )


async def test_every_page_of_a_list_is_read(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "PAGE", 2)
    names = [f"client/paged{number}" for number in range(5)]
    for name in names:
        push_empty(registry, name, "a", "b", "c", "d", "e")
    before = registry.requests("GET", endpoints.catalog())
    async with open_registry(registry.host, Settings()) as client:
        assert set(names) <= set(await client.repositories())
        assert sorted(await client.tags(names[0])) == ["a", "b", "c", "d", "e"]
    assert registry.requests("GET", endpoints.catalog()) == before + 1
    assert "/v2/_catalog?last=" in registry.log.read_text()  # further pages were asked for


async def test_a_manifest_and_a_part_of_a_blob_are_read(registry: Registry) -> None:
    digest = push_empty(registry, "client/read", "v1")
    content = Digest.parse(push_blob(registry.url, "client/read", b"0123456789"))
    async with open_registry(registry.host, Settings()) as client:
        assert (await client.resolve("client/read", "v1")).digest == digest
        assert digest.matches((await client.manifest("client/read", digest)).body)
        assert await client.blob_size("client/read", content) == 10
        async with client.open_blob(Blob("client/read", content, 10), 3, 6) as stream:
            assert (stream.start, stream.total) == (3, 10)
            assert b"".join([piece async for piece in stream]) == b"345"


async def test_what_is_not_there_is_not_found(registry: Registry) -> None:
    digest = push_empty(registry, "client/there", "v1")
    async with open_registry(registry.host, Settings()) as client:
        for question in (
            client.tags("client/absent"),
            client.resolve("client/there", "v2"),
            client.manifest("client/absent", digest),
            client.blob_size("client/there", Digest.of(b"absent")),
        ):
            with pytest.raises(NotFound):
                await question
        assert await client.referrers("client/there", digest) == ()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a registry that wants Basic credentials."""
    directory = tmp_path_factory.mktemp("locked")
    port = free_port()
    made = subprocess.run(["htpasswd", "-Bbn", "me", PASSWORD], capture_output=True, check=True)
    (directory / "passwords").write_bytes(made.stdout)
    config = directory / "config.yml"
    config.write_text(
        CONFIG.format(root=directory / "data", port=port, passwords=directory / "passwords")
    )
    command = ["docker-registry", "serve", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False, timeout=2)
                break
            time.sleep(0.05)  # there is no event to wait for
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def with_credentials(host: str, directory: Path, password: str) -> Settings:
    packed = base64.b64encode(f"me:{password}".encode()).decode()
    authfile = directory / "auth.json"
    authfile.write_text(json.dumps({"auths": {host: {"auth": packed}}}))
    return Settings(network=NetworkSettings(authfile=authfile))


async def test_credentials_from_the_file_open_a_registry(locked: str, tmp_path: Path) -> None:
    async with open_registry(locked, with_credentials(locked, tmp_path, PASSWORD)) as client:
        with pytest.raises(NotFound):
            await client.tags("a/b")


async def test_wrong_credentials_are_denied_and_never_shown(locked: str, tmp_path: Path) -> None:
    async with open_registry(locked, with_credentials(locked, tmp_path, WRONG)) as client:
        with pytest.raises(AccessDenied) as caught:
            await client.tags("a/b")
    assert WRONG not in str(caught.value) + caught.value.hint
