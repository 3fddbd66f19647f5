"""Lists in pages: tags, repositories, referrers (distribution-spec "Listing Tags").

`RegistryClient` and `Referrers` call this module from the task of a reader. No state.

- A list is complete or an error. The error has the entries so far in `listed`.
- A missing further page never means absence: NotFound comes only from the first page.
- Every list ends: each target is fetched once, and the number of pages is bounded, as is the number
  of consecutive pages without a new entry.
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

# Registries that filter a page after cutting it send empty ones.
_IDLE_PAGES = 8
_TRANSIENT = frozenset({408, 502, 503, 504})


class PagedLists:
    """Fetches the lists of one registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._host = connection.host
        self._limits = connection.limits

    async def follow(
        self, request: RegistryRequest, add: Callable[[RegistryResponse], Awaitable[bool]]
    ) -> None:
        """Pass each page of a list to `add`, which returns whether it had a new entry."""
        seen: set[str] = set()
        target: str | None = request.target
        idle = 0
        while target is not None:
            if target in seen or idle > _IDLE_PAGES:
                raise Malformed(f"{self._host}: the pages of a list form a loop")
            if len(seen) >= self._limits.pages:
                raise LimitExceeded(
                    f"{self._host}: a list has more than {self._limits.pages} pages (limits.pages)"
                )
            seen.add(target)
            page = await self._connection.fetch(replace(request, target=target))
            idle = 0 if await add(page) else idle + 1
            target = self._connection.next_page(target, page.headers)

    async def names(self, target: str, key: str) -> tuple[str, ...]:
        """The names in the member `key` of a list, each once.

        Raises the error that ended the list, with the names so far in `listed`.
        """
        names: dict[str, None] = {}
        request = self._request(target)
        with with_partial_list(names):
            page = await self._add_pages(request, key, names)
            # go-containerregistry's registry cuts a list at the requested length and names no
            # further page.
            while page.count == endpoints.PAGE and page.last:
                known = len(names)
                page = await self._add_pages_after(page.last, request, key, names)
                # A registry that ignores `last` has sent the first page again.
                if len(names) == known:
                    break
        return tuple(names)

    async def single_page(self, target: str, key: str) -> tuple[str, ...] | None:
        """The names of a list with one page, or None for a longer one. Sends one request."""
        request = replace(self._request(target), may_fetch_token=False)
        response = await self._connection.fetch(request)
        page = await self._parse(response, key)
        # A page with the requested length may be cut, even without a link to the next one.
        if (
            page.count == endpoints.PAGE
            or self._connection.next_page(target, response.headers) is not None
        ):
            return None
        return tuple(dict.fromkeys(page.names))

    def _request(self, target: str) -> RegistryRequest:
        limit = self._limits.answer_bytes
        return RegistryRequest("GET", target, {}, limit=limit, is_repeated=True)

    async def _parse(self, response: RegistryResponse, key: str) -> NamesPage:
        return await off_loop(len(response.body), partial(read_names, response.body, key))

    async def _add_pages(
        self, request: RegistryRequest, key: str, names: dict[str, None]
    ) -> NamesPage:
        """Add the names of a list. Returns its last page."""
        page = NamesPage((), 0, "")

        async def add(response: RegistryResponse) -> bool:
            nonlocal page
            page = await self._parse(response, key)
            known = len(names)
            names.update(dict.fromkeys(page.names))
            if len(names) > self._limits.names:
                most = self._limits.names
                raise LimitExceeded(f"{self._host} lists more than {most} {key} (limits.names)")
            return len(names) > known

        await self.follow(request, add)
        return page

    async def _add_pages_after(
        self, last: str, request: RegistryRequest, key: str, names: dict[str, None]
    ) -> NamesPage:
        """Add the names after the last one, for which the registry has sent no link.

        A refusal means the end of the list.
        """
        further = replace(request, target=endpoints.following(request.target, last))
        try:
            return await self._add_pages(further, key, names)
        except OcifsError as error:
            if isinstance(error, Unreachable | DeadlineExceeded | RateLimited | LimitExceeded):
                raise
            if isinstance(error, RegistryFailed) and error.status in _TRANSIENT:
                raise
            log.info("%s: no further page after %d %s: %s", self._host, len(names), key, error)
            return NamesPage((), 0, "")


@contextmanager
def with_partial_list(entries: Collection[object]) -> Iterator[None]:
    """Put the entries so far into an error that is raised in the block."""
    try:
        yield
    except (NotFound, RegistryFailed) as error:
        error.listed = tuple(entries)
        if not entries or (isinstance(error, RegistryFailed) and error.status in _TRANSIENT):
            raise
        # Neither absence nor an outage, since the registry has just sent a page.
        cut = Malformed(f"a further page of the list is missing: {error}", hint=error.hint)
        cut.listed = error.listed
        raise cut from error
    except OcifsError as error:
        error.listed = tuple(entries)
        raise
