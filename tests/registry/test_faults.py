"""Faulty registries, on real sockets."""

from __future__ import annotations

import base64
import inspect
import json
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate

import httpcore
import httpx
import pytest
import trio

from ocifs import errors
from ocifs.content import Blob
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.registry.client import RegistryClient
from ocifs.registry.http.errors import translated_errors
from ocifs.settings import NetworkSettings, Settings
from tests.support.clients import open_registry
from tests.support.faults import Handler, Reply, Request, fault_server, http, in_turn
from tests.support.secrets import keep_secret

CONTENT = bytes(range(256)) * 40
BLOB = Blob("a/b", Digest.of(CONTENT), len(CONTENT))
MANIFEST = json.dumps({"schemaVersion": 2, "layers": []}).encode()


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))


def impatient() -> Settings:
    settings = Settings()
    return replace(settings, timing=replace(settings.timing, stall_timeout=0.3, connect_timeout=2))


@asynccontextmanager
async def asking(host: str, settings: Settings | None = None) -> AsyncIterator[RegistryClient]:
    async with open_registry(host, settings or impatient()) as client:
        with trio.fail_after(30):
            yield client


async def read(
    client: RegistryClient, start: int = 0, stop: int = BLOB.size
) -> tuple[int, int | None, bytes]:
    async with client.open_blob(BLOB, start, stop) as stream:
        return stream.start, stream.total, b"".join([piece async for piece in stream])


def ranged(request: Request) -> tuple[int, int]:
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    return int(first), int(last) + 1


def part(start: int, stop: int, **more: str) -> Reply:
    return http(
        206, CONTENT[start:stop], content_range=f"bytes {start}-{stop - 1}/{len(CONTENT)}", **more
    )


async def test_a_part_is_given_as_it_was_asked_for() -> None:
    with fault_server(lambda request: part(*ranged(request))) as server:
        async with asking(server.host) as client:
            assert await read(client, 10, 20) == (10, len(CONTENT), CONTENT[10:20])
    assert server.requests[0].headers["range"] == "bytes=10-19"
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_a_whole_instead_of_a_part_says_so() -> None:
    with fault_server(lambda request: http(200, CONTENT)) as server:
        async with asking(server.host) as client:
            assert await read(client, 10, 20) == (0, len(CONTENT), CONTENT)


async def test_a_part_longer_than_it_says_is_cut() -> None:
    reply = http(206, CONTENT[10:40], content_range=f"bytes 10-19/{len(CONTENT)}")
    with fault_server(in_turn(reply)) as server:
        async with asking(server.host) as client:
            assert (await read(client, 10, 20))[2] == CONTENT[10:20]


async def test_a_refused_range_is_asked_for_as_a_whole() -> None:
    with fault_server(
        lambda request: http(416) if "range" in request.headers else http(200, CONTENT)
    ) as server:
        async with asking(server.host) as client:
            assert await read(client, 10, 20) == (0, len(CONTENT), CONTENT)


@pytest.mark.parametrize(
    "reply",
    [
        http(206, CONTENT[:10], content_range="bytes 0-9/10240"),
        http(206, CONTENT[10:20]),
        http(206, CONTENT[10:20], content_range="bytes 10-5/10240"),
        http(200, b"\x1f\x8b rubbish", content_encoding="gzip"),
        Reply(b"HTTP/1.1 302 Found\r\nlocation: ftp://x/y\r\ncontent-length: 0\r\n\r\n"),
        Reply(b"HTTP/1.1 302 Found\r\nlocation: http://[half\r\ncontent-length: 0\r\n\r\n"),
        Reply(
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:99999/\r\ncontent-length: 0\r\n\r\n"
        ),
    ],
    ids=["elsewhere", "no range", "backwards", "no gzip", "ftp", "no address", "no port"],
)
async def test_an_answer_that_is_none_is_malformed(reply: Reply) -> None:
    with fault_server(in_turn(reply)) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.Malformed):
                await read(client, 10, 20)


@pytest.mark.parametrize("status", [204, 300, 304])
async def test_an_answer_that_nothing_provides_for_is_the_registrys_failure(status: int) -> None:
    with fault_server(in_turn(http(status))) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.RegistryFailed):
                await read(client, 10, 20)


