"""Referrers on real sockets: from the API, from the fallback tag, and with invalid entries.

oras reads the same server.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocifs.errors import OcifsError, RegistryFailed
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.distribution.endpoints import referrers_tag
from ocifs.settings import Limits, Settings
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Handler, Reply, Request, fault_server, http
from tests.support.tools import tool

ONCE = Settings(limits=Limits(retries=1))
EMPTY = {"mediaType": mediatype.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2}
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": EMPTY, "layers": [EMPTY]}
).encode()
SUBJECT = Digest.of(MANIFEST)
REFERRER = Digest.of(b"referrer")
GOOD = {
    "mediaType": mediatype.OCI_MANIFEST,
    "digest": str(REFERRER),
    "size": 8,
    "artifactType": "application/vnd.x",
}
BAD = {"mediaType": mediatype.OCI_MANIFEST, "digest": "sha256:short!", "size": -1}


def index(*manifests: object) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": manifests}
    ).encode()


def served(body: bytes, kind: str = mediatype.OCI_INDEX, **headers: str) -> Reply:
    return http(200, body, content_type=kind, docker_content_digest=str(Digest.of(body)), **headers)


def registry(api: Reply | Handler, tag: Reply | None) -> Handler:
    """A registry that answers the referrers API with `api`, and the fallback tag with `tag` (None:
    404).
    """

    def handler(request: Request) -> Reply:
        path = request.target.partition("?")[0]
        if path == "/v2/":
            return http(200)
        if "/referrers/" in path:
            return api(request) if callable(api) else api
        if path.endswith(f"/manifests/{referrers_tag(SUBJECT)}"):
            return tag or http(404)
        if path.endswith((str(SUBJECT), "/v1")):
            return served(MANIFEST, mediatype.OCI_MANIFEST)
        return http(200, b'{"tags": ["v1"]}') if path.endswith("/tags/list") else http(404)

    return handler


async def referrers(server: FaultServer) -> list[Digest]:
    async with open_registry(server.host, ONCE) as client:
        return [each.digest for each in await client.referrers("a/b", SUBJECT)]


NO_API: dict[str, Reply | Handler] = {
    "a page of HTML": http(200, b"<!doctype html><title>App</title>", content_type="text/html"),
    "an error with status 200": http(200, b'{"errors": [{"code": "UNSUPPORTED"}]}'),
    "JSON without manifests": http(200, b"{}"),
    "an empty body": http(200),
    "a redirect to a page": lambda request: http(303, location="/ui"),
    "a redirect without an address": http(303),
    "a redirect in a circle": lambda request: http(302, location=request.target),
    **{
        str(status): http(status)
        for status in (400, 403, 404, 405, 406, 410, 422, 424, 500, 501, 502)
    },
}


@pytest.mark.parametrize("name", NO_API)
async def test_whatever_the_api_answers_the_fallback_tag_is_asked_for(name: str) -> None:
    with fault_server(registry(NO_API[name], served(index(GOOD)))) as server:
        assert await referrers(server) == [REFERRER]


NO_LIST = {
    "absent": None,
    "the manifest of the subject": served(MANIFEST, mediatype.OCI_MANIFEST),
    "HTML": http(200, b"<html>", content_type="text/html"),
    "not JSON": http(200, b"\xff\xfe", content_type=mediatype.OCI_INDEX),
    "a list": served(b"[]"),
    "manifests that are text": served(b'{"manifests": "no"}'),
    "a Docker list": served(
        b'{"mediaType": "%s", "manifests": []}' % mediatype.DOCKER_LIST.encode()
    ),
    "entries that are not descriptors": served(index(BAD, 7, None, "x")),
}


@pytest.mark.parametrize("name", NO_LIST)
async def test_a_fallback_tag_that_is_not_an_index_lists_nothing(name: str) -> None:
    with fault_server(registry(http(404), NO_LIST[name])) as server:
        assert await referrers(server) == []


async def test_a_fallback_tag_that_is_the_subject_itself_lists_nothing() -> None:
    """Seen of GitLab: the tag of a digest leads to the digest, whose platforms are not its
    referrers.
    """
    platforms = index(GOOD)
    subject = Digest.of(platforms)

    def handler(request: Request) -> Reply:
        return http(404) if "/referrers/" in request.target else served(platforms)

    with fault_server(handler) as server:
        async with open_registry(server.host, ONCE) as client:
            assert await client.referrers("a/b", subject) == ()


@pytest.mark.parametrize("api", [True, False], ids=["api", "tag"])
async def test_an_entry_that_cannot_be_read_does_not_hide_the_others(api: bool) -> None:
    listed = served(index(BAD, GOOD, None))
    with fault_server(registry(listed, None) if api else registry(http(404), listed)) as server:
        assert await referrers(server) == [REFERRER]


async def test_a_failing_api_without_a_fallback_tag_is_an_error_and_not_an_empty_list() -> None:
    with fault_server(registry(http(500), None)) as server:
        with pytest.raises(RegistryFailed):
            await referrers(server)


async def test_a_later_page_that_fails_is_an_error_with_what_was_listed() -> None:
    def api(request: Request) -> Reply:
        if "page=2" in request.target:
            return http(404)
        return served(index(GOOD), link=f"<{request.target}?page=2>; rel=next")

    with fault_server(registry(api, None)) as server:
        async with open_registry(server.host, ONCE) as client:
            with pytest.raises(OcifsError) as caught:
                await client.referrers("a/b", SUBJECT)
    assert [each.digest for each in caught.value.listed] == [REFERRER]  # type: ignore[attr-defined]


async def test_a_registry_without_the_api_is_asked_for_it_once() -> None:
    with fault_server(registry(http(404), served(index(GOOD)))) as server:
        async with open_registry(server.host, ONCE) as client:
            for _ in range(3):
                await client.referrers("a/b", SUBJECT)
    assert sum("/referrers/" in request.target for request in server.requests) == 1


@pytest.mark.servers
async def test_oras_finds_the_same(tmp_path: Path) -> None:
    oras = tool("oras", tmp_path)
    worlds = {
        "404": registry(http(404), served(index(GOOD))),
        "a page": registry(NO_API["a page of HTML"], served(index(GOOD))),
        "one bad entry": registry(served(index({**BAD, "digest": "sha256:short"}, GOOD)), None),
    }
    for name, world in worlds.items():
        with fault_server(world) as server:
            found = oras(
                "discover",
                "--plain-http",
                "--format",
                "json",
                "--depth",
                "1",
                f"{server.host}/a/b@{SUBJECT}",
            )
            ours = await referrers(server)
        assert str(REFERRER) in found.decode(), name
        assert REFERRER in ours, name
