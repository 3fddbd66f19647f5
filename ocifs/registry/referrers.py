"""What refers to a manifest, from the referrers API or from the tag that stands in for it
(distribution-spec "Listing Referrers").

`RegistryClient` calls this from the task that asks. One instance a registry; it remembers whether
the registry has the API.

Rules that hold here:

- Whatever the API answers instead of an index, the fallback tag is asked for: an error, a redirect
  to a page, HTML.
- A fallback tag that is absent or not an image index lists nothing. One that is the subject itself
  lists nothing.
- A failure of the registry (5xx) without a fallback tag is an error, never an empty list.
- An entry that cannot be read does not hide the others.
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
from ocifs.registry.lists import Lists, carrying
from ocifs.registry.request import RegistryRequest

_ACCEPT = {"Accept": endpoints.ACCEPT_MANIFESTS}
_ACCEPT_INDEX = {"Accept": endpoints.ACCEPT_INDEX}
_OK = frozenset({200})
_NO_API = (NotFound, AccessDenied, Malformed, RegistryFailed)


class Referrers:
    """Finds the referrers of manifests in one registry."""

    def __init__(self, connection: Connection, lists: Lists) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._lists = lists
        self._has_api: bool | None = None

    async def of(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """The descriptors of what refers to a digest."""
        refusal: OcifsError | None = None
        if self._has_api is not False:
            try:
                listed = await self._by_api(repository, digest)
            except _NO_API as error:
                if error.listed:
                    raise
                refusal = error
            else:
                self._has_api = True
                return listed
        by_tag = await self._by_tag(repository, digest)
        if refusal is None:
            return by_tag or ()
        if by_tag is None and _failed(refusal):
            raise refusal
        if self._has_api is None and not isinstance(refusal, AccessDenied) and not _failed(refusal):
            # A repository that is not there is refused with the same 404, which is no fact about
            # the registry.
            self._has_api = None if await self._is_unknown(repository) else False
        return by_tag or ()

    async def _by_api(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        found: dict[Descriptor, None] = {}

        async def take(page: RegistryResponse) -> bool:
            parse = partial(read_referrers, page.body, page.headers.get("content-type", ""))
            listed = await off_loop(len(page.body), parse)
            if listed is None:
                raise Malformed(
                    f"{self._connection.host} answers the referrers API with something else than an index"
                )
            known = len(found)
            found.update(dict.fromkeys(listed))
            if len(found) > self._limits.referrers:
                host, most = self._connection.host, self._limits.referrers
                raise LimitExceeded(
                    f"{host} lists more than {most} referrers of one digest (limits.referrers)"
                )
            return len(found) > known

        target = endpoints.referrers(repository, digest)
        question = RegistryRequest(
            "GET", target, _ACCEPT_INDEX, _OK, self._limits.answer_bytes, True
        )
        with carrying(found):
            await self._lists.follow(question, take)
        return tuple(found)

    async def _by_tag(self, repository: str, digest: Digest) -> tuple[Descriptor, ...] | None:
        """What the fallback tag lists; None without a tag that lists anything."""
        target = endpoints.manifest(repository, endpoints.referrers_tag(digest))
        try:
            answer = await self._connection.ask(
                RegistryRequest("GET", target, _ACCEPT, _OK, self._limits.manifest_bytes)
            )
        except NotFound:
            return None
        parse = partial(read_fallback, answer.body, answer.headers.get("content-type", ""), digest)
        listed = await off_loop(len(answer.body), parse)
        if listed is not None and len(listed) > self._limits.referrers:
            host, most = self._connection.host, self._limits.referrers
            raise LimitExceeded(
                f"{host} lists more than {most} referrers of one digest (limits.referrers)"
            )
        return listed

    async def _is_unknown(self, repository: str) -> bool:
        question = RegistryRequest(
            "GET", endpoints.tags(repository), {}, _OK | {404}, self._limits.answer_bytes
        )
        return (await self._connection.ask(question)).status == 404


def _failed(refusal: OcifsError) -> bool:
    """Whether the API failed, in contrast to an answer of a registry that does not have it."""
    status = refusal.status if isinstance(refusal, RegistryFailed) else None
    return status is not None and status >= 500 and status != 501
