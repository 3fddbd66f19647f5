"""Tokens: from a registry's challenge to an Authorization header (distribution docs/content/spec/auth/token.md and oauth.md).

Rules that hold here: one token request for a scope at a time, whoever waits; a realm is asked only where it may be asked: over https,
or on the registry's own host, and never on a link-local or loopback address unless the registry is there itself; a header is sent to
the registry alone.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx
import trio

from ocifs.errors import AccessDenied, NotFound, OcifsError
from ocifs.oci.challenge import Challenge, Token, parse_challenges, read_token
from ocifs.oci.replies import error_of
from ocifs.registry.credentials import Credential, find_credential
from ocifs.registry.transport import pieces, sent

_EARLY = 10.0  # seconds before its end at which a token is replaced
_TOKEN_BYTES = 1 << 20
CLIENT_ID = "ocifs"


@dataclass(frozen=True, slots=True)
class _Held:
    token: Token
    until: float


class Authenticator:
    """Authorization headers for one registry."""

    def __init__(self, client: httpx.AsyncClient, host: str, origin: str, authfile: Path | None) -> None:
        self._client = client
        self._host = host
        self._origin = origin
        self._authfile = authfile
        self._held: dict[str, _Held] = {}
        self._basic: dict[str, str] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._bearer: Challenge | None = None

    async def header(self, scope: str) -> str | None:
        """What to send for a scope, as far as is known before the registry has asked for anything."""
        if scope in self._basic:
            return self._basic[scope]
        if self._bearer is None:
            return None
        return f"Bearer {(await self._token(self._bearer, scope, refused=None)).value}"

    async def answer(self, challenge_header: str, scope: str, refused: str | None) -> str:
        """What to send after a 401. `refused`: the header that was sent, if any. Raises AccessDenied when nothing is left to try."""
        for challenge in parse_challenges(challenge_header):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                self._bearer = challenge
                return f"Bearer {(await self._token(challenge, scope, refused)).value}"
            if challenge.scheme == "basic":
                credential = await self._credential(scope)
                if credential is not None and credential.basic() != refused:
                    self._basic[scope] = credential.basic()
                    return credential.basic()
        self._basic.pop(scope, None)
        raise AccessDenied(
            f"{self._host} asks for credentials, and none that were found are accepted",
            hint="log in with docker, podman or oras login",
        )

    async def _credential(self, scope: str) -> Credential | None:
        kind, _, rest = scope.partition(":")
        repository = rest.rpartition(":")[0] if kind == "repository" else ""
        return await trio.to_thread.run_sync(find_credential, self._host, repository, os.environ, self._authfile)

    async def _token(self, challenge: Challenge, scope: str, refused: str | None) -> Token:
        wanted = scope or challenge.parameters.get("scope", "")
        async with self._locks.setdefault(wanted, trio.Lock()):
            held = self._held.get(wanted)
            if held and trio.current_time() < held.until and f"Bearer {held.token.value}" != refused:
                return held.token
            token = await self._fetch(challenge, wanted)
            if refused == f"Bearer {token.value}":
                raise AccessDenied(f"{self._host} refuses the token that its own server gives for {wanted}")
            self._held[wanted] = _Held(
                token, trio.current_time() + max(token.expires_in - _EARLY, token.expires_in / 2)
            )
            return token

    async def _fetch(self, challenge: Challenge, scope: str) -> Token:
        realm = challenge.parameters["realm"]
        self._check_realm(realm)
        credential = await self._credential(scope)
        asked = {"service": challenge.parameters.get("service", ""), "scope": scope}
        query = {name: value for name, value in asked.items() if value}
        if credential is not None and credential.identity:
            form = {**query, "grant_type": "refresh_token", "refresh_token": credential.secret, "client_id": CLIENT_ID}
            request = self._client.build_request("POST", realm, data=form)
        else:
            headers = {"Authorization": credential.basic()} if credential else {}
            glue = "&" if urlsplit(realm).query else "?"
            request = self._client.build_request("GET", f"{realm}{glue}{urlencode(query)}", headers=headers)
        async with sent(self._client, request) as reply:
            body = b""
            async for piece in pieces(reply):
                body += piece
                if len(body) > _TOKEN_BYTES:
                    raise AccessDenied(f"the token server of {self._host} answers without end")
            if reply.status_code != 200:
                raise _refusal(
                    error_of(reply.status_code, reply.headers, body, f"a token for {scope or self._host}", 0.0)
                )
        return read_token(body)

    def _check_realm(self, realm: str) -> None:
        """Refuse a realm to which no credential may go (SSRF: a registry chooses it)."""
        target, own = urlsplit(realm), urlsplit(self._origin)
        if (target.scheme, target.netloc) == (own.scheme, own.netloc):
            return
        if target.hostname == own.hostname and own.scheme == "http":
            return
        if target.scheme != "https":
            raise AccessDenied(f"{self._host} sends us for a token to a place without TLS: {target.netloc}")
        if is_inner(target.hostname or "") and not is_inner(own.hostname or ""):
            raise AccessDenied(f"{self._host} sends us for a token to an address of this machine: {target.netloc}")


def _refusal(error: OcifsError) -> OcifsError:
    """A token server that knows nothing of a scope refuses it: that is no absence."""
    return AccessDenied(str(error)) if isinstance(error, NotFound) else error


def is_inner(host: str) -> bool:
    """Whether a host is this machine or its link: loopback, link-local, unspecified."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_link_local or address.is_unspecified
