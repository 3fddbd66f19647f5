"""Lists that come in pages: tags, repositories, referrers (distribution-spec "Listing Tags").

`RegistryClient` and `Referrers` call this from the task that asks. One instance a registry; it
holds no state of its own.

Rules that hold here:

- Nothing is cut silently. If a list cannot be followed to its end, the error that ended it carries
  the entries in `listed`.
- That a further page is missing is never absence: NotFound can only come from the first page.
- Every list ends: a target is asked for once, pages without a new entry and pages in all are
  bounded.
- A large page is parsed in a worker thread.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from ocifs.concurrency import off_loop
from ocifs.errors import (
    DeadlineExceeded,
    LimitExceeded,
    Malformed,
    NotFound,
    OcifsError,
    RateLimited,
    RegistryFailed,
    Unreachable,
)
from ocifs.oci.distribution import endpoints
from ocifs.oci.distribution.pages import NamesPage, read_names
from ocifs.registry.connection import Connection
from ocifs.registry.http.etags import RegistryResponse
from ocifs.registry.request import RegistryRequest

log = logging.getLogger("ocifs.registry")

# pages in a row without a new entry: empty ones are seen of registries that filter after cutting
_IDLE_PAGES = 8
_TRANSIENT = frozenset({408, 502, 503, 504})


class Lists:
    """Follows the lists of one registry to their ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._host = connection.host
        self._limits = connection.limits

    async def follow(
        self, question: RegistryRequest, take: Callable[[RegistryResponse], Awaitable[bool]]
    ) -> None:
        """Hand each page of a list to `take`, which returns whether it had a new entry."""
        seen: set[str] = set()
        following: str | None = question.target
        idle = 0
        while following is not None:
            if following in seen or idle > _IDLE_PAGES:
                raise Malformed(f"{self._host} pages a list in circles")
            if len(seen) >= self._limits.pages:
                raise LimitExceeded(f"{self._host} pages a list without end (limits.pages)")
            seen.add(following)
            page = await self._connection.ask(replace(question, target=following))
            idle = 0 if await take(page) else idle + 1
            following = self._connection.following(following, page.headers)

    async def names(self, target: str, member: str) -> tuple[str, ...]:
        """The names of a list, each once.

        Raises the error that ended it, with the names so far in `listed`.
        """
        names: dict[str, None] = {}
        question = RegistryRequest(
            "GET", target, {}, frozenset({200}), self._limits.answer_bytes, True
        )
        with carrying(names):
            page = await self._collect(question, member, names)
            # Some registries cut a list at the length that was asked for and name no further page
            # (seen: go-containerregistry's).
            while page.count == endpoints.PAGE and page.last:
                known = len(names)
                page = await self._ask_further(question, member, names, page.last)
                if len(names) == known:
                    break
        return tuple(names)

    async def single_page(self, target: str, member: str) -> tuple[str, ...] | None:
        """The names of a list that has one page, or None: one request, whatever the length of the
        list.
        """
        question = RegistryRequest(
            "GET", target, {}, frozenset({200}), self._limits.answer_bytes, True, tokens=False
        )
        answer = await self._connection.ask(question)
        page = await off_loop(len(answer.body), partial(read_names, answer.body, member))
        if (
            page.count == endpoints.PAGE
            or self._connection.following(target, answer.headers) is not None
        ):
            return None
        return tuple(dict.fromkeys(page.names))

    async def _collect(
        self, question: RegistryRequest, member: str, names: dict[str, None]
    ) -> NamesPage:
        """Add the names of a list; its last page."""
        page = NamesPage((), 0, "")

        async def take(answer: RegistryResponse) -> bool:
            nonlocal page
            page = await off_loop(len(answer.body), partial(read_names, answer.body, member))
            known = len(names)
            names.update(dict.fromkeys(page.names))
            if len(names) > self._limits.names:
                raise LimitExceeded(
                    f"{self._host} lists more than {self._limits.names} {member} (limits.names)"
                )
            return len(names) > known

        await self.follow(question, take)
        return page

    async def _ask_further(
        self, question: RegistryRequest, member: str, names: dict[str, None], last: str
    ) -> NamesPage:
        """Ask for the names after the last one, which the registry did not offer.

        That it refuses is the end of the list.
        """
        further = replace(question, target=endpoints.following(question.target, last))
        try:
            return await self._collect(further, member, names)
        except OcifsError as error:
            if isinstance(error, Unreachable | DeadlineExceeded | RateLimited | LimitExceeded):
                raise
            if isinstance(error, RegistryFailed) and error.status in _TRANSIENT:
                raise
            log.info("%s: no further page after %d %s: %s", self._host, len(names), member, error)
            return NamesPage((), 0, "")


@contextmanager
def carrying(listed: Collection[object]) -> Iterator[None]:
    """Let an error that leaves the block carry the entries that were listed until then."""
    try:
        yield
    except (NotFound, RegistryFailed) as error:
        error.listed = tuple(listed)
        if not listed or (isinstance(error, RegistryFailed) and error.status in _TRANSIENT):
            raise
        # Neither absence nor an outage: the registry has just answered.
        cut = Malformed(f"a further page of the list is missing: {error}", hint=error.hint)
        cut.listed = error.listed
        raise cut from error
    except OcifsError as error:
        error.listed = tuple(listed)
        raise