LOST = {
    "early close": http(200, CONTENT[:99], content_length=str(len(CONTENT))),
    "reset": http(200, CONTENT[:99], then="reset", content_length=str(len(CONTENT))),
    "stall": http(200, CONTENT[:99], then="stall", content_length=str(len(CONTENT))),
    "stall at once": Reply(b"", "stall"),
    "nothing": Reply(b""),
    "no HTTP": Reply(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "half a head": Reply(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "chunks that break off": http(
        200, b"5\r\nabcde\r\n", content_length="", transfer_encoding="chunked"
    ),
}


@pytest.mark.parametrize("reply", LOST.values(), ids=LOST.keys())
async def test_a_lost_connection_is_unreachable_never_an_end(reply: Reply) -> None:
    with fault_server(in_turn(reply)) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.Unreachable):
                await read(client)


async def test_a_port_where_nobody_listens_refuses() -> None:
    with fault_server(in_turn(http(200))) as server:
        host = server.host
    async with asking(host) as client:
        with pytest.raises(errors.ConnectionRefused):
            await client.tags("a/b")


STATUSES = {
    404: errors.NotFound,
    401: errors.AccessDenied,
    403: errors.AccessDenied,
    400: errors.RegistryFailed,
    500: errors.RegistryFailed,
    503: errors.RegistryFailed,
    429: errors.RateLimited,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
@pytest.mark.parametrize(
    "body",
    [b"", b"<html><body>Bad gateway</body></html>", b"\xff" * 500_000],
    ids=["", "html", "much"],
)
async def test_each_status_is_its_error_whatever_the_body(
    status: int, kind: type[errors.OcifsError], body: bytes
) -> None:
    settings = impatient()
    settings = replace(settings, limits=replace(settings.limits, retries=1))
    with fault_server(in_turn(http(status, body, content_type="text/html"))) as server:
        async with asking(server.host, settings) as client:
            for question in (
                client.tags("a/b"),
                client.resolve("a/b", "v1"),
                client.manifest("a/b", BLOB.digest),
            ):
                with pytest.raises(kind) as caught:
                    await question
                assert type(caught.value) is kind


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_catalog_that_is_not_there_is_unavailable(status: int) -> None:
    with fault_server(in_turn(http(status))) as server:
        settings = impatient()
        async with asking(
            server.host, replace(settings, limits=replace(settings.limits, retries=1))
        ) as client:
            with pytest.raises(errors.CatalogUnavailable):
                await client.repositories()


async def test_a_storm_of_failures_passes(autojump_clock) -> None:
    """Pauses cost no time here: the clock jumps while nothing else is under way."""
    autojump_clock.autojump_threshold = 0.2
    answer = http(200, b'{"tags": ["v1"]}')
    storm = [http(503), http(502, b"<html>"), Reply(b""), answer]
    settings = Settings()
    with fault_server(in_turn(*storm)) as server:
        async with open_registry(server.host, settings) as client:
            assert await client.tags("a/b") == ("v1",)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "when", [lambda: "0", lambda: formatdate(0, usegmt=True)], ids=["seconds", "date"]
)
async def test_a_registry_that_asks_for_patience_gets_it(when) -> None:
    with fault_server(
        in_turn(http(429, retry_after=when()), http(200, b'{"tags": ["v1"]}'))
    ) as server:
        async with asking(server.host) as client:
            assert await client.tags("a/b") == ("v1",)


async def test_more_patience_than_we_have_is_rate_limited_at_once() -> None:
    with fault_server(in_turn(http(429, retry_after="3600"))) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.RateLimited) as caught:
                await client.tags("a/b")
    assert caught.value.retry_after == 3600
    assert len(server.requests) == 1


def needs(header: str) -> Handler:
    """Requires Basic credentials, and then redirects to `header`."""

    def handler(request: Request) -> Reply:
        if "authorization" not in request.headers:
            return http(401, www_authenticate='Basic realm="x"')
        return http(307, location=header)

    return handler


