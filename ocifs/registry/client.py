"""A registry as a Catalog and a BlobSource (distribution-spec).

Rules that hold here: what to ask is in `oci.endpoints` and what an answer means in `oci.replies`; lists are followed by their Link header
until there is none, and no list goes on without end; a manifest is verified before it is given away; a blob is not, since whoever keeps
it verifies it, but what its headers say is held against its size.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import httpx

from ocifs.concurrency import note_progress
from ocifs.content import Blob, BlobStream, RawManifest
from ocifs.errors import (
    AccessDenied,
    CatalogUnavailable,
    IntegrityError,
    LimitExceeded,
    Malformed,
    NotFound,
    RegistryFailed,
    Unreachable,
)
from ocifs.oci import endpoints, replies
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor, as_object
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import digest_of_manifest, load_json, parse_manifest, verify_manifest
from ocifs.registry.connection import Connection, Question, headers_of
from ocifs.registry.endpoint import Site
from ocifs.registry.transport import pieces
from ocifs.registry.validators import Answer
from ocifs.settings import Settings

_ACCEPT = {"Accept": endpoints.ACCEPT_MANIFESTS}
_KEPT = 32  # manifests that came along with a tag and are kept until they are asked for by digest
_OK = frozenset({200})
_NO_FURTHER = frozenset({400, 404})  # what those may answer who do not know `last`
_NO_CATALOG = frozenset({401, 403, 404, 405})
_NO_HEAD = frozenset({400, 405, 501})  # what those answer that refuse HEAD
_NO_REFERRERS = frozenset(
    {400, 404, 405, 406, 501}
)  # what those answer that lack the referrers API (seen: also 400 and 406)


class RegistryClient:
    """One registry. Use `open_registry`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._came_along: dict[tuple[str, Digest], RawManifest] = {}
        self._has_referrers: bool | None = None

    async def check(self) -> None:
        """Ask whether anybody is there. Raises Unreachable, RegistryFailed."""
        await self._connection.check()

    def facts(self) -> dict[str, object]:
        """What the registry said of itself, for status.json."""
        return self._connection.manners.facts()

    async def repositories(self) -> tuple[str, ...]:
        question = Question("GET", endpoints.catalog(), {}, _OK | _NO_CATALOG, self._limits.answer_bytes, True)
        try:
            names = await self._names(question, "repositories")
        except AccessDenied:
            names = None
        if names is None:
            raise CatalogUnavailable(
                f"{self._connection.host} does not list its repositories",
                hint="write the name of one after it; in a mount enter it, or have it listed with --repo",
            )
        return tuple(sorted(names))

    async def tags(self, repository: str) -> tuple[str, ...]:
        question = Question("GET", endpoints.tags(repository), {}, _OK, self._limits.answer_bytes, True)
        return tuple(await self._names(question, "tags") or ())

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        question = Question("HEAD", endpoints.manifest(repository, tag), _ACCEPT, _OK | _NO_HEAD)
        answer = await self._connection.ask(question)
        known = replies.read_head(answer.headers) if answer.status == 200 else None
        return known or await self._get_by_tag(repository, question.target)

    async def _get_by_tag(self, repository: str, target: str) -> Descriptor:
        """For registries that refuse HEAD, or leave out what it is for."""
        raw = await self._tagged(repository, target)
        while len(self._came_along) >= _KEPT:
            del self._came_along[next(iter(self._came_along))]
        self._came_along[repository, raw.digest] = raw
        return Descriptor(raw.media_type, raw.digest, len(raw.body))

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        return await self._tagged(repository, endpoints.manifest(repository, tag))

    async def _tagged(self, repository: str, target: str) -> RawManifest:
        answer = await self._connection.ask(Question("GET", target, _ACCEPT, _OK, self._limits.manifest_bytes))
        digest = replies.read_digest(answer.headers)
        if digest is None:
            digest = digest_of_manifest(answer.body)
        try:
            verify_manifest(answer.body, digest)
        except IntegrityError:
            return await self.manifest(repository, digest)  # what came is not what was meant: asked for by its name
        return RawManifest(digest, answer.headers.get("content-type", ""), answer.body)

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        kept = self._came_along.pop((repository, digest), None)
        if kept is not None:
            return kept
        digest.hasher()  # what cannot be verified is not asked for
        target = endpoints.manifest(repository, digest)
        answer = await self._connection.ask(Question("GET", target, _ACCEPT, _OK, self._limits.manifest_bytes))
        verify_manifest(answer.body, digest)
        return RawManifest(digest, answer.headers.get("content-type", ""), answer.body)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        if self._has_referrers is not False:
            listed = await self._referrers_by_api(repository, digest)
            if listed is not None:
                return listed
        return await self._referrers_by_tag(repository, digest)

    async def _referrers_by_api(self, repository: str, digest: Digest) -> tuple[Descriptor, ...] | None:
        """None where the registry has no such API, which is remembered unless it has answered before."""
        target, headers = endpoints.referrers(repository, digest), {"Accept": endpoints.ACCEPT_INDEX}
        question = Question("GET", target, headers, _OK | _NO_REFERRERS, self._limits.answer_bytes, True)
        found: list[Descriptor] = []
        if not await self._pages(question, lambda page: self._take_referrers(found, page)):
            self._has_referrers = True
            return tuple(found)
        if self._has_referrers is None and not found:
            # A repository that is not there is refused with the same 404, and tells nothing of the registry.
            self._has_referrers = None if await self._is_unknown(repository) else False
        return None

    async def _is_unknown(self, repository: str) -> bool:
        question = Question("GET", endpoints.tags(repository), {}, _OK | {404}, self._limits.answer_bytes)
        return (await self._connection.ask(question)).status == 404

    async def _referrers_by_tag(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        target = endpoints.manifest(repository, endpoints.referrers_tag(digest))
        try:
            answer = await self._connection.ask(Question("GET", target, _ACCEPT, _OK, self._limits.manifest_bytes))
        except NotFound:
            return ()
        return _index(answer)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        target = endpoints.blob(repository, digest)
        try:
            answer = await self._connection.ask(Question("HEAD", target, {}))
            size = replies.read_size(answer.status, answer.headers)
        except RegistryFailed as error:
            # Addresses that are signed for GET refuse HEAD, and some registries do.
            if error.status is None or (error.status >= 500 and error.status not in _NO_HEAD):
                raise
            size = None
        if size is None:
            question = Question("GET", target, {"Range": "bytes=0-0"}, frozenset({200, 206, 416}))
            async with self._connection.stream(question) as opened:
                size = replies.read_size(opened.status_code, headers_of(opened))
        if size is None:
            raise Malformed(f"{self._connection.host} does not say how large {digest} is")
        return size

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        whole = start == 0 and stop == blob.size
        headers = {} if whole else {"Range": f"bytes={start}-{max(start, stop - 1)}"}
        question = Question("GET", endpoints.blob(blob.repository, blob.digest), headers, frozenset({200, 206, 416}))
        async with self._connection.stream(question) as answer:
            if answer.status_code != 416:
                yield _part(answer, blob, start, stop)
                return
        # A registry that knows no such range may still know the blob.
        async with self._connection.stream(replace(question, headers={}, allow=_OK)) as answer:
            yield _part(answer, blob, start, stop)

    def distrust(self, digest: Digest) -> bool:
        return False  # there is nobody else to ask

    async def _pages(self, question: Question, take: Callable[[Answer], None]) -> bool:
        """Hand each page of a list to `take`; whether a page was refused with one of the question's other statuses."""
        seen: set[str] = set()
        following: str | None = question.target
        while following is not None:
            if following in seen:
                raise Malformed(f"{self._connection.host} pages a list in circles")
            if len(seen) >= self._limits.pages:
                raise LimitExceeded(f"{self._connection.host} pages a list without end (limits.pages)")
            seen.add(following)
            page = await self._connection.ask(replace(question, target=following))
            if page.status != 200:
                return True
            take(page)
            following = self._connection.following(following, page.headers)
        return False

    async def _names(self, question: Question, member: str) -> list[str] | None:
        """A list to its end, each name once; None where it is refused.

        Some registries cut a list at the length that was asked for and name no further page (seen: go-containerregistry's). So a last
        page of just that length is asked for what follows, as long as something does.
        """
        names: dict[str, None] = {}
        page: list[str] = []

        def take(answer: Answer) -> None:
            page[:] = replies.read_names(answer.body, member)
            names.update(dict.fromkeys(page))
            if len(names) > self._limits.names:
                host, most = self._connection.host, self._limits.names
                raise LimitExceeded(f"{host} lists more than {most} {member} (limits.names)")

        if await self._pages(question, take):
            return None
        known = 0
        while len(page) == endpoints.PAGE and len(names) > known:
            known = len(names)
            more = replace(question, target=endpoints.following(question.target, page[-1]), allow=_OK | _NO_FURTHER)
            if await self._pages(more, take):
                break
        return list(names)

    def _take_referrers(self, found: list[Descriptor], page: Answer) -> None:
        found += _index(page)
        if len(found) > self._limits.referrers:
            host, most = self._connection.host, self._limits.referrers
            raise LimitExceeded(f"{host} lists more than {most} referrers of one digest (limits.referrers)")


class _Part:
    """A BlobStream over an answer: never more than was announced, an error when it is less."""

    def __init__(self, answer: httpx.Response, part: replies.Part, end: int | None) -> None:
        self.start = part.start
        self.total = part.total
        self._answer = answer
        self._end = end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        async with aclosing(pieces(self._answer)) as coming:
            async for piece in coming:
                note_progress()
                if self._end is not None and position + len(piece) > self._end:
                    if self._answer.status_code == 200:
                        raise IntegrityError("a blob is longer than was announced")
                    if position < self._end:
                        yield piece[: self._end - position]
                    return
                position += len(piece)
                yield piece
        if self._end is not None and position < self._end:
            raise Unreachable(f"the connection was lost after {position - self.start} bytes")


def _part(answer: httpx.Response, blob: Blob, start: int, stop: int) -> BlobStream:
    """What an answer gives of a blob. Raises IntegrityError where its headers tell of a blob of another size."""
    part = replies.read_part(answer.status_code, headers_of(answer), start)
    size = None if blob.size == UNKNOWN_SIZE else blob.size
    if part.total is not None and size is not None and part.total != size:
        raise IntegrityError(f"{blob.digest} is served with {part.total} bytes, its descriptor says {size}")
    if answer.status_code == 200:
        return _Part(answer, part, part.total if size is None else size)
    return _Part(answer, part, stop if part.stop is None else min(stop, part.stop))


def _index(answer: Answer) -> tuple[Descriptor, ...]:
    """The children of an index; another manifest refers to nothing. Raises Malformed for what is no JSON, or contradicts itself."""
    as_object(load_json(answer.body, "the list of referrers"), "the list of referrers")
    return parse_manifest(answer.body, Digest.of(answer.body), answer.headers.get("content-type", "")).manifests


@asynccontextmanager
async def open_registry(host: str | Site, settings: Settings) -> AsyncIterator[RegistryClient]:
    """A client for a registry, for as long as the block lasts. Nothing is asked to open it."""
    connection = Connection(Site(host) if isinstance(host, str) else host, settings)
    try:
        yield RegistryClient(connection)
    finally:
        await connection.aclose()
