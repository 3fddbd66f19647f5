"""Requests to a token server: its address, its redirects, its answer (distribution
docs/content/spec/auth/token.md and oauth.md).

`auth.Authenticator` calls `fetch_token`, once for a scope at a time. No state.

- A realm is an address with a query of its own, perhaps an empty one. Parameters are added to that
  query; a fragment is dropped.
- Redirects are followed, each only where `guards` would let a realm be. A POST stays a POST (a 303
  excepted), since what redirects a token server adds TLS or a slash.
- The secret goes along only to the same host, and never from TLS to none. Elsewhere a GET goes on
  without it, for an anonymous token; a POST, whose body is the secret, ends with an error.
- An error names the token server, not the registry, and no secret.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode, urlsplit

import httpx

from ocifs.concurrency import in_thread, off_loop
from ocifs.errors import AccessDenied, Malformed, NotFound, RateLimited
from ocifs.oci.distribution.challenge import Token, read_token
from ocifs.oci.distribution.codings import codings, decoded
from ocifs.oci.distribution.responses import error_of
from ocifs.registry.auth.credential import Credential
from ocifs.registry.http.origins import (
    WebOrigin,
    check_realm,
    may_have_credentials,
    origin_in,
    redirect_target,
)
from ocifs.registry.http.transport import pieces, send

CLIENT_ID = "ocifs"
_TOKEN_BYTES = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Answers of token servers without OAuth2 (seen by other clients: GCR 404, Artifactory 401, ACR
# 400): they are asked by GET.
_NO_OAUTH2 = frozenset({400, 401, 404, 405})


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token to ask for.

    `registry`: whose challenge it is; `credential`: None for an anonymous token.
    """

    registry: WebOrigin
    realm: str
    service: str
    scopes: tuple[str, ...]
    credential: Credential | None
    redirects: int

    def __str__(self) -> str:
        return f"a token for {' '.join(self.scopes) or self.registry[1]}"


async def fetch_token(client: httpx.AsyncClient, request: TokenRequest) -> Token:
    """A token. Raises AccessDenied, RateLimited, RegistryFailed, Unreachable, Malformed."""
    credential = request.credential
    if credential is not None and credential.kind == "identity":
        form = {"service": request.service, "scope": " ".join(request.scopes), **_grant(credential)}
        given = {name: value for name, value in form.items() if value}
        answer = await _send(client, request, "POST", _address(request.realm, []), given)
        if answer.status_code not in _NO_OAUTH2:
            return await _read(answer, request)
        await answer.aclose()
    # A challenge may name several scopes, separated by spaces: each is a parameter of its own
    # (token.md).
    scopes = dict.fromkeys(scope for listed in request.scopes for scope in listed.split())
    query = [("service", request.service)] * bool(request.service) + [
        ("scope", scope) for scope in scopes
    ]
    return await _read(
        await _send(client, request, "GET", _address(request.realm, query), None), request
    )


def _grant(credential: Credential) -> dict[str, str]:
    """An identity token, as OAuth2 takes it (oauth.md)."""
    return {
        "grant_type": "refresh_token",
        "refresh_token": credential.secret,
        "client_id": CLIENT_ID,
    }


def _address(realm: str, query: list[tuple[str, str]]) -> str:
    """The realm with more parameters."""
    parts = urlsplit(realm)
    joined = "&".join(text for text in (parts.query.strip("&"), urlencode(query)) if text)
    return parts._replace(query=joined, fragment="").geturl()


async def _send(
    client: httpx.AsyncClient,
    request: TokenRequest,
    method: str,
    url: str,
    form: dict[str, str] | None,
) -> httpx.Response:
    """The answer at the end of the redirects, still open."""
    credential = request.credential
    headers = (
        {"Authorization": credential.basic()} if credential is not None and form is None else {}
    )
    for _ in range(request.redirects + 1):
        check_realm(request.registry, url)
        answer = await send(client, method, url, headers, form)
        location = answer.headers.get("location", "")
        if answer.status_code not in _REDIRECTS or not location:
            return answer
        await answer.aclose()
        target = redirect_target(request.registry, url, location)
        if not _may_follow_with_secret(request.registry, url, target):
            headers = {}
            if form is not None:
                raise AccessDenied(
                    f"{request}: {origin_in(url)[1]} redirects to {origin_in(target)[1]}, where the identity token is not sent"
                )
        if answer.status_code == 303:
            method, form = "GET", None
        url = target
    raise Malformed(
        f"{request}: the token server redirects more than {request.redirects} times (limits.redirects)"
    )


def _may_follow_with_secret(registry: WebOrigin, url: str, target: str) -> bool:
    here, there = origin_in(url), origin_in(target)
    if here == there:
        return True
    return here[1] == there[1] and there[0] == "https" and may_have_credentials(registry, target)


async def _read(answer: httpx.Response, request: TokenRequest) -> Token:
    server = f"the token server {answer.request.url.host}"
    try:
        read = bytearray()
        async with aclosing(pieces(answer)) as coming:
            async for piece in coming:
                read += piece
                if len(read) > _TOKEN_BYTES:
                    raise AccessDenied(
                        f"{request}: {server} answers with more than {_TOKEN_BYTES} bytes"
                    )
    finally:
        await answer.aclose()
    body = bytes(read)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if codings(headers):
        body = await in_thread(decoded, headers, body, _TOKEN_BYTES, server)
    if 200 <= answer.status_code < 300:
        return await off_loop(len(body), partial(read_token, body, f"{request}: {server}"))
    error = error_of(answer.status_code, headers, body, f"{request}: {server}", time.time())
    if isinstance(error, RateLimited):
        error.hint = "the token server limits how often it is asked"
    # A token server that does not know a scope refuses it: nothing is absent.
    raise AccessDenied(str(error)) if isinstance(error, NotFound) else error
