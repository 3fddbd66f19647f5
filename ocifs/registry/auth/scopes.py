"""The state of one registry's authorization, by scope.

`Authenticator` has one `Scopes`. State: for each scope the credential, its Basic header or token,
and the names that the registry uses for the scope. The least recently used scopes are dropped.

- Credentials are searched for once a scope, and again after a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import trio
from cachetools import LRUCache

from ocifs.oci.distribution.challenge import Token
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.source import CredentialSources, find_credential

_SCOPES = 4096  # one a repository
_NAMES = 8  # scopes in one token request


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A token, until when it is used, and since when it is known to be accepted."""

    token: Token
    until: float
    since: float


@dataclass(slots=True)
class ScopeState:
    """The state of one scope.

    - `lock`: held by the task that requests a token.
    - `credential`: the stored credential, once `is_searched`.
    - `basic`: the Basic header, once it is in use. It was last checked at `basic_since`.
    - `names`: the registry's names for the scope, the latest first.
    """

    lock: trio.Lock = field(default_factory=trio.Lock)
    is_searched: bool = False
    credential: Credential | None = None
    basic: str = ""
    basic_since: float = -inf
    token: CachedToken | None = None
    names: tuple[str, ...] = ()

    def add_name(self, name: str) -> None:
        """Remember the registry's name for the scope (ACR uses metadata_read for tags)."""
        if name and name not in self.names:
            self.names = (name, *self.names)[:_NAMES]


class Scopes:
    """The scopes of one registry."""

    def __init__(self, host: str, sources: CredentialSources) -> None:
        self._host = host
        self._sources = sources
        self._states: LRUCache[str, ScopeState] = LRUCache(_SCOPES)

    def state(self, scope: str) -> ScopeState:
        """The state of a scope, which is empty at first."""
        state = self._states.get(scope)
        if state is None:
            state = self._states[scope] = ScopeState()
        return state

    async def credential(self, scope: str, *, refresh: bool = False) -> Credential | None:
        """The stored credential for a scope. `refresh`: the last one was rejected."""
        state = self.state(scope)
        if refresh or not state.is_searched:
            kind, _, rest = scope.partition(":")
            repository = rest.rpartition(":")[0] if kind == "repository" else ""
            state.credential = await find_credential(
                self._sources, self._host, repository, refresh=refresh
            )
            state.is_searched = True
        return state.credential
