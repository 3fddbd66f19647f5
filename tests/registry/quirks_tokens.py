"""Rows about token servers and challenges."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from ocifs.errors import AccessDenied, Malformed
from ocifs.settings import NetworkSettings, Settings
from tests.registry.quirks import SECRET, TAGS, acting, log_in, quirk
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Handler, Reply, Request, fault_server, http
from tests.support.secrets import keep_secret

IDENTITY = {"auth": "bWU6", "identitytoken": SECRET}
GRANTED = http(200, b'{"token": "t0ken"}')
ALL_REDIRECTS = (301, 302, 303, 307, 308)


def guarded(
    server: Callable[[], FaultServer],
    tokens: Handler,
    realm: str = "http://{host}/token",
    more: str = "",
) -> Handler:
    """A registry with a token server on the same port, at every path that begins with /token."""

    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return tokens(request)
        if request.headers.get("authorization") == "Bearer t0ken":
            return TAGS
        challenge = f'Bearer realm="{realm.format(host=server().host)}",service="svc"{more}'
        return http(401, www_authenticate=challenge)

    return handler


def asked_of(server: FaultServer) -> list[Request]:
    return [request for request in server.requests if request.target.startswith("/token")]


@quirk("token-redirect")
async def token_redirect(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in ALL_REDIRECTS:

        def tokens(request: Request, status: int = status) -> Reply:
            if request.target.startswith("/token/real"):
                return (
                    GRANTED
                    if "authorization" in request.headers or "identity" in request.target
                    else http(401)
                )
            target = "identity" if request.method == "POST" else urlsplit(request.target).query
            return http(status, location=f"/token/real?{target}")

        async with acting(guarded(lambda: server, tokens)) as (client, server):
            log_in(home, server.host)
            assert await client.tags("a/b") == ("v1",)
            first, second = asked_of(server)
            assert second.headers["authorization"] == first.headers["authorization"]
        async with acting(guarded(lambda: server, tokens)) as (client, server):
            log_in(home, server.host, IDENTITY)
            assert await client.tags("a/b") == ("v1",)
            methods = [request.method for request in asked_of(server)]
            assert methods == ["POST", "GET" if status == 303 else "POST"]


@quirk("token-redirect-elsewhere")
async def token_redirect_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_server(lambda request: GRANTED) as other:
        elsewhere = other.host.replace("127.0.0.1", "localhost")

        def tokens(request: Request) -> Reply:
            return http(307, location=f"http://{elsewhere}/token")

        async with acting(guarded(lambda: server, tokens)) as (client, server):
            log_in(home, server.host)
            assert await client.tags("a/b") == ("v1",)
        async with acting(guarded(lambda: server, tokens)) as (client, server):
            log_in(home, server.host, IDENTITY)
            with pytest.raises(AccessDenied, match="the identity token is not sent"):
                await client.tags("a/b")
    assert [request.headers.get("authorization") for request in other.requests] == [None]


@quirk("token-redirect-in-circles")
async def token_redirect_in_circles(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with acting(guarded(lambda: server, lambda request: http(302, location="/token"))) as (
        client,
        server,
    ):
        with pytest.raises(Malformed, match=r"limits\.redirects"):
            await client.tags("a/b")
        assert len(asked_of(server)) == 6


@quirk("realm-with-a-query")
async def realm_with_a_query(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "service=svc&scope=repository%3Aa%2Fb%3Apull"
    for realm, query in {
        "http://{host}/token?": own,
        "http://{host}/token?tenant=1": f"tenant=1&{own}",
        "http://{host}/token?tenant=1&": f"tenant=1&{own}",
        "http://{host}/token?a=b%2Fc": f"a=b%2Fc&{own}",
        "http://{host}/token#part": own,
        "http://{host}/token?tenant=1#part?": f"tenant=1&{own}",
    }.items():
        async with acting(guarded(lambda: server, lambda request: GRANTED, realm)) as (
            client,
            server,
        ):
            assert await client.tags("a/b") == ("v1",)
            assert [urlsplit(request.target).query for request in asked_of(server)] == [query]


@quirk("realm-other-name-of-loopback")
async def realm_other_name_of_loopback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_server(lambda request: GRANTED) as tokens:
        realm = f"http://{tokens.host.replace('127.0.0.1', 'localhost')}/token"
        async with acting(guarded(lambda: server, lambda request: http(404), realm)) as (
            client,
            server,
        ):
            log_in(home, server.host)
            assert await client.tags("a/b") == ("v1",)
    assert "authorization" not in tokens.requests[0].headers


@quirk("several-scopes")
async def several_scopes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, more = (
        ["repository:a/b:pull", "repository:base:pull"],
        ',scope="repository:base:pull repository:a/b:pull"',
    )
    async with acting(guarded(lambda: server, lambda request: GRANTED, more=more)) as (
        client,
        server,
    ):
        assert await client.tags("a/b") == ("v1",)
        query = parse_qs(urlsplit(asked_of(server)[0].target).query)
        assert sorted(query["scope"]) == named  # each once, a parameter of its own


@quirk("token-answers")
async def token_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (
        b'{"token": "t0ken"}',
        b'{"access_token": "t0ken", "token_type": "Bearer"}',
        b'{"token": "", "access_token": "t0ken"}',
        b'{"token": null, "access_token": "t0ken", "expires_in": null}',
        b'{"token": "t0ken", "expires_in": "300", "issued_at": "yesterday"}',
        b'{"token": "t0ken", "expires_in": 0}',
    ):
        for status in (200, 201):
            async with acting(guarded(lambda: server, lambda r, s=status, b=body: http(s, b))) as (
                client,
                server,
            ):
                assert await client.tags("a/b") == ("v1",)
    for body in (b"<html>sign in</html>", b"{}", b"[]", b'{"token": ["t0ken"]}', b""):
        async with acting(guarded(lambda: server, lambda r, b=body: http(200, b))) as (
            client,
            server,
        ):
            with pytest.raises(Malformed, match=r"the token server 127\.0\.0\.1"):
                await client.tags("a/b")


@quirk("moved-to-another-registry")
async def moved_to_another_registry(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As lscr.io and Scarf do: the first leads to a second one, which wants a token of its own
    token server.
    """

    def own_tokens(request: Request) -> Reply:
        return GRANTED if "scope=repository%3Ac%2Fd%3Apull" in request.target else http(400)

    with fault_server(guarded(lambda: second, own_tokens)) as second:
        there = f"http://{second.host.replace('127.0.0.1', 'localhost')}"
        async with acting(
            lambda request: http(301, location=there + request.target.replace("a/b", "c/d"))
        ) as (
            client,
            first,
        ):
            log_in(home, first.host)
            for _ in range(2):
                assert await client.tags("a/b") == ("v1",)
    assert all("authorization" not in request.headers for request in first.requests)
    assert [request.headers.get("authorization") for request in second.requests] == [
        None,
        None,
        "Bearer t0ken",
        "Bearer t0ken",  # the token is remembered
    ]