async def test_credentials_do_not_go_along_to_another_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "password").write_text(keep_secret("geheimes-wort", "me:geheimes-wort"))
    monkeypatch.setenv("OCIFS_USERNAME", "me")
    monkeypatch.setenv("OCIFS_PASSWORD_FILE", str(tmp_path / "password"))
    with fault_server(in_turn(http(200, CONTENT))) as storage:
        with fault_server(needs(f"http://{storage.host}/signed?x=y")) as server:
            named = replace(impatient(), network=NetworkSettings(named_host=server.host))
            async with asking(server.host, named) as client:
                assert (await read(client))[2] == CONTENT
    assert server.requests[-1].headers["authorization"].startswith("Basic ")
    assert storage.requests[0].target == "/signed?x=y"
    assert "authorization" not in storage.requests[0].headers


async def test_a_storage_address_is_asked_again_and_renewed_when_it_has_expired() -> None:
    """One question to the registry for many parts, and one more when the address that it signed
    holds no longer.
    """
    valid = ["one"]

    def storage(request: Request) -> Reply:
        return (
            http(200, CONTENT)
            if request.target == f"/signed?key={valid[0]}"
            else http(403, b"<Code>Expired</Code>")
        )

    with fault_server(storage) as far:
        with fault_server(
            lambda request: http(307, location=f"http://{far.host}/signed?key={valid[0]}")
        ) as server:
            async with asking(server.host) as client:
                for key in ("one", "one", "two", "two"):
                    valid[0] = key
                    assert (await read(client))[2] == CONTENT
    assert len(server.requests) == 2
    assert [request.target[-3:] for request in far.requests] == ["one", "one", "one", "two", "two"]


async def test_redirects_in_circles_end() -> None:
    with fault_server(lambda request: http(302, location=request.target)) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.OcifsError, match="redirect"):
                await client.tags("a/b")
    assert len(server.requests) <= Settings().limits.redirects + 1


async def test_a_body_over_its_bound_is_refused() -> None:
    settings = impatient()
    settings = replace(
        settings, limits=replace(settings.limits, answer_bytes=1000, manifest_bytes=1000)
    )
    with fault_server(in_turn(http(200, b" " * 2000))) as server:
        async with asking(server.host, settings) as client:
            with pytest.raises(errors.LimitExceeded):
                await client.tags("a/b")
            with pytest.raises(errors.LimitExceeded):
                await client.manifest("a/b", BLOB.digest)


@pytest.mark.parametrize(
    "head",
    [
        b"x: " + b"y" * 300_000 + b"\r\n",
        b"".join(b"x%d: y\r\n" % number for number in range(50_000)),
        b"x: y\r\n" * 300,
        b"x: y\r\n" + b" z\r\n" * 300,
    ],
    ids=["long", "many", "few too many", "folded"],
)
async def test_headers_without_end_are_unreachable_and_cost_no_memory(head: bytes) -> None:
    with fault_server(
        in_turn(Reply(b"HTTP/1.1 200 OK\r\n" + head + b"content-length: 0\r\n\r\n"))
    ) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.Unreachable):
                await client.tags("a/b")


async def test_interim_answers_without_end_are_unreachable() -> None:
    with fault_server(
        in_turn(Reply(b"HTTP/1.1 100 Continue\r\n\r\n" * 200 + http(200, b'{"tags": []}').data))
    ) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.Unreachable):
                await client.tags("a/b")


@pytest.mark.parametrize("status", [200, 403])
async def test_chunks_of_one_byte_leave_others_their_turns(status: int) -> None:
    """What has arrived is read without waiting: other tasks have their turns only if they are
    given.
    """
    body = b'{"tags": ["v1"]}' + b" " * 60_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"HTTP/1.1 %d Said\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" % status
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with fault_server(in_turn(Reply(head + chunks))) as server:
        async with asking(server.host) as client, trio.open_nursery() as nursery:
            nursery.start_soon(count)
            if status == 200:
                assert await client.tags("a/b") == ("v1",)
            else:
                with pytest.raises(errors.AccessDenied):
                    await client.tags("a/b")
            nursery.cancel_scope.cancel()
    assert turns > 25


MANY_VALUES = {
    "lists": b'{"tags": [' + b"[]," * 2_000_000 + b"[]]}",
    "objects": b'{"tags": [' + b"{}," * 2_000_000 + b"{}]}",
    "strings": b'{"tags": [' + b'"",' * 2_000_000 + b'""]}',
    "numbers": b'{"tags": [' + b"1," * 2_000_000 + b"1]}",
    "in a member that means nothing": b'{"tags": ["v1"], "x": [' + b"[]," * 2_000_000 + b"[]]}",
}


