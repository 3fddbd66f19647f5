"""The list of a registry's repositories, which many registries refuse, or send in many pages.

Used in the event loop. If the list cannot be had, the repositories of cached names are listed, so
that an outage hides none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ocifs.concurrency import in_thread
from ocifs.content import Catalog
from ocifs.errors import CatalogUnavailable, OcifsError, RateLimited
from ocifs.store.names.answers import CachedAnswers
from ocifs.store.names.outage import OUTAGES

T = TypeVar("T")

log = logging.getLogger("ocifs.store")

_KEY = "catalog"
_NOT_BRIEF = "no brief catalog"  # the key that records that the list has several pages


class RepositoryListing:
    """Lists the repositories of one registry. `error` is that of the last attempt, or empty."""

    def __init__(self, catalog: Catalog, answers: CachedAnswers) -> None:
        self._catalog = catalog
        self._answers = answers
        self._cached: tuple[str, ...] | None = None
        self.error = ""

    def forget(self) -> None:
        """Forget the repositories of cached names, which are read again when they are needed."""
        self._cached = None

    async def all(self) -> tuple[str, ...]:
        """All repositories, as `Catalog.repositories`."""
        access = self._answers.access
        try:
            answer = await self._answers.get("", _KEY, self._catalog.repositories, self._ask)
        except (CatalogUnavailable, *OUTAGES) as error:
            if isinstance(error, CatalogUnavailable) and not isinstance(error.__cause__, OUTAGES):
                raise
            cached = await self._of_cached_names()
            if not cached:
                raise
            access.stale = True
            return cached
        # In an outage the list may be older than cached names.
        if not access.stale:
            return names_in(answer)
        return tuple(sorted({*names_in(answer), *await self._of_cached_names()}))

    async def brief(self) -> tuple[str, ...] | None:
        """All repositories if that takes one request at most, or None (`Catalog.brief_list`)."""
        answers = self._answers
        listed = answers.fresh.get(_KEY)
        if listed is not None:
            return names_in(listed)
        if _KEY in answers.absent or _NOT_BRIEF in answers.fresh:
            return None
        try:
            answer = await answers.once("brief catalog", self._request_brief)
        except OUTAGES:
            return await self.all()  # those of cached names, if there are any
        return None if answer is None else names_in(answer)

    async def _request_brief(self) -> tuple[str, ...] | None:
        answers = self._answers
        believed = await answers.believed("", _KEY)
        if believed is not None:
            return names_in(believed)
        try:
            listed = await self._ask(_KEY, self._catalog.brief_list)
        except (CatalogUnavailable, RateLimited) as error:
            log.debug("no catalog for a lookup: %s", error)
            listed = None
        if listed is None:
            answers.fresh[_NOT_BRIEF] = ()
            return None
        await answers.store("", _KEY, listed)
        return listed

    async def _ask(self, key: str, request: Callable[[], Awaitable[T]]) -> T:
        """Request the list, with a short deadline if cached names can replace it."""
        access = self._answers.access
        replaceable = await in_thread(self._answers.files.any)
        ask = access.ask_soon if replaceable else access.ask
        try:
            answer = await ask(key, request)
        except OcifsError as error:
            self.error = str(error)
            raise
        self.error = ""
        return answer

    async def _of_cached_names(self) -> tuple[str, ...]:
        """The repositories of the names on disk, which are read once."""
        if self._cached is None:
            owners = self._answers.owners
            # So that `used` includes an owner, also before any other name was looked up.
            await owners.of("")
            self._cached = await in_thread(self._answers.files.repositories, owners.used())
        return self._cached


def names_in(answer: object) -> tuple[str, ...]:
    """The names in the answer to a list."""
    assert isinstance(answer, list | tuple)
    return tuple(answer)
