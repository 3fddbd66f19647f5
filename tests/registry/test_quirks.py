"""Behaviour of registries outside the specification: a test for each row of
docs/reference/registries.md, with the name of the row as its ID.

A scripted server reproduces each row. Debian's registry, distribution 3 and go-containerregistry
are tested themselves in test_registries.py.
"""

from __future__ import annotations

import base64
import json
import re
from importlib import import_module
from pathlib import Path

import pytest
import trio
import trustme

from ocifs.errors import AccessDenied, CatalogUnavailable, NotFound, RegistryFailed
from ocifs.oci import mediatype
from ocifs.oci.reference import Reference, parse_source
from ocifs.settings import NetworkSettings, Settings
from tests.registry.quirks import (
    BLOB,
    CONTENT,
    DIGEST,
    MANIFEST,
    QUIRKS,
    SECRET,
    TAGS,
    acting,
    log_in,
    quirk,
    read,
    with_tokens,
)
from tests.support.clients import open_registry
from tests.support.faults import Reply, Request, fault_server, http
from tests.support.nginx import before, tls_front
from tests.support.proxy import proxy_to

PAGE = Path(__file__).parents[2] / "docs/reference/registries.md"
for module in Path(__file__).parent.glob("quirks_*.py"):
    import_module(f"tests.registry.{module.stem}")  # which registers its rows


@pytest.mark.servers
@pytest.mark.parametrize(
    "name", sorted(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE))
)
async def test_quirk(
    name: str, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch, mock_clock
) -> None:
    mock_clock.rate = 1  # real time, in which a row may jump
    with trio.fail_after(300):  # of a clock that may jump; pytest ends a row that hangs
        await QUIRKS[name](nobodys_home, monkeypatch)


def test_every_quirk_that_is_tested_is_a_row_of_the_page_and_the_other_way_round() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(QUIRKS)


@quirk("docker-hub")
async def docker_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parse_source("alpine:3.19")
    assert source == Reference("docker.io", "library/alpine", "3.19")
    log_in(home, "https://index.docker.io/v1/")

    def hub(request: Request) -> Reply:
        if request.headers["host"] == "auth.docker.io":
            assert request.headers["authorization"].startswith("Basic ")
            return http(200, b'{"token": "t0ken"}')
        assert request.headers["host"] == "registry-1.docker.io"
        if request.headers.get("authorization") != "Bearer t0ken":
            bearer = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
            return http(401, www_authenticate=bearer)
        if "_catalog" in request.target:
            return http(
                401,
                www_authenticate='Bearer realm="https://auth.docker.io/token",error="insufficient_scope"',
            )
        if "/blobs/" in request.target:
            return http(307, location="https://production.cloudflare.docker.com/signed?verify=x")
        return http(
            200, MANIFEST, ratelimit_remaining="99;w=21600", docker_content_digest=str(DIGEST)
        )

    def anywhere(request: Request) -> Reply:
        if request.headers["host"] == "production.cloudflare.docker.com":
            assert "authorization" not in request.headers
            return http(200, CONTENT)
        return hub(request)

    with (
        fault_server(anywhere) as server,
        tls_front(home / "hub", trustme.CA(), before(server.host)) as front,
    ):
        with proxy_to(front.host) as proxy:
            monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
            async with open_registry(
                "docker.io", Settings(network=NetworkSettings(ca_file=front.ca))
            ) as client:
                assert (await client.tagged("library/alpine", "3.19")).digest == DIGEST
                assert await read(client, 0, len(CONTENT)) == (0, CONTENT)
                with pytest.raises(CatalogUnavailable):
                    await client.repositories()
                assert client.facts()["rate_limits"]["ratelimit-remaining"] == "99;w=21600"


