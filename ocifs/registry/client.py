"""A registry as a Catalog and a BlobSource (distribution-spec).

Rules that hold here: what to ask is in `oci.endpoints` and what an answer means in `oci.replies`; lists are followed by their Link header
until there is none; a manifest is verified before it is given away; a blob is not, since whoever keeps it verifies it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

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
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import digest_of_manifest, parse_manifest, verify_manifest
from ocifs.registry.connection import Answer, Connection
from ocifs.registry.transport import pieces
from ocifs.settings import Settings

_ACCEPT = {"Accept": endpoints.ACCEPT_MANIFESTS}
_KEPT = 32  # manifests that came along with a tag and are kept until they are asked for by digest


class RegistryClient:
    """One registry. Use `open_registry`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._came_along: dict[Digest, RawManifest] = {}

    async def repositories(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(set(await self._names(endpoints.catalog(), "repositories"))))
        except (AccessDenied, NotFound, RegistryFailed) as error:
            if isinstance(error, RegistryFailed) and "answered 405" not in str(error):
                raise
            raise CatalogUnavailable(f"{self._connection.host} does not list its repositories") from None

    async def tags(self, repository: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(await self._names(endpoints.tags(repository), "tags")))

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        target = endpoints.manifest(repository, tag)
        answer = await self._connection.ask("HEAD", target, _ACCEPT, 0, allow=frozenset({200, 405}))
        known = replies.read_head(answer.headers) if answer.status == 200 else None
        return known or await self._get_by_tag(target)

    async def _get_by_tag(self, target: str) -> Descriptor:
        """For registries that refuse HEAD, or leave out what it is for."""
        answer = await self._connection.ask("GET", target, _ACCEPT, self._limits.manifest_bytes)
        digest = digest_of_manifest(answer.body)
        raw = RawManifest(digest, answer.headers.get("content-type", ""), answer.body)
        while len(self._came_along) >= _KEPT:
            del self._came_along[next(iter(self._came_along))]
        self._came_along[digest] = raw
        return Descriptor(raw.media_type, digest, len(raw.body))

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        kept = self._came_along.pop(digest, None)
        if kept is not None:
            return kept
        digest.hasher()  # what cannot be verified is not asked for
        answer = await self._connection.ask(
            "GET", endpoints.manifest(repository, digest), _ACCEPT, self._limits.manifest_bytes
        )
        verify_manifest(answer.body, digest)
        return RawManifest(digest, answer.headers.get("content-type", ""), answer.body)

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        headers = {"Accept": endpoints.ACCEPT_INDEX}
        target: str | None = endpoints.referrers(repository, digest)
        found: list[Descriptor] = []
        try:
            while target is not None and len(found) < self._limits.referrers:
                answer = await self._connection.ask("GET", target, headers, self._limits.answer_bytes)
                found += _index(answer)
                target = replies.next_page(self._connection.origin + target, answer.headers)
        except NotFound:
            return await self._referrers_by_tag(repository, digest)
        return tuple(found[: self._limits.referrers])

    async def _referrers_by_tag(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        target = endpoints.manifest(repository, endpoints.referrers_tag(digest))
        try:
            answer = await self._connection.ask("GET", target, _ACCEPT, self._limits.manifest_bytes)
        except NotFound:
            return ()
        return _index(answer)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        target = endpoints.blob(repository, digest)
        answer = await self._connection.ask("HEAD", target, {}, 0)
        length = answer.headers.get("content-length", "")
        if length.isdigit():
            return int(length)
        answer = await self._connection.ask("GET", target, {"Range": "bytes=0-0"}, 1, allow=frozenset({206}))
        total = replies.read_part(206, answer.headers, 0).total
        if total is None:
            raise Malformed(f"{self._connection.host} does not say how large {digest} is")
        return total

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        target = endpoints.blob(blob.repository, blob.digest)
        whole = start == 0 and stop == blob.size
        headers = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        allowed = frozenset({200, 206, 416})
        async with self._connection.stream("GET", target, headers, allowed) as answer:
            if answer.status_code != 416:
                yield self._part(answer, start, stop)
                return
        # A registry that knows no such range may still know the blob.
        async with self._connection.stream("GET", target, {}, frozenset({200})) as answer:
            yield self._part(answer, start, stop)

    def _part(self, answer: httpx.Response, start: int, stop: int) -> BlobStream:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        part = replies.read_part(answer.status_code, headers, start)
        end = stop if answer.status_code == 206 else part.total
        return _Part(answer, part, end)

    async def _names(self, target: str, member: str) -> list[str]:
        names: list[str] = []
        seen: set[str] = set()
        following: str | None = target
        while following is not None:
            if following in seen or len(seen) >= self._limits.pages:
                raise Malformed(f"{self._connection.host} pages its list of {member} without end (limits.pages)")
            seen.add(following)
            answer = await self._connection.ask("GET", following, {}, self._limits.answer_bytes)
            names += replies.read_names(answer.body, member)
            if len(names) > self._limits.names:
                raise LimitExceeded(
                    f"{self._connection.host} lists more than {self._limits.names} {member} (limits.names)"
                )
            following = replies.next_page(self._connection.origin + following, answer.headers)
        return names


class _Part:
    """A BlobStream over an answer: never more than was announced, an error when it is less."""

    def __init__(self, answer: httpx.Response, part: replies.Part, end: int | None) -> None:
        self.start = part.start
        self.total = part.total
        self._answer = answer
        self._end = end if part.stop is None or end is None else min(end, part.stop)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        async for piece in pieces(self._answer):
            if self._end is not None and position + len(piece) > self._end:
                if self._answer.status_code == 200:
                    raise IntegrityError("a blob is longer than was announced")
                yield piece[: self._end - position]
                return
            position += len(piece)
            yield piece
        if self._end is not None and position < self._end:
            raise Unreachable(f"the connection was lost after {position - self.start} bytes")


def _index(answer: Answer) -> tuple[Descriptor, ...]:
    """The children of an index; what is none refers to nothing (distribution-spec "Referrers Tag Schema")."""
    try:
        return parse_manifest(answer.body, Digest.of(answer.body), answer.headers.get("content-type", "")).manifests
    except Malformed:
        return ()


@asynccontextmanager
async def open_registry(host: str, settings: Settings) -> AsyncIterator[RegistryClient]:
    """A client for a registry, for as long as the block lasts. Nothing is asked to open it."""
    connection = Connection(host, settings)
    try:
        yield RegistryClient(connection)
    finally:
        await connection.aclose()
