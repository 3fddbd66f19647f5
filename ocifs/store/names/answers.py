"""The answers of a registry about names, each with a time to live.

Used in the event loop; files are read and written in worker threads. An answer is in one of these
places:

    fresh      in memory, younger than `tag_ttl`: returned at once
    absent     in memory, younger than `negative_ttl`: its error is raised at once
    last       on disk, of any age: returned if the registry cannot be reached
    (none)     a request is sent

With `believe_names` an answer on disk is fresh up to that age.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import trio
from cachetools import TTLCache

from ocifs.concurrency import SingleFlight, in_thread, note_progress
from ocifs.errors import CatalogUnavailable, NotFound, OcifsError
from ocifs.settings import Settings
from ocifs.store.names.access import Owners, RegistryAccess
from ocifs.store.names.files import NameFiles
from ocifs.store.names.outage import OUTAGES

T = TypeVar("T")

_NAMES = 20_000  # answers in memory

Request: TypeAlias = Callable[[], Awaitable[object]]
Ask: TypeAlias = Callable[[str, Request], Awaitable[object]]


class CachedAnswers:
    """Answers by key. The first word of a key is its kind, such as "tags"."""

    def __init__(
        self,
        access: RegistryAccess,
        owners: Owners,
        files: NameFiles,
        nursery: trio.Nursery,
        settings: Settings,
    ) -> None:
        clock, timing = trio.current_time, settings.timing
        self.access = access
        self.owners = owners
        self.files = files
        self.fresh: TTLCache[str, object] = TTLCache(_NAMES, timing.tag_ttl, timer=clock)
        self.absent: TTLCache[str, OcifsError] = TTLCache(_NAMES, timing.negative_ttl, timer=clock)
        self._flights: SingleFlight[str, object] = SingleFlight(nursery)
        self._believed_for = settings.cache.believe_names
        self._nursery = nursery
        # Counts the calls of `forget`: an answer that was requested before one is not fresh after.
        self.generation = 0

    def forget(self) -> None:
        """Drop the answers in memory, so that the registry is asked again. Files stay."""
        self.generation += 1
        self.fresh.clear()
        self.absent.clear()
        # A caller from now on must not get the answer to an earlier request.
        self._flights = SingleFlight(self._nursery)

    async def get(
        self, repository: str, key: str, request: Request, ask: Ask | None = None
    ) -> object:
        """The answer about a name of a repository.

        `ask` sends the request; by default it is sent soon if there is an earlier answer.
        """
        absent = self.absent.get(key)
        if absent is not None:
            raise absent
        if key in self.fresh:
            return self.fresh[key]
        return await self.once(key, lambda: self._renew(repository, key, request, ask))

    async def once(self, key: str, work: Callable[[], Awaitable[object]]) -> object:
        """The result of `work`, which runs once at a time for each key."""
        return await self._flights.run(key, work)

    async def last(self, repository: str, key: str) -> object:
        """The answer on disk, of any age, or None."""
        return await in_thread(self.files.last, await self.owners.of(repository), key)

    async def believed(self, repository: str, key: str) -> object:
        """The answer on disk, if it is young enough for `believe_names`, or None."""
        if not self._believed_for:
            return None
        owner = await self.owners.of(repository)
        return await in_thread(self.files.last, owner, key, self._believed_for)

    async def store(self, repository: str, key: str, answer: object) -> None:
        """Store an answer in memory and on disk."""
        await self._store(repository, key, answer, self.generation)

    async def _store(self, repository: str, key: str, answer: object, generation: int) -> None:
        if generation == self.generation:
            self.fresh[key] = answer
        await in_thread(self.files.write, await self.owners.of(repository), key, answer)

    async def _renew(self, repository: str, key: str, request: Request, ask: Ask | None) -> object:
        generation = self.generation
        believed = await self.believed(repository, key)
        if believed is not None:
            return believed
        last = await self.last(repository, key)
        if ask is None:
            # With an earlier answer to return, a slow registry need not be waited for.
            ask = self.access.ask if last is None else self.access.ask_soon
        try:
            answer = await ask(key, request)
        except (NotFound, CatalogUnavailable) as error:
            # CatalogUnavailable is also raised for an outage, which is its cause then.
            if isinstance(error.__cause__, OUTAGES) and last is not None:
                self.access.stale = True
                return last
            if generation == self.generation:
                self.absent[key] = error
            # The name was deleted. Its answer must not come back in an outage.
            if last is not None and isinstance(error, NotFound):
                owner = await self.owners.of(repository)
                await in_thread(self.files.forget, owner, key)
            raise
        except OUTAGES as error:
            if last is None:
                self._remember_cut(key, error)
                raise
            self.access.stale = True
            # An earlier answer is progress: the time that it took does not count for the next step.
            note_progress()
            return last
        except OcifsError as error:
            self._remember_cut(key, error)
            raise
        await self._store(repository, key, answer, generation)
        return answer

    def _remember_cut(self, key: str, error: OcifsError) -> None:
        """Remember a truncated list, so that not each lookup requests it again."""
        if error.listed:
            self.absent[key] = error