@quirk("ghcr")
async def ghcr(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> Reply:
        if "last=v1" in request.target:
            return http(200, b'{"tags": ["v3", "v2"]}')
        if "/tags/list" in request.target:
            return http(
                200, b'{"tags": ["v9", "v1"]}', link='</v2/a/b/tags/list?last=v1&n=0>; rel="next"'
            )
        return http(404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')

    handler = with_tokens(
        lambda: server, 'service="ghcr.io",scope="repository:user/image:pull"', answer
    )
    async with acting(handler) as (client, server):
        assert await client.tags("a/b") == ("v9", "v1", "v3", "v2")
        assert await client.referrers("a/b", DIGEST) == ()


@quirk("quay")
async def quay(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if "next_page=gAAA" in request.target:
            return http(200, b'{"name": "a/b", "tags": ["v2"]}')
        link = '</v2/a/b/tags/list?n=100&next_page=gAAA%3D%3D>; rel="next"'
        return http(200, b'{"name": "a/b", "tags": ["v1"]}', link=link)

    async with acting(handler) as (client, server):
        assert await client.tags("a/b") == ("v1", "v2")
    assert server.requests[1].target.endswith("next_page=gAAA%3D%3D")


@quirk("ecr")
async def ecr(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if request.headers.get("authorization", "").startswith("Basic "):
            size = int(request.target.rpartition("n=")[2])
            return TAGS if size <= 1000 else http(400, b'{"errors": [{"code": "UNSUPPORTED"}]}')
        return http(
            401,
            b"Not Authorized\n",
            www_authenticate=f'Basic realm="https://{server.host}/",service="ecr"',
        )

    async with acting(handler) as (client, server):
        program = home / "bin/docker-credential-ecr-login"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho \'{{"Username": "AWS", "Secret": "{SECRET}"}}\'\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        (home / "config.json").write_text(json.dumps({"credHelpers": {server.host: "ecr-login"}}))
        assert await client.tags("a/b") == ("v1",)


@quirk("ecr-public")
async def ecr_public(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = with_tokens(
        lambda: server, 'service="public.ecr.aws",scope="aws"', lambda request: TAGS
    )
    async with acting(handler) as (client, server):
        assert await client.tags("a/b") == ("v1",)
        asked = next(
            request.target for request in server.requests if request.target.startswith("/token")
        )
        assert "scope=aws" in asked


@quirk("gcr")
async def gcr(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> Reply:
        more = {
            "child": ["c"],
            "manifest": {str(DIGEST): {"tag": ["v1"], "imageSizeBytes": "1"}},
            "tags": ["v1"],
        }
        return http(200, json.dumps(more).encode())

    tokens = with_tokens(lambda: server, 'service="gcr.io"', answer)

    def handler(request: Request) -> Reply:
        reply = tokens(request)
        return http(401) if b" 401 " in reply.data and request.target != "/v2/" else reply

    async with acting(handler) as (client, server):
        assert await client.tags("a/b") == ("v1",)
    assert [request.target for request in server.requests].count("/v2/") == 1


@quirk("acr")
async def acr(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            assert request.method == "POST"
            return http(200, b'{"access_token": "t0ken"}')
        if request.headers.get("authorization") == "Bearer t0ken":
            return TAGS
        scope = "repository:a/b:metadata_read"
        return http(
            401,
            www_authenticate=f'Bearer realm="http://{server.host}/token",service="x",scope="{scope}"',
        )

    async with acting(handler) as (client, server):
        empty_guid = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
        log_in(home, server.host, {"auth": empty_guid, "identitytoken": SECRET})
        assert await client.tags("a/b") == ("v1",)


@quirk("harbor")
async def harbor(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if "/blobs/" in request.target:
            return http(200, CONTENT)  # whatever range was asked for
        if request.method == "HEAD":
            return http(
                200, docker_content_digest=str(DIGEST), content_length=str(len(MANIFEST) + 7)
            )
        if str(DIGEST) in request.target:
            return http(200, MANIFEST)
        return http(404, b'{"errors": [{"code": "UNKNOWN", "message": "unknown error"}]}')

    async with acting(handler) as (client, _):
        assert await read(client, 100, 200) == (0, CONTENT)
        found = await client.resolve("a/b", "v1")
        assert (await client.manifest("a/b", found.digest)).body == MANIFEST
        with pytest.raises(NotFound):
            await client.tags("a/b")


@quirk("gitlab")
async def gitlab(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def jwt(request: Request) -> Reply:
        assert request.target.startswith("/jwt/auth?service=container_registry&scope=")
        allowed = "registry%3Acatalog" not in request.target
        return (
            http(200, b'{"token": "t0ken"}')
            if allowed
            else http(403, b'{"errors": [{"code": "DENIED"}]}')
        )

    with fault_server(jwt) as elsewhere:
        challenge = f'Bearer realm="http://{elsewhere.host}/jwt/auth",service="container_registry"'

        def handler(request: Request) -> Reply:
            known = request.headers.get("authorization") == "Bearer t0ken"
            return TAGS if known else http(401, www_authenticate=challenge)

        async with acting(handler) as (client, server):
            log_in(home, server.host)
            assert await client.tags("group/project/image") == ("v1",)
            with pytest.raises(CatalogUnavailable):
                await client.repositories()


@quirk("artifactory")
async def artifactory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"tags": ["v1", str(DIGEST), "sha256__" + "0" * 64]}
    async with acting(lambda request: http(200, json.dumps(listed).encode())) as (client, _):
        assert await client.tags("a/b") == ("v1", "sha256__" + "0" * 64)


@quirk("nexus")
async def nexus(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with acting(lambda request: http(200, b'{"tags": ["v1", null, null]}')) as (client, _):
        assert await client.tags("a/b") == ("v1",)


@quirk("distribution-2")
async def distribution_2(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        accepted = request.headers.get("accept", "")
        if "/manifests/" in request.target:
            if mediatype.OCI_MANIFEST not in accepted:
                return http(
                    404,
                    b'{"errors": [{"code": "MANIFEST_UNKNOWN",'
                    b' "message": "OCI manifest found, but"}]}',
                )
            return http(
                200,
                MANIFEST,
                content_type=mediatype.OCI_MANIFEST,
                docker_content_digest=str(DIGEST),
            )
        if "/blobs/" in request.target:
            return http(200, CONTENT)  # a pull-through cache that has not got it yet
        return http(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")

    async with acting(handler) as (client, server):
        assert (await client.tagged("a/b", "v1")).media_type == mediatype.OCI_MANIFEST
        assert await read(client, 10, 20) == (0, CONTENT)
        with pytest.raises(CatalogUnavailable):
            await client.repositories()
    assert mediatype.DOCKER_LIST in server.requests[0].headers["accept"]


@quirk("distribution-3")
async def distribution_3(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if int(request.target.rpartition("n=")[2].partition("&")[0]) > 1000:
            return http(400, b'{"errors": [{"code": "PAGINATION_NUMBER_INVALID"}]}')
        return http(200, b'{"repositories": ["a/b"]}')

    async with acting(handler) as (client, _):
        assert await client.repositories() == ("a/b",)


@quirk("zot")
async def zot(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = {
        "mediaType": mediatype.OCI_MANIFEST,
        "digest": str(DIGEST),
        "size": len(MANIFEST),
        "artifactType": "x/y",
    }
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [child]}

    def handler(request: Request) -> Reply:
        return http(
            200,
            json.dumps(index).encode(),
            content_type=mediatype.OCI_INDEX,
            oci_filters_applied="artifactType",
        )

    async with acting(handler) as (client, server):
        for _ in range(2):
            assert [each.digest for each in await client.referrers("a/b", BLOB.digest)] == [DIGEST]
    assert all(
        "/referrers/" in request.target for request in server.requests
    )  # no tag is asked for besides


@quirk("ggcr")
async def ggcr(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"v{number:04}" for number in range(2500)]

    def handler(request: Request) -> Reply:
        if "/tags/list" in request.target:
            last = request.target.rpartition("last=")[2] if "last=" in request.target else ""
            left = [name for name in names if name > last] or names
            return http(200, json.dumps({"tags": left[:1000]}).encode())
        ranged = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if ranged is None or int(ranged[2]) >= len(CONTENT):
            return http(416)
        start, stop = int(ranged[1]), int(ranged[2]) + 1
        return http(
            206, CONTENT[start:stop], content_range=f"bytes {start}-{stop - 1}/{len(CONTENT)}"
        )

    async with acting(handler) as (client, _):
        assert await read(client, 100, len(CONTENT)) == (100, CONTENT[100:])
        assert await client.tags("a/b") == tuple(names)


@quirk("n-ignored")
async def n_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"v{number}" for number in range(3000)]
    async with acting(lambda request: http(200, json.dumps({"tags": names}).encode())) as (
        client,
        server,
    ):
        assert await client.tags("a/b") == tuple(names)
    assert len(server.requests) == 1


@quirk("short-pages")
async def short_pages(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        number = (
            int(request.target.rpartition("last=v")[2].partition("&")[0])
            if "last=" in request.target
            else 0
        )
        link = f"</v2/a/b/tags/list?last=v{number + 1}&n=1000>;rel=next" if number < 2 else ""
        return http(200, json.dumps({"tags": [f"v{number + 1}"]}).encode(), link=link)

    async with acting(handler) as (client, _):
        assert await client.tags("a/b") == ("v1", "v2", "v3")


@quirk("link-absolute")
async def link_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if "last=" in request.target:
            return http(200, b'{"tags": ["v2"]}')
        return http(
            200,
            b'{"tags": ["v1"]}',
            link=f'<http://{server.host}/v2/a/b/tags/list?last=v1>; rel="next"',
        )

    async with acting(handler) as (client, server):
        assert await client.tags("a/b") == ("v1", "v2")


@quirk("no-content-digest")
async def no_content_digest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with acting(lambda request: http(200, MANIFEST)) as (client, server):
        found = await client.resolve("a/b", "v1")
        assert found.digest == DIGEST
        assert (await client.manifest("a/b", DIGEST)).body == MANIFEST
    assert [request.method for request in server.requests] == ["HEAD", "GET"]


@quirk("head-without-length")
async def head_without_length(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(
                (
                    f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {DIGEST}\r\n"
                    "Connection: close\r\n\r\n"
                ).encode()
            )
        if "range" in request.headers:
            return http(206, CONTENT[:1], content_range=f"bytes 0-0/{len(CONTENT)}")
        return http(200, MANIFEST, docker_content_digest=str(DIGEST))

    async with acting(handler) as (client, _):
        assert (await client.resolve("a/b", "v1")).size == len(MANIFEST)
        assert await client.blob_size("a/b", BLOB.digest) == len(CONTENT)


@quirk("head-refused")
async def head_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if request.method == "HEAD":
            return http(405)
        if "range" in request.headers:
            return http(206, CONTENT[:1], content_range=f"bytes 0-0/{len(CONTENT)}")
        return http(200, MANIFEST)

    async with acting(handler) as (client, _):
        assert (await client.resolve("a/b", "v1")).digest == DIGEST
        assert await client.blob_size("a/b", BLOB.digest) == len(CONTENT)


@quirk("storage-refuses-head")
async def storage_refuses_head(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def signed(request: Request) -> Reply:
        if request.method == "HEAD":
            return http(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        return http(206, CONTENT[:1], content_range=f"bytes 0-0/{len(CONTENT)}")

    with fault_server(signed) as storage:
        async with acting(lambda request: http(307, location=f"http://{storage.host}/b?sig=x")) as (
            client,
            _,
        ):
            assert await client.blob_size("a/b", BLOB.digest) == len(CONTENT)


@quirk("html-errors")
async def html_errors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = b"<html><head><title>Sign in</title></head></html>"
    kinds = {404: NotFound, 403: AccessDenied, 502: RegistryFailed}

    def handler(request: Request) -> Reply:
        return http(int(request.target.split("/")[3]), page, content_type="text/html")

    async with acting(handler) as (client, _):
        for status, kind in kinds.items():
            with pytest.raises(kind) as caught:
                await client.tags(f"a/{status}")
            assert "<" not in str(caught.value)


@quirk("catalog-refused")
async def catalog_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (401, 403, 404, 405):
        async with acting(lambda request, status=status: http(status)) as (client, _):
            with pytest.raises(CatalogUnavailable):
                await client.repositories()


@quirk("charset")
async def charset(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ocifs.oci.manifest import parse_manifest

    kind = f"{mediatype.OCI_MANIFEST}; charset=utf-8"
    async with acting(lambda request: http(200, MANIFEST, content_type=kind)) as (client, _):
        raw = await client.manifest("a/b", DIGEST)
    assert parse_manifest(raw.body, raw.digest, raw.media_type).media_type == mediatype.OCI_MANIFEST


@quirk("tags-null")
async def tags_null(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with acting(lambda request: http(200, b'{"name": "a/b", "tags": null}')) as (client, _):
        assert await client.tags("a/b") == ()


@quirk("several-challenges")
async def several_challenges(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if request.headers.get("authorization", "").startswith("Basic "):
            return TAGS
        return http(401, www_authenticate='Negotiate, NTLM, Basic realm="a, b", Digest qop="auth"')

    async with acting(handler) as (client, server):
        log_in(home, server.host)
        assert await client.tags("a/b") == ("v1",)


@quirk("less-granted")
async def less_granted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(200, b'{"token": "for-nothing"}')
        return http(
            401,
            www_authenticate=f'Bearer realm="http://{server.host}/token",error="insufficient_scope"',
        )

    async with acting(handler) as (client, server):
        with pytest.raises(AccessDenied):  # not NotFound: many say this of what is not there
            await client.tags("a/b")
        assert len(server.requests) <= 5
