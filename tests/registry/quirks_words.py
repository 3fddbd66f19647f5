"""Rows about error bodies, and about transient failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocifs.errors import AccessDenied, OcifsError, RegistryFailed
from tests.registry.quirks import CONTENT, TAGS, acting, quirk, read
from tests.support.faults import Handler, Reply, Request, fault_server, http, in_turn


async def said_by(reply: Reply) -> OcifsError:
    """The error of a command whose question is answered so."""
    async with acting(lambda request: reply) as (client, _):
        with pytest.raises(OcifsError) as caught:
            await client.tags("a/b")
    return caught.value


@quirk("words-of-an-error")
async def words_of_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for body, kind, words in (
        (
            b'{"errors": [{"code": "DENIED", "message": null}]}',
            "application/json",
            "answered 403 (DENIED)",
        ),
        (b'{"errors": "expired"}', "application/json", "answered 403 (expired)"),
        (b'{"details": "rate limit"}', "application/json", "answered 403 (rate limit)"),
        (
            b"Your token has expired.\n",
            "text/plain; charset=utf-8",
            "answered 403 (Your token has expired.)",
        ),
        (b"<html>Sign in</html>", "text/html", "answered 403"),
    ):
        error = await said_by(http(403, body, content_type=kind))
        assert str(error).endswith(words)


@quirk("plain-http-to-a-tls-port")
async def plain_http_to_a_tls_port(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
    ):
        assert "TLS" in (await said_by(http(400, body))).hint
    assert (await said_by(http(400, b'{"errors": [{"code": "NAME_INVALID"}]}'))).hint == ""


@quirk("token-server-refuses")
async def token_server_refuses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_server(lambda request: http(403, b"not here", content_type="text/plain")) as tokens:
        challenge = f'Bearer realm="http://{tokens.host}/token",service="x"'
        async with acting(lambda request: http(401, www_authenticate=challenge)) as (client, _):
            with pytest.raises(
                AccessDenied, match=r"the token server 127\.0\.0\.1 answered 403 \(not here\)"
            ):
                await client.tags("a/b")


@quirk("failures-of-what-stands-before")
async def failures_of_what_stands_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (499, 520, 521, 522, 523, 524, 525, 529, 530):
        page = http(status, b"<html><h1>Bad</h1></html>", content_type="text/html")
        async with acting(in_turn(page, TAGS)) as (client, _):
            assert await client.tags("a/b") == ("v1",)
        async with acting(in_turn(page, http(200, CONTENT))) as (client, _):
            assert await read(client, 0, len(CONTENT)) == (0, CONTENT)
    tokens = in_turn(http(522), http(200, b'{"token": "t0ken"}'))

    def guarded(request: Request, tokens: Handler = tokens) -> Reply:
        if request.target.startswith("/token"):
            return tokens(request)
        known = request.headers.get("authorization") == "Bearer t0ken"
        return (
            TAGS
            if known
            else http(401, www_authenticate=f'Bearer realm="http://{server.host}/token"')
        )

    async with acting(guarded) as (client, server):
        assert await client.tags("a/b") == ("v1",)
    async with acting(in_turn(http(526), TAGS)) as (
        client,
        server,
    ):  # a certificate does not mend itself
        with pytest.raises(RegistryFailed):
            await client.tags("a/b")
        assert len(server.requests) == 1
