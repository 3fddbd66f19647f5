"""The referrers of a manifest, from the referrers API or the fallback tag (distribution-spec
"Listing Referrers").

`RegistryClient` calls this module from the task of a reader. State, one instance a registry:
whether the registry has the API.

- If the API's response is not an image index (an error, a redirect to a page, HTML), the fallback
  tag is fetched.
- A fallback tag that is absent, not an image index, or the subject itself lists nothing.
- A failure of the registry (5xx) without a fallback tag is an error, never an empty list.
- An invalid entry does not hide the others.
"""

from __future__ import annotations

from functools import partial

from ocifs.concurrency import off_loop
from ocifs.errors import (
    AccessDenied,
    LimitExceeded,
    Malformed,
    NotFound,
    OcifsError,
    RegistryFailed,
)
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import endpoints
from ocifs.oci.distribution.pages import read_fallback, read_referrers
from ocifs.registry.connection import Connection
from ocifs.registry.http.etags import RegistryResponse
from ocifs.registry.lists import PagedLists, with_partial_list
from ocifs.registry.request import RegistryRequest

_ACCEPT = {"Accept": endpoints.ACCEPT_MANIFESTS}
_ACCEPT_INDEX = {"Accept": endpoints.ACCEPT_INDEX}
_OK = frozenset({200})
_NO_API = (NotFound, AccessDenied, Malformed, RegistryFailed)


class Referrers:
    """Finds the referrers of manifests in one registry."""

    def __init__(self, connection: Connection, lists: PagedLists) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._lists = lists
        self._has_api: bool | None = None

    async def of(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """The descriptors of the manifests with a digest as their subject."""
        refusal: OcifsError | None = None
        if self._has_api is not False:
            try:
                referrers = await self._by_api(repository, digest)
            except _NO_API as error:
                # A first page shows that the registry has the API, so clients do not update the
                # fallback tag.
                if error.listed:
                    raise
                refusal = error
            else:
                self._has_api = True
                return referrers
        by_tag = await self._by_tag(repository, digest)
        if refusal is None:
            return by_tag or ()
        # While the API fails, an absent tag does not mean that there are no referrers.
        if by_tag is None and _is_failure(refusal):
            raise refusal
        if (
            self._has_api is None
            and not isinstance(refusal, AccessDenied)
            and not _is_failure(refusal)
        ):
            # The 404 for an absent repository is the same, and means nothing for the registry.
            self._has_api = None if await self._is_unknown(repository) else False
        return by_tag or ()

    async def _by_api(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        referrers: dict[Descriptor, None] = {}

        async def add(page: RegistryResponse) -> bool:
            parse = partial(read_referrers, page.body, page.headers.get("content-type", ""))
            entries = await off_loop(len(page.body), parse)
            if entries is None:
                host = self._connection.host
                raise Malformed(f"{host}: the response of the referrers API is not an image index")
            known = len(referrers)
            referrers.update(dict.fromkeys(entries))
            self._check_count(len(referrers))
            return len(referrers) > known

        target = endpoints.referrers(repository, digest)
        request = RegistryRequest(
            "GET", target, _ACCEPT_INDEX, _OK, self._limits.answer_bytes, True
        )
        with with_partial_list(referrers):
            await self._lists.follow(request, add)
        return tuple(referrers)

    async def _by_tag(self, repository: str, digest: Digest) -> tuple[Descriptor, ...] | None:
        """The entries of the fallback tag; None if there is no such list."""
        target = endpoints.manifest(repository, endpoints.referrers_tag(digest))
        request = RegistryRequest("GET", target, _ACCEPT, _OK, self._limits.manifest_bytes)
        try:
            response = await self._connection.fetch(request)
        except NotFound:
            return None
        media_type = response.headers.get("content-type", "")
        parse = partial(read_fallback, response.body, media_type, digest)
        entries = await off_loop(len(response.body), parse)
        self._check_count(len(entries or ()))
        return entries

    def _check_count(self, count: int) -> None:
        host, most = self._connection.host, self._limits.referrers
        if count > most:
            raise LimitExceeded(
                f"{host} lists more than {most} referrers of one digest (limits.referrers)"
            )

    async def _is_unknown(self, repository: str) -> bool:
        target, limit = endpoints.tags(repository), self._limits.answer_bytes
        request = RegistryRequest("GET", target, {}, _OK | {404}, limit)
        return (await self._connection.fetch(request)).status == 404


def _is_failure(refusal: OcifsError) -> bool:
    """Whether the API has failed. A registry without the API refuses, with 4xx or 501."""
    status = refusal.status if isinstance(refusal, RegistryFailed) else None
    return status is not None and status >= 500 and status != 501
