"""HEAD as a hint, and registries behind fronts that redirect: absence and failures.

On real sockets.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocifs.content import Blob
from ocifs.errors import AccessDenied, NotFound, OcifsError, RateLimited, RegistryFailed
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.registry.client import RegistryClient
from ocifs.settings import Limits, Settings
from tests.support.clients import open_registry
from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.support.tools import tool

ONCE = Settings(limits=Limits(retries=1))
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "layers": []}
).encode()
DIGEST = Digest.of(MANIFEST)
CONTENT = b"content" * 100
BLOB = Blob("a/b", Digest.of(CONTENT), len(CONTENT))
UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'
NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code></Error>"


def registry(request: Request) -> Reply:
    if request.target == "/v2/":
        return http(200)
    if request.target.endswith(("/manifests/v1", str(DIGEST))):
        return http(
            200, MANIFEST, content_type=mediatype.OCI_MANIFEST, docker_content_digest=str(DIGEST)
        )
    if request.target.endswith(str(BLOB.digest)):
        return http(206, CONTENT[:1], content_range=f"bytes 0-0/{len(CONTENT)}")
    return http(404, UNKNOWN)


def refusing_head(answer: Reply) -> Handler:
    return lambda request: answer if request.method == "HEAD" else registry(request)


HEADS = {
    **{str(status): http(status) for status in (400, 403, 404, 405, 406, 410, 415, 500, 501, 503)},
    "a redirect without an address": http(302),
    "another digest alone": http(200, docker_content_digest="sha256:short"),
    "no length": Reply(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    ),
    "204": http(204),
    "a reset": Reply(b"", "reset"),
    "an end without an answer": Reply(b""),
    "an end within the headers": Reply(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "what is not HTTP": Reply(b"\x00\x01\x02\r\n\r\n"),
    "an encoded length": http(
        200, b"x" * 20, content_encoding="gzip", docker_content_digest=str(DIGEST)
    ),
}


@pytest.mark.parametrize("name", HEADS)
async def test_head_is_a_hint_and_get_is_the_verdict(name: str) -> None:
    with fault_server(refusing_head(HEADS[name])) as server:
        async with open_registry(server.host, ONCE) as client:
            found = await client.resolve("a/b", "v1")
            assert (found.digest, found.size) == (DIGEST, len(MANIFEST))
            assert await client.blob_size("a/b", BLOB.digest) == len(CONTENT)
            with pytest.raises(NotFound):
                await client.resolve("a/b", "no-such-tag")


@pytest.mark.parametrize(
    ("status", "kind"), [(403, AccessDenied), (404, NotFound), (500, RegistryFailed)]
)
async def test_a_refusal_of_both_is_the_error_of_get(status: int, kind: type[OcifsError]) -> None:
    with fault_server(lambda _: http(status)) as server:
        async with open_registry(server.host, ONCE) as client:
            for question in (client.resolve("a/b", "v1"), client.blob_size("a/b", BLOB.digest)):
                with pytest.raises(kind):
                    await question


async def test_a_registry_that_limits_its_clients_is_not_asked_twice() -> None:
    with fault_server(lambda _: http(429, retry_after="3600")) as server:
        async with open_registry(server.host, ONCE) as client:
            with pytest.raises(RateLimited):
                await client.resolve("a/b", "v1")
    assert len(server.requests) == 1


@pytest.mark.servers
async def test_skopeo_and_crane_read_a_tag_where_head_is_refused(tmp_path: Path) -> None:
    for status in (403, 404):
        with fault_server(refusing_head(http(status)), plain=True) as server:
            tool("skopeo", tmp_path)(
                "inspect", "--raw", "--tls-verify=false", f"docker://{server.host}/a/b:v1"
            )
            tool("crane", tmp_path)("manifest", "--insecure", f"{server.host}/a/b:v1")
            async with open_registry(server.host, ONCE) as client:
                assert (await client.resolve("a/b", "v1")).digest == DIGEST


ABSENT = {
    "the path of the registry, with its code": lambda request: http(404, UNKNOWN),
    "the path of the registry, without a body": lambda request: http(404),
    "the path of the registry, with a page": lambda request: http(
        404, b"<html>", content_type="text/html"
    ),
}


async def ask(client: RegistryClient, question: str) -> object:
    if question == "resolve":
        return await client.resolve("a/b", "nope")
    return await (client.tagged("a/b", "nope") if question == "tagged" else client.tags("a/b"))


@pytest.mark.parametrize("question", ["resolve", "tagged", "tags"])
@pytest.mark.parametrize("name", ABSENT)
async def test_what_is_missing_behind_a_front_is_absent(name: str, question: str) -> None:
    with fault_server(ABSENT[name]) as behind:
        there = f"http://{behind.host}/v2/backend"
        with fault_server(lambda request: http(307, location=there + request.target[3:])) as front:
            async with open_registry(front.host, ONCE) as client:
                with pytest.raises(NotFound):
                    await ask(client, question)


async def test_a_code_of_a_registry_is_believed_at_any_path() -> None:
    with fault_server(lambda _: http(404, UNKNOWN)) as behind:
        with fault_server(
            lambda request: http(307, location=f"http://{behind.host}/x?y=z")
        ) as front:
            async with open_registry(front.host, ONCE) as client:
                with pytest.raises(NotFound):
                    await client.tagged("a/b", "nope")


@pytest.mark.parametrize("path", ["/signed?x=y", f"/v2/a/b/blobs/{BLOB.digest}"])
@pytest.mark.parametrize("body", [b"", NO_SUCH_KEY, b"<html>"])
async def test_a_404_of_a_storage_host_is_never_the_absence_of_a_blob(
    path: str, body: bytes
) -> None:
    with fault_server(lambda _: http(404, body)) as storage:
        with fault_server(lambda _: http(307, location=f"http://{storage.host}{path}")) as server:
            async with open_registry(server.host, ONCE) as client:
                with pytest.raises(RegistryFailed):
                    await client.blob_size("a/b", BLOB.digest)
                with pytest.raises(RegistryFailed):
                    async with client.open_blob(BLOB, 0, BLOB.size):
                        pass


async def test_a_404_of_a_storage_host_is_not_the_absence_of_a_manifest() -> None:
    with fault_server(lambda _: http(404, NO_SUCH_KEY)) as storage:
        with fault_server(
            lambda _: http(307, location=f"http://{storage.host}/signed?x=y")
        ) as server:
            async with open_registry(server.host, ONCE) as client:
                with pytest.raises(RegistryFailed):
                    await client.tagged("a/b", "v1")
