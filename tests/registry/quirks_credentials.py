"""Rows about expired credentials, unusual challenges and helpers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import trio

from ocifs.errors import AccessDenied, RegistryFailed
from tests.registry.quirks import TAGS, acting, log_in, quirk
from tests.registry.quirks_tokens import GRANTED, asked_of, guarded
from tests.support.faults import Handler, Reply, Request, http
from tests.support.secrets import keep_secret


def jump(seconds: float) -> None:
    """Let time pass: test_quirk runs rows under a clock that does."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


def grants_in_turn(*tokens: str) -> Handler:
    """A token server that gives one token after another, each for twelve hours."""
    left = list(tokens)

    def give(request: Request) -> Reply:
        token = left.pop(0) if len(left) > 1 else left[0]
        return http(200, json.dumps({"token": token, "expires_in": 43200}).encode())

    return give


@quirk("expired-token-without-a-challenge")
async def expired_token_without_a_challenge(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ECR Public answers 400 to an expired token, others 401 without a challenge.

    From reports about other clients.
    """
    for status in (400, 401, 403):
        known, tokens = ["first"], grants_in_turn("first", "second")

        def answer(
            request: Request,
            status: int = status,
            known: list[str] = known,
            tokens: Handler = tokens,
        ) -> Reply:
            sent = request.headers.get("authorization")
            if request.target.startswith("/token"):
                return tokens(request)
            if sent is None:
                return http(401, www_authenticate=f'Bearer realm="http://{server.host}/token"')
            return (
                TAGS
                if sent == f"Bearer {known[0]}"
                else http(status, b'{"errors": [{"code": "DENIED"}]}')
            )

        async with acting(answer) as (client, server):
            assert await client.tags("a/b") == ("v1",)
            known[0] = "second"
            jump(31)
            assert await client.tags("a/b") == ("v1",)
            known[0] = "third"
            jump(31)
            for _ in range(3):
                with pytest.raises(AccessDenied if status != 400 else RegistryFailed):
                    await client.tags("a/b")
            if status != 401:
                assert (
                    len(asked_of(server)) == 3
                )  # a refusal that stays does not ask for a token each time


@quirk("expired-password-without-a-challenge")
async def expired_password_without_a_challenge(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ECR answers 403 once the password of its helper has expired."""
    passwords = [
        keep_secret(f"of-the-{word}-day", f"AWS:of-the-{word}-day") for word in ("first", "second")
    ]
    known = [passwords[0]]

    def answer(request: Request) -> Reply:
        sent = request.headers.get("authorization")
        if sent is None:
            return http(401, www_authenticate='Basic realm="ecr"')
        right = "Basic " + base64.b64encode(f"AWS:{known[0]}".encode()).decode()
        return (
            TAGS
            if sent == right
            else http(403, b"Your authorization token has expired.", content_type="text/plain")
        )

    program = home / "bin/docker-credential-ecr-login"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    async with acting(answer) as (client, server):
        (home / "config.json").write_text(json.dumps({"credHelpers": {server.host: "ecr-login"}}))
        for password in passwords:
            known[0] = password
            program.write_text(
                f'#!/bin/sh\necho \'{{"Username": "AWS", "Secret": "{password}"}}\'\n'
            )
            program.chmod(0o755)
            assert await client.tags("a/b") == ("v1",)
            jump(31)
        known[0] = "other"
        with pytest.raises(AccessDenied, match="Your authorization token has expired"):
            await client.tags("a/b")


@quirk("odd-challenges")
async def odd_challenges(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for challenge in (
        'Bearer realm="http://{host}/token"',  # nvcr.io names no service, Google no scope
        'BEARER REALM="http://{host}/token",SERVICE="svc"',
        "Bearer realm=http://{host}/token,service=svc",
        'Basic realm=/, Bearer realm="http://{host}/token"',
        'Bearer realm="http://{host}/token",service="svc",scope="*"',  # Gitea
        'Bearer realm="http://{host}/token",service="",scope=""',
        '127.0.0.1, Bearer realm="http://{host}/token"',
        'Bearer error="invalid_token" , realm="http://{host}/token"',
    ):

        def answer(request: Request, challenge: str = challenge) -> Reply:
            if request.target.startswith("/token"):
                return GRANTED
            if request.headers.get("authorization") == "Bearer t0ken":
                return TAGS
            return http(401, www_authenticate=challenge.format(host=server.host))

        async with acting(answer) as (client, server):
            assert await client.tags("a/b") == ("v1",), challenge
    for challenge in ("BASIC realm=x", "Basic", "basic realm=/", 'Basic realm="a, Bearer realm=b"'):

        def wants_basic(request: Request, challenge: str = challenge) -> Reply:
            known = request.headers.get("authorization", "").startswith("Basic ")
            return TAGS if known else http(401, www_authenticate=challenge)

        async with acting(wants_basic) as (client, server):
            log_in(home, server.host)
            assert await client.tags("a/b") == ("v1",), challenge


@quirk("basic-after-bearer")
async def basic_after_bearer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Harbor offers Basic to a Bearer token that does not suffice."""

    def answer(request: Request) -> Reply:
        sent = request.headers.get("authorization", "")
        if request.target.startswith("/token"):
            return GRANTED
        if sent.startswith("Basic "):
            return TAGS
        scheme = 'Basic realm="harbor"' if sent else f'Bearer realm="http://{server.host}/token"'
        return http(401, www_authenticate=scheme)

    async with acting(answer) as (client, server):
        log_in(home, server.host)
        assert await client.tags("a/b") == ("v1",)


@quirk("helper-that-fails-for-a-public-repository")
async def helper_that_fails_for_a_public_repository(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = home / "bin/docker-credential-desktop"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho the keyring is locked\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    async with acting(guarded(lambda: server, lambda request: GRANTED)) as (client, server):
        (home / "config.json").write_text(
            json.dumps({"credsStore": "desktop", "auths": {server.host: {}}})
        )
        assert await client.tags("a/b") == ("v1",)
        assert "authorization" not in asked_of(server)[0].headers
