"""Requests for names to one registry, with the back-off of an outage.

Used in the event loop. `RegistryAccess` is shared by the parts of a `CachedCatalog`, and holds the
two facts that they have in common: whether the registry is in an outage, and whether an answer that
is being shown is an old one (`stale`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from cachetools import LRUCache

from ocifs.concurrency import deadline
from ocifs.errors import Unreachable
from ocifs.settings import Settings
from ocifs.store.names.outage import Failures, Outage

T = TypeVar("T")

_OWNERS = 20_000  # repositories with a remembered credential

Identify: TypeAlias = Callable[[str], Awaitable[str]]
"""The identity that a registry sees for a repository, or for the catalog (an empty name)."""


async def _anonymous(_repository: str) -> str:
    """The identity without credentials."""
    return "anonymous"


@dataclass(frozen=True, slots=True)
class RegistryIdentity:
    """A registry, as its name cache needs it. `on_answer` is called after each answer."""

    host: str
    identify: Identify = _anonymous
    on_answer: Callable[[], None] = lambda: None


class Owners:
    """The identities that cached answers belong to, each looked up once.

    So a mount uses the credential that it started with until it ends.
    """

    def __init__(self, identify: Identify) -> None:
        self._identify = identify
        self._owners: LRUCache[str, str] = LRUCache(_OWNERS)

    async def of(self, repository: str) -> str:
        """The owner of answers about a repository, or about the catalog (an empty name)."""
        if repository not in self._owners:
            self._owners[repository] = await self._identify(repository)
        return self._owners[repository]

    def used(self) -> frozenset[str]:
        """All owners that were looked up."""
        return frozenset(self._owners.values())


class RegistryAccess:
    """Sends requests unless the registry could not be reached a moment ago."""

    def __init__(self, registry: RegistryIdentity, settings: Settings) -> None:
        timing = settings.timing
        self._registry = registry
        self._offline = settings.cache.offline
        self._outage = Outage(timing.outage_pause, timing.timeout / 2)
        # A separate outage for requests with a short deadline: a registry that is too slow for them
        # may be fast enough for the others.
        self._slow = Outage(timing.outage_pause)
        self._failures = Failures(timing.outage_pause)
        self._soon = min(timing.stale_after, timing.timeout / 3)
        self._max_wait = timing.max_wait
        self.stale = False

    def forget_failures(self) -> None:
        """End the pauses after failures, so that the next request is sent."""
        self._outage.forget()
        self._slow.forget()
        self._failures.forget()

    async def ask(
        self, key: str, request: Callable[[], Awaitable[T]], *, wait_for_restart: bool = True
    ) -> T:
        """The result of a request. The first word of `key` is its kind.

        `wait_for_restart` as in `Outage.ask`.
        """
        if self._offline:
            raise Unreachable(
                f"not in the cache, and --offline prevents requests to {self._registry.host}",
                hint="run `ocifs prefetch` while online, or omit --offline",
            )
        answer = await self._failures.ask(
            key, lambda: self._outage.ask(request, wait_for_restart=wait_for_restart)
        )
        self._slow.over()
        self.stale = False
        self._registry.on_answer()
        return answer

    async def ask_soon(self, key: str, request: Callable[[], Awaitable[T]]) -> T:
        """The same with a short deadline, for a name with an earlier answer.

        A late answer is an outage for such requests only. Others may wait longer.
        """

        async def soon() -> T:
            with deadline(self._soon, self._max_wait):
                return await self.ask(key, request, wait_for_restart=False)
            raise AssertionError("a deadline raises when it passes")

        return await self._slow.ask(soon)
