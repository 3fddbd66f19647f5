"""Authorization headers for one registry (distribution docs/content/spec/auth/token.md, oauth.md).

`Connection` calls this module from the task of each request: `header` before the request, `respond`
after a 401, `renew` after another refusal that may mean an expired header.

State: the registry's last challenge, and the state of each scope (`scopes`). The scope of a request
is a guess from its target (`oci.distribution.endpoints.scope_of`); a challenge may name others.

- There is one token request for a scope at a time. Concurrent callers wait for it.
- A token server is contacted only if `origins` allows its address.
- After a refusal a header is not used again, and credentials are read from their sources again.
- A header is sent to this registry alone.
- No secret is in an error message.
"""

from __future__ import annotations

from dataclasses import replace

import httpx
import trio

from ocifs.concurrency import note_progress
from ocifs.errors import AccessDenied, OcifsError
from ocifs.oci.distribution.challenge import Challenge, Token, parse_challenges
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.scopes import CachedToken, Scopes
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.auth.tokens import TokenRequest, fetch_token
from ocifs.registry.http.origins import WebOrigin, check_realm, may_have_credentials

_EXPIRY_MARGIN = 10.0  # seconds before its expiry at which a token is replaced
_MIN_AGE = 30.0  # seconds for which a header is not suspected to have expired


