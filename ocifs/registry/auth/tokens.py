"""Requests to a token server (distribution docs/content/spec/auth/token.md and oauth.md).

`Authenticator` calls `fetch_token`, for each scope once at a time. No state.

- A realm is a URL that may have a query. Parameters are added to it; a fragment is dropped.
- A redirect is followed if `origins` would allow its target as a realm. A POST stays a POST, except
  after a 303: the usual redirects add TLS or a slash.
- The secret is sent only to the same host, and never from TLS to plain HTTP. To another host a GET
  continues without it, for an anonymous token. A POST has the secret as its body, and fails.
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
from ocifs.registry.http.transport import iter_body, send

CLIENT_ID = "ocifs"
_TOKEN_BYTES = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# The statuses of token servers without OAuth2, which then get a GET (seen by other clients: GCR
# 404, Artifactory 401, ACR 400).
_NO_OAUTH2 = frozenset({400, 401, 404, 405})


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The parameters of a token request.

    `registry`: the origin of the challenge; `credential`: None for an anonymous token.
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
    """Fetch a token. Raises AccessDenied, RateLimited, RegistryFailed, Unreachable, Malformed."""
    credential = request.credential
    if credential is not None and credential.kind == "identity":
        form = {"service": request.service, "scope": " ".join(request.scopes), **_grant(credential)}
        form = {name: value for name, value in form.items() if value}
        response = await _send(client, request, "POST", _address(request.realm, []), form)
        if response.status_code not in _NO_OAUTH2:
            return await _read(response, request)
        await response.aclose()
    # A challenge may name several scopes, separated by spaces. Each becomes a parameter (token.md).
    scopes = dict.fromkeys(scope for names in request.scopes for scope in names.split())
    query = [("service", request.service)] * bool(request.service) + [
        ("scope", scope) for scope in scopes
    ]
    return await _read(
        await _send(client, request, "GET", _address(request.realm, query), None), request
    )


def _grant(credential: Credential) -> dict[str, str]:
    """The OAuth2 grant of an identity token (oauth.md)."""
    return {
        "grant_type": "refresh_token",
        "refresh_token": credential.secret,
        "client_id": CLIENT_ID,
    }


def _address(realm: str, query: list[tuple[str, str]]) -> str:
    """The realm with additional parameters."""
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
    """The open response after all redirects."""
    credential = request.credential
    headers = (
        {"Authorization": credential.basic()} if credential is not None and form is None else {}
    )
    for _ in range(request.redirects + 1):
        check_realm(request.registry, url)
        response = await send(client, method, url, headers, form)
        location = response.headers.get("location", "")
        if response.status_code not in _REDIRECTS or not location:
            return response
        await response.aclose()
        target = redirect_target(request.registry, url, location)
        if not _may_follow_with_secret(request.registry, url, target):
            headers = {}
            if form is not None:
                raise AccessDenied(
                    f"{request}: {origin_in(url)[1]} redirects to {origin_in(target)[1]}, "
                    "and the identity token is not sent to another host"
                )
        if response.status_code == 303:
            method, form = "GET", None
        url = target
    raise Malformed(
        f"{request}: the token server redirects more than {request.redirects} times "
        "(limits.redirects)"
    )


def _may_follow_with_secret(registry: WebOrigin, url: str, target: str) -> bool:
    old, new = origin_in(url), origin_in(target)
    if old == new:
        return True
    return old[1] == new[1] and new[0] == "https" and may_have_credentials(registry, target)


async def _read(response: httpx.Response, request: TokenRequest) -> Token:
    server = f"the token server {response.request.url.host}"
    try:
        received = bytearray()
        async with aclosing(iter_body(response)) as pieces:
            async for piece in pieces:
                received += piece
                if len(received) > _TOKEN_BYTES:
                    raise AccessDenied(f"{request}: {server} sent more than {_TOKEN_BYTES} bytes")
    finally:
        await response.aclose()
    body = bytes(received)
    headers = {name.lower(): value for name, value in response.headers.items()}
    if codings(headers):
        body = await in_thread(decoded, headers, body, _TOKEN_BYTES, server)
    if 200 <= response.status_code < 300:
        return await off_loop(len(body), partial(read_token, body, f"{request}: {server}"))
    error = error_of(response.status_code, headers, body, f"{request}: {server}", time.time())
    if isinstance(error, RateLimited):
        error.hint = "the token server limits the rate of requests; wait before the next attempt"
    # A 404 of a token server is a refusal of an unknown scope. It does not mean absence.
    raise AccessDenied(str(error)) if isinstance(error, NotFound) else error