@quirk("moved-to-another-registry-with-a-login")
async def moved_to_another_registry_with_a_login(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each registry gets the credentials of its own host, the second with TLS alone."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    wanted = "Basic " + base64.b64encode(f"second:{SECRET}".encode()).decode()
    keep_secret(f"second:{SECRET}")

    def own_tokens(request: Request) -> Reply:
        return GRANTED if request.headers.get("authorization") == wanted else http(401)

    for basic in (False, True):

        def answer(request: Request, basic: bool = basic) -> Reply:
            if basic:
                known = request.headers.get("authorization") == wanted
                return TAGS if known else http(401, www_authenticate='Basic realm="x"')
            return guarded(lambda: second, own_tokens, "https://{host}/token")(request)

        def moved(request: Request) -> Reply:
            known = request.headers.get("authorization", "").startswith("Basic ")
            location = f"https://localhost:{second.host.partition(':')[2]}{request.target}"
            return (
                http(302, location=location)
                if known
                else http(401, www_authenticate='Basic realm="x"')
            )

        with fault_server(answer, context) as second, fault_server(moved) as first:
            name = second.host.replace("127.0.0.1", "localhost")
            entries = {first.host: packed("first"), name: packed("second")}
            (home / "config.json").write_text(json.dumps({"auths": entries}))
            async with open_registry(
                first.host, Settings(network=NetworkSettings(ca_file=home / "ca.pem"))
            ) as client:
                assert await client.tags("a/b") == ("v1",)
        sent = {request.headers.get("authorization") for request in second.requests}
        assert sent == ({None, wanted} if basic else {None, wanted, "Bearer t0ken"})
        assert wanted not in {request.headers.get("authorization") for request in first.requests}


def packed(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{SECRET}".encode()).decode()}


@quirk("moved-to-a-registry-that-refuses")
async def moved_to_a_registry_that_refuses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return GRANTED
        if request.headers.get("authorization") == "Bearer t0ken":
            return http(403, b'{"errors": [{"code": "DENIED"}]}')
        return http(401, www_authenticate=f'Bearer realm="http://{second.host}/token"')

    with fault_server(denied) as second:
        async with acting(
            lambda request: http(302, location=f"http://{second.host}{request.target}")
        ) as (client, _):
            with pytest.raises(AccessDenied, match="DENIED"):
                await client.tags("a/b")