@pytest.mark.parametrize("body", MANY_VALUES.values(), ids=MANY_VALUES)
async def test_json_of_many_values_is_malformed_before_it_takes_memory(body: bytes) -> None:
    with fault_server(in_turn(http(200, body, content_type=mediatype.OCI_INDEX))) as server:
        async with asking(server.host) as client:
            tracemalloc.start()
            try:
                with pytest.raises(errors.Malformed, match="more than"):
                    await client.tags("a/b")
                assert tracemalloc.get_traced_memory()[1] < 5 * len(body)
            finally:
                tracemalloc.stop()


DEEP = [b"[" * 1_000_000, b'{"tags":' * 500_000, b'{"tags": ["a"], "x":' + b"[" * 1_000_000]


@pytest.mark.parametrize("body", DEEP, ids=["lists", "objects", "beside"])
async def test_json_of_any_depth_is_malformed(body: bytes) -> None:
    with fault_server(in_turn(http(200, body, content_type=mediatype.OCI_INDEX))) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.Malformed):
                await client.tags("a/b")
            with pytest.raises(errors.CatalogUnavailable):
                await client.repositories()
            assert await client.referrers("a/b", BLOB.digest) == ()
    with fault_server(in_turn(http(403, body))) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.AccessDenied):
                await client.tags("a/b")


async def test_pages_without_end_are_refused() -> None:
    page = http(200, b'{"tags": ["v1"]}', link='</v2/a/b/tags/list?n=1000>; rel="next"')
    with fault_server(in_turn(page)) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.OcifsError):
                await client.tags("a/b")
    assert len(server.requests) < 5


async def test_a_manifest_of_another_digest_is_refused() -> None:
    with fault_server(in_turn(http(200, MANIFEST))) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.IntegrityError):
                await client.manifest("a/b", BLOB.digest)


async def test_a_tag_is_resolved_where_head_is_refused_and_its_manifest_asked_for_once() -> None:
    with fault_server(
        lambda request: http(405) if request.method == "HEAD" else http(200, MANIFEST)
    ) as server:
        async with asking(server.host) as client:
            found = await client.resolve("a/b", "v1")
            assert (found.digest, found.size) == (Digest.of(MANIFEST), len(MANIFEST))
            assert (await client.manifest("a/b", found.digest)).body == MANIFEST
    assert [request.method for request in server.requests] == ["HEAD", "GET"]


OTHER = json.dumps({"schemaVersion": 2, "layers": [], "annotations": {}}).encode()


async def test_a_tags_manifest_that_is_not_what_its_digest_header_names_is_asked_for_by_that() -> (
    None
):
    def handler(request: Request) -> Reply:
        right = str(Digest.of(MANIFEST)) in request.target
        return http(
            200, MANIFEST if right else OTHER, docker_content_digest=str(Digest.of(MANIFEST))
        )

    with fault_server(handler) as server:
        async with asking(server.host) as client:
            assert (await client.tagged("a/b", "v1")).body == MANIFEST
    assert len(server.requests) == 2


async def test_a_tags_manifest_that_is_never_what_its_digest_header_names_is_refused() -> None:
    with fault_server(
        in_turn(http(200, OTHER, docker_content_digest=str(Digest.of(MANIFEST))))
    ) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.IntegrityError):
                await client.tagged("a/b", "v1")


@pytest.mark.parametrize(
    "digest", ["", "rubbish", "sha256:short", "md5:" + "0" * 32, Digest.of(MANIFEST, "sha512")]
)
async def test_a_tags_manifest_without_a_digest_header_has_its_own_and_else_the_registrys(
    digest,
) -> None:
    with fault_server(in_turn(http(200, MANIFEST, docker_content_digest=str(digest)))) as server:
        async with asking(server.host) as client:
            found = await client.tagged("a/b", "v1")
    assert found.body == MANIFEST
    assert found.digest == (digest if isinstance(digest, Digest) else Digest.of(MANIFEST))