class Authenticator:
    """Authorization headers for one registry.

    Without sources it is anonymous.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        host: str,
        registry: WebOrigin,
        sources: CredentialSources,
        redirects: int,
    ) -> None:
        self.registry = registry
        self._client = client
        self._host = host
        self._scopes = Scopes(host, sources)
        self._redirects = redirects
        self._bearer: Challenge | None = None
        self._wants_basic = False

    @property
    def wants_tokens(self) -> bool:
        """Whether the registry has required a bearer token."""
        return self._bearer is not None

    def remember_challenge(self, challenge_header: str) -> bool:
        """Remember a bearer challenge, so that later requests have a token.

        Returns whether it is such a challenge.
        """
        for challenge in parse_challenges(challenge_header):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                self._bearer = challenge
                return True
        return False

    async def sign_in(self, challenge_header: str) -> None:
        """Check that the credentials are accepted.

        Raises AccessDenied, also if credentials are required and there are none.
        """
        if not self.remember_challenge(challenge_header):
            await self.respond(challenge_header, "", None)
            return
        try:
            await self.header("")
        except AccessDenied as error:
            # Without credentials some token servers refuse a token without a scope, and give one
            # for a public repository (GitLab).
            if error.status != 403 or await self.credential("") is not None:
                raise
        except OcifsError:
            return  # such as 400 for a token without a scope

    async def header(self, scope: str) -> str | None:
        """The header for a request, as far as it is known without a challenge."""
        state = self._scopes.state(scope)
        # The registry uses Basic for one scope, so it will for the others: this saves a 401.
        if self._wants_basic and not state.basic:
            credential = await self._scopes.credential(scope)
            if credential is not None and credential.kind == "password":
                state.basic = credential.basic()
        if state.basic:
            return state.basic
        if self._bearer is None:
            return None
        return f"Bearer {(await self._token(self._bearer, scope, refused=None)).value}"

    async def respond(self, challenge_header: str, scope: str, refused: str | None) -> str:
        """The header for another attempt after a 401.

        `refused`: the header of the request, if it had one. Raises AccessDenied if there is nothing
        else to try.
        """
        state = self._scopes.state(scope)
        for challenge in parse_challenges(challenge_header):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                self._bearer = challenge
                state.add_name(challenge.parameters.get("scope", ""))
                return f"Bearer {(await self._token(challenge, scope, refused)).value}"
            if challenge.scheme == "basic":
                credential = await self._scopes.credential(scope, refresh=refused is not None)
                if (
                    credential is not None
                    and credential.kind == "password"
                    and credential.basic() != refused
                ):
                    self._wants_basic = True
                    state.basic, state.basic_since = credential.basic(), trio.current_time()
                    return state.basic
        state.basic, state.is_searched = "", False
        schemes = sorted({challenge.scheme for challenge in parse_challenges(challenge_header)})
        if schemes and not {"basic", "bearer"} & set(schemes):
            raise AccessDenied(
                f"{self._host} requires a login by {', '.join(schemes)}, which is not supported",
                hint="ocifs supports Basic and Bearer: ask for another address of the registry",
            )
        raise login_error(self._host, await self._scopes.credential(scope))

    async def renew(self, scope: str, refused: str) -> str | None:
        """Another header instead of one that was refused without a challenge.

        Returns None if there is none, or if the header is too new to have expired.
        """
        now = trio.current_time()
        state = self._scopes.state(scope)
        if refused == state.basic:
            if now - state.basic_since < _MIN_AGE:
                return None
            state.basic_since = now
            credential = await self._scopes.credential(scope, refresh=True)
            if credential is None or credential.kind != "password" or credential.basic() == refused:
                return None
            state.basic = credential.basic()
            return state.basic
        cached = state.token
        if cached is None or self._bearer is None or now - cached.since < _MIN_AGE:
            return None
        # A later refusal of the same token is not checked for a while.
        state.token = replace(cached, since=now)
        try:
            return f"Bearer {(await self._token(self._bearer, scope, refused)).value}"
        except AccessDenied:
            return None  # the same token again, or none: the registry's own error is the better one

    async def credential(self, repository: str) -> Credential | None:
        """The credential for a repository (empty: the catalog), if the registry requires one."""
        return await self._scopes.credential(
            f"repository:{repository}:pull" if repository else "registry:catalog:*"
        )

    async def _token(self, challenge: Challenge, scope: str, refused: str | None) -> Token:
        state = self._scopes.state(scope)
        async with state.lock:
            cached = state.token
            if (
                cached
                and trio.current_time() < cached.until
                and f"Bearer {cached.token.value}" != refused
            ):
                return cached.token
            token = await self._fetch(challenge, scope)
            if refused == f"Bearer {token.value}":
                raise AccessDenied(
                    f"{self._host} refuses the token that its token server issues for {scope}"
                )
            # Half of the lifetime for a short one, since it must not be zero.
            lifetime = max(token.expires_in - _EXPIRY_MARGIN, token.expires_in / 2)
            note_progress()
            now = trio.current_time()
            state.token = CachedToken(token, now + lifetime, now)
            return token

    async def _fetch(self, challenge: Challenge, scope: str) -> Token:
        realm = challenge.parameters["realm"]
        check_realm(self.registry, realm)
        credential = await self._scopes.credential(scope)
        if credential is not None and credential.kind == "registry":
            return Token(credential.secret)
        if credential is not None and not may_have_credentials(self.registry, realm):
            return await self._fetch_without_credentials(challenge, scope)
        try:
            return await self._request(challenge, scope, credential)
        except AccessDenied:
            # The user may have logged in again since the credential was read.
            reread = await self._scopes.credential(scope, refresh=True)
            if reread == credential:
                self._scopes.state(scope).is_searched = False
                raise
            return await self._request(challenge, scope, reread)

    async def _fetch_without_credentials(self, challenge: Challenge, scope: str) -> Token:
        try:
            return await self._request(challenge, scope, None)
        except AccessDenied as error:
            error.hint = (
                f"the credentials for {self._host} were not sent: without TLS they go only to "
                "the registry's own port, and its token server has another address"
            )
            raise

    async def _request(
        self, challenge: Challenge, scope: str, credential: Credential | None
    ) -> Token:
        scopes = self._scopes.state(scope).names or ((scope,) if scope else ())
        realm, service = challenge.parameters["realm"], challenge.parameters.get("service", "")
        request = TokenRequest(self.registry, realm, service, scopes, credential, self._redirects)
        try:
            return await fetch_token(self._client, request)
        except AccessDenied as error:
            raise _explained(error, self._host, credential) from None


def _explained(error: AccessDenied, host: str, credential: Credential | None) -> AccessDenied:
    """The error of a token server, in terms of the user's login."""
    # Without credentials, 403 may be about this scope alone (see `sign_in`).
    if error.status == 403 and credential is None:
        error.hint = f"there are no stored credentials: {login_hint(host)}"
        return error
    # Without 401 or 403, the token server has not judged the credentials.
    if error.status not in (401, 403):
        error.hint = error.hint or login_hint(host)
        return error
    denied = login_error(host, credential)
    denied.status = error.status
    return denied


_KINDS = {"identity": "an identity token", "registry": "a registry token"}


def login_error(host: str, credential: Credential | None) -> AccessDenied:
    """The error for a registry that requires a login, without a credential or with a wrong one."""
    if credential is None:
        message = f"{host} requires a login, and no credentials for it were found"
    else:
        name = f" of {credential.username}" if credential.username else ""
        origin = f" from {credential.origin}" if credential.origin else ""
        message = f"{host} rejects the credentials{name}{origin}"
        if credential.kind != "password":
            message += f" (it is not a password, but {_KINDS[credential.kind]})"
    error = AccessDenied(message, hint=login_hint(host))
    error.status, error.needs_login = 401, True
    return error


def login_hint(host: str) -> str:
    """How to log in, and where credentials are stored."""
    return (
        f"log in with `podman login {host}`, docker login or oras login; "
        f"`ocifs doctor {host}` lists the stored credentials"
    )
