"""Tokens: from a registry's challenge to an Authorization header (distribution
docs/content/spec/auth/token.md and oauth.md).

Rules that hold here: one token request for a scope at a time, whoever waits; a realm is asked only
where `guards` allow it; what a header is made of is forgotten as soon as it is refused, and read
again; a header is sent to the registry alone; no secret is in an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import httpx
import trio

from ocifs.concurrency import note_progress
from ocifs.errors import AccessDenied, OcifsError
from ocifs.oci.distribution.challenge import Challenge, Token, parse_challenges
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.files import Sources
from ocifs.registry.auth.helpers import Helpers
from ocifs.registry.auth.tokens import TokenRequest, fetch_token
from ocifs.registry.http.origins import WebOrigin, check_realm, may_have_credentials
from ocifs.settings import Settings

_EARLY = 10.0  # seconds before its end at which a token is replaced
_RENEWED = 30.0  # seconds for which a header is not suspected to be too old
_SCOPES = 8  # scopes that are asked for at once, at the most


@dataclass(frozen=True, slots=True)
class _Held:
    token: Token
    until: float
    since: float


class Authenticator:
    """Authorization headers for one registry.

    A scope is what we think that a question needs; a registry may name others for it.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        host: str,
        registry: WebOrigin,
        settings: Settings,
        *,
        anonymous: bool = False,
    ) -> None:
        self._client = client
        self._host = host
        self.registry = registry
        helpers = Helpers(settings.timing.helper_timeout)
        network = settings.network
        self._sources = Sources(
            helpers, os.environ, network.authfile, network.named_host, network.credential_helpers
        )
        self._anonymous = anonymous
        self._redirects = settings.limits.redirects
        self._held: dict[str, _Held] = {}
        self._basic: dict[str, str] = {}
        self._basic_since: dict[str, float] = {}
        self._credentials: dict[str, Credential | None] = {}
        self._scopes: dict[str, tuple[str, ...]] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._bearer: Challenge | None = None
        self._wants_basic = False

    @property
    def wants_tokens(self) -> bool:
        """Whether the registry has asked for a bearer token."""
        return self._bearer is not None

    def learn(self, challenge_header: str) -> bool:
        """Remember a challenge for a token, so that the next question brings one; whether it is
        such a challenge.
        """
        for challenge in parse_challenges(challenge_header):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                self._bearer = challenge
                return True
        return False

    async def sign_in(self, challenge_header: str) -> None:
        """Find out whether the credentials are accepted.

        Raises AccessDenied, also if none are found and some are needed.
        """
        if not self.learn(challenge_header):
            await self.answer(challenge_header, "", None)
            return
        try:
            await self.header("")
        except AccessDenied as error:
            # Without credentials and a scope some token servers refuse a token that they give for a
            # public repository (GitLab).
            if error.status != 403 or await self.credential("") is not None:
                raise
        except OcifsError:
            return  # such as 400 for a token without a scope

    async def header(self, scope: str) -> str | None:
        """What to send for a scope, as far as is known before the registry has asked for anything."""
        if self._wants_basic and scope not in self._basic:
            credential = await self._credential(scope)
            if credential is not None and credential.kind == "password":
                self._basic[scope] = credential.basic()
        if scope in self._basic:
            return self._basic[scope]
        if self._bearer is None:
            return None
        return f"Bearer {(await self._token(self._bearer, scope, refused=None)).value}"

    async def answer(self, challenge_header: str, scope: str, refused: str | None) -> str:
        """What to send after a 401.

        `refused`: the header that was sent, if any. Raises AccessDenied when nothing is left to
        try.
        """
        for challenge in parse_challenges(challenge_header):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                self._bearer = challenge
                self._learn(scope, challenge.parameters.get("scope", ""))
                return f"Bearer {(await self._token(challenge, scope, refused)).value}"
            if challenge.scheme == "basic":
                credential = await self._credential(scope, anew=refused is not None)
                if (
                    credential is not None
                    and credential.kind == "password"
                    and credential.basic() != refused
                ):
                    self._wants_basic = True
                    self._basic[scope] = credential.basic()
                    self._basic_since[scope] = trio.current_time()
                    return credential.basic()
        self._basic.pop(scope, None)
        self._credentials.pop(scope, None)
        raise AccessDenied(
            f"{self._host} asks for credentials, and none that were found are accepted",
            hint=f"log in with docker, podman or oras login; `ocifs doctor {self._host}` says which credentials are found",
        )

    async def renew(self, scope: str, refused: str) -> str | None:
        """Another header than one that was refused without a challenge; None if there is none, or
        that one is not old.
        """
        now = trio.current_time()
        if refused == self._basic.get(scope):
            if now - self._basic_since.get(scope, -_RENEWED) < _RENEWED:
                return None
            self._basic_since[scope] = now
            credential = await self._credential(scope, anew=True)
            if credential is None or credential.kind != "password" or credential.basic() == refused:
                return None
            self._basic[scope] = credential.basic()
            return credential.basic()
        held = self._held.get(scope)
        if held is None or self._bearer is None or now - held.since < _RENEWED:
            return None
        self._held[scope] = replace(
            held, since=now
        )  # a refusal of this token is asked about once in a while
        try:
            return f"Bearer {(await self._token(self._bearer, scope, refused)).value}"
        except AccessDenied:  # the same token again, or none: what the registry answered stands
            return None

    def _learn(self, scope: str, named: str) -> None:
        """Keep what a registry says that a scope of ours is called (seen: ACR wants metadata_read
        for tags).
        """
        known = self._scopes.get(scope, ())
        if named and named not in known:
            self._scopes[scope] = (named, *known)[:_SCOPES]

    async def credential(self, repository: str) -> Credential | None:
        """The credential that the registry is shown for a repository (empty: its catalog), if it
        asks for one.
        """
        return await self._credential(
            f"repository:{repository}:pull" if repository else "registry:catalog:*"
        )

    async def _credential(self, scope: str, *, anew: bool = False) -> Credential | None:
        if self._anonymous:
            return None
        if anew or scope not in self._credentials:
            kind, _, rest = scope.partition(":")
            repository = rest.rpartition(":")[0] if kind == "repository" else ""
            self._credentials[scope] = await self._sources.find(self._host, repository, anew=anew)
        return self._credentials[scope]

    async def _token(self, challenge: Challenge, scope: str, refused: str | None) -> Token:
        async with self._locks.setdefault(scope, trio.Lock()):
            held = self._held.get(scope)
            if (
                held
                and trio.current_time() < held.until
                and f"Bearer {held.token.value}" != refused
            ):
                return held.token
            token = await self._fetch(challenge, scope)
            if refused == f"Bearer {token.value}":
                raise AccessDenied(
                    f"{self._host} refuses the token that its own server gives for {scope}"
                )
            lasts = max(token.expires_in - _EARLY, token.expires_in / 2)
            note_progress()
            now = trio.current_time()
            self._held[scope] = _Held(token, now + lasts, now)
            return token

    async def _fetch(self, challenge: Challenge, scope: str) -> Token:
        realm = challenge.parameters["realm"]
        check_realm(self.registry, realm)
        credential = await self._credential(scope)
        if credential is not None and credential.kind == "registry":
            return Token(credential.secret)
        if credential is not None and not may_have_credentials(self.registry, realm):
            return await self._fetch_without_credentials(challenge, scope)
        try:
            return await self._request(challenge, scope, credential)
        except AccessDenied:
            again = await self._credential(scope, anew=True)
            if again == credential:
                self._credentials.pop(scope, None)
                raise
            return await self._request(challenge, scope, again)

    async def _fetch_without_credentials(self, challenge: Challenge, scope: str) -> Token:
        try:
            return await self._request(challenge, scope, None)
        except AccessDenied as error:
            error.hint = (
                f"the credentials of {self._host} were not sent: without TLS they go to its own port alone, "
                f"and its token server is at another"
            )
            raise

    async def _request(
        self, challenge: Challenge, scope: str, credential: Credential | None
    ) -> Token:
        scopes = self._scopes.get(scope) or ((scope,) if scope else ())
        realm, service = challenge.parameters["realm"], challenge.parameters.get("service", "")
        request = TokenRequest(self.registry, realm, service, scopes, credential, self._redirects)
        try:
            return await fetch_token(self._client, request)
        except AccessDenied as error:
            found = (
                f"the credentials of {credential.username} are not accepted"
                if credential and credential.username
                else "no credentials were found"
            )
            error.hint = f"{found}: log in with docker, podman or oras login; `ocifs doctor {self._host}` says what is found"
            raise