@pytest.mark.parametrize(
    "realm",
    [
        "http://198.51.100.1/token",
        "http://[half",
        "https://host:99999/",
        "ftp://x/y",
        "relative",
        "http://169.254.169.254/",
    ],
)
async def test_a_realm_that_may_not_be_asked_is_refused_with_an_error_of_ours(realm: str) -> None:
    with fault_server(in_turn(http(401, www_authenticate=f'Bearer realm="{realm}"'))) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.OcifsError):
                await client.tags("a/b")


async def test_a_token_is_asked_for_once_and_sent() -> None:
    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(200, b'{"token": "abc", "expires_in": 300}')
        if request.headers.get("authorization") == "Bearer abc":
            return http(200, b'{"tags": ["v1"]}')
        return http(401, www_authenticate=f'Bearer realm="http://{server.host}/token",service="s"')

    with fault_server(handler) as server:
        async with asking(server.host) as client:
            assert await client.tags("a/b") == ("v1",)
            assert await client.tags("a/b") == ("v1",)
    asked = [request.target for request in server.requests if request.target.startswith("/token")]
    assert asked == ["/token?service=s&scope=repository%3Aa%2Fb%3Apull"]


@pytest.mark.parametrize("status", [400, 401, 404, 405])
async def test_a_token_server_without_oauth2_is_asked_as_before_it(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            known = (
                request.headers.get("authorization")
                == "Basic " + base64.b64encode(b"<token>:1dentity").decode()
            )
            return (
                http(200, b'{"token": "abc"}')
                if request.method == "GET" and known
                else http(status)
            )
        if request.headers.get("authorization") == "Bearer abc":
            return http(200, b'{"tags": ["v1"]}')
        return http(401, www_authenticate=f'Bearer realm="http://{server.host}/token"')

    keep_secret("1dentity", "<token>:1dentity")
    with fault_server(handler) as server:
        entry = {"auth": base64.b64encode(b"me:").decode(), "identitytoken": "1dentity"}
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {server.host: entry}}))
        settings = replace(impatient(), network=NetworkSettings(authfile=tmp_path / "auth.json"))
        async with asking(server.host, settings) as client:
            assert await client.tags("a/b") == ("v1",)
    asked = [request.method for request in server.requests if request.target.startswith("/token")]
    assert asked == ["POST", "GET"]


async def test_pages_of_referrers_are_followed_and_kept_whole() -> None:
    def page(request: Request) -> Reply:
        number = 2 if "last=1" in request.target else 1
        one = {"mediaType": mediatype.OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": 2}
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [one]}
        more = {"link": f'<{request.target}?last=1>; rel="next"'} if number == 1 else {}
        return http(200, json.dumps(index).encode(), content_type=mediatype.OCI_INDEX, **more)

    with fault_server(page) as server:
        async with asking(server.host) as client:
            found = await client.referrers("a/b", BLOB.digest)
    assert [each.digest.encoded[-1] for each in found] == ["1", "2"]
    assert len(server.requests) == 2


async def test_a_token_that_is_refused_again_is_access_denied() -> None:
    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(200, b'{"token": "abc"}')
        return http(401, www_authenticate=f'Bearer realm="http://{server.host}/token"')

    with fault_server(handler) as server:
        async with asking(server.host) as client:
            with pytest.raises(errors.AccessDenied):
                await client.tags("a/b")
    assert len(server.requests) < 8


def raised_by(module: object) -> list[type[Exception]]:
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
    ]
    return [kind for kind in found if kind is not httpx.CookieConflict]  # cookies are not read


@pytest.mark.parametrize(
    "kind", [*raised_by(httpx), *raised_by(httpcore), OSError, ssl.SSLError, TimeoutError]
)
def test_every_exception_of_the_libraries_is_one_of_ours(kind: type[Exception]) -> None:
    request = httpx.Request("GET", "http://host/")
    try:
        error = kind("text")
    except TypeError:
        try:
            error = kind("text", request=request, response=httpx.Response(200))  # type: ignore[call-arg]
        except TypeError:
            error = kind()
    with pytest.raises(errors.OcifsError) as caught:
        with translated_errors("host"):
            raise error
    # An error about the connection has a hint.
    assert caught.value.hint or not isinstance(caught.value, errors.Unreachable)
