"""A registry and its mirrors as one Catalog and one BlobSource.

`app` opens one `MirroredRegistry` for each registry of a mount; the store's caches call it from the
tasks of readers. Each request is sent along the routes of its repository (`RouteTable`), in order,
until one succeeds.

State: the upstreams with their health, which upstream served which digest, and which of them served
corrupt content.

- The registry itself comes last, and its answer is final. A mirror's 404 does not mean absence.
- Lists come from the registry alone.
- A mirror is probed before its first request, and skipped after a failure (`health`).
- Each endpoint gets the credentials for its own host.
- An endpoint that has served corrupt content is not used again for this digest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from cachetools import LRUCache

from ocifs.concurrency import in_thread
from ocifs.content import Blob, BlobStream, RawManifest
from ocifs.errors import (
    CatalogUnavailable,
    DeadlineExceeded,
    IntegrityError,
    NotFound,
    OcifsError,
    RegistryFailed,
    Unreachable,
)
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.registry.auth.identity import PresentedIdentity, identity_of
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.client import RegistryClient
from ocifs.registry.config.endpoint import Endpoint, Route
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.mirrors.upstream import CountedStream, Upstream, Upstreams
from ocifs.settings import Settings

T = TypeVar("T")

_OUTAGES = (Unreachable, DeadlineExceeded, RegistryFailed)
# Bounds of the caches: digests with their upstreams, repositories with a mirror for tags, hashes of
# credentials.
_DIGESTS = 4096
_REPOSITORIES = 4096
_IDENTITIES = 256


class MirroredRegistry:
    """A registry with its mirrors. Use `open_mirrored`."""

    def __init__(self, host: str, routes: RouteTable, upstreams: Upstreams) -> None:
        self.host = host
        self._routes = routes
        self._upstreams = upstreams
        self._served: LRUCache[Digest, set[Upstream]] = LRUCache(_DIGESTS)
        self._corrupt: LRUCache[Digest, set[Endpoint]] = LRUCache(_DIGESTS)
        self._tag_mirrors: LRUCache[str, Route] = LRUCache(_REPOSITORIES)
        self._identities: LRUCache[frozenset[PresentedIdentity], str] = LRUCache(_IDENTITIES)

    @property
    def has_mirrors(self) -> bool:
        """Whether another registry may serve any part of it."""
        return self._routes.has_mirrors(self.host)

    async def admit(self, repository: str) -> None:
        """Check with one request to the registry itself that a repository can be read.

        An empty repository means the registry. Raises as `RegistryClient.admit`.
        """
        for route in (await self._own_routes(repository))[-1:]:
            upstream = await self._upstreams.get(route, is_last=True)
            await upstream.client.admit(route.repository)

    async def repositories(self) -> tuple[str, ...]:
        namespace, names = await self._list(lambda client: client.repositories())
        return _names_below(namespace, names)

    async def brief_list(self) -> tuple[str, ...] | None:
        namespace, names = await self._list(lambda client: client.brief_list())
        return None if names is None else _names_below(namespace, names)

    async def _list(self, work: Callable[[RegistryClient], Awaitable[T]]) -> tuple[str, T]:
        """The registry's own list, and the namespace in it that represents this registry."""
        routes = await self._own_routes("")
        namespaces = {route.endpoint: route.repository for route in routes}
        try:
            upstream, names = await self._first(routes, lambda upstream, _: work(upstream.client))
        except _OUTAGES as error:
            if not self.has_mirrors:
                raise
            # Names can then still be entered, and mirrors serve their content
            # (docs/decisions/0070).
            raise CatalogUnavailable(f"{error}; mirrors do not serve lists") from error
        return namespaces[upstream.endpoint], names

    async def tags(self, repository: str) -> tuple[str, ...]:
        routes = await self._own_routes(repository)
        return (await self._first(routes, lambda upstream, name: upstream.client.tags(name)))[1]

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        return await self._by_tag(
            repository, tag, lambda upstream, name: upstream.client.resolve(name, tag)
        )

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        routes = await self._routes.routes(self.host, repository, f":{tag}")
        if any(route.by_digest and not route.by_tag for route in routes):
            # The registry resolves the tag, and a mirror may have the manifest.
            return await self.manifest(repository, (await self.resolve(repository, tag)).digest)
        return await self._by_tag(
            repository, tag, lambda upstream, name: upstream.client.tagged(name, tag)
        )

    async def _by_tag(
        self, repository: str, tag: str, work: Callable[[Upstream, str], Awaitable[T]]
    ) -> T:
        routes = await self._routes.routes(self.host, repository, f":{tag}")
        routes = tuple(route for route in routes if route.by_tag)
        upstream, result = await self._first(routes, work)
        used = next(route for route in routes if route.endpoint == upstream.endpoint)
        if not used.by_digest:
            self._tag_mirrors[repository] = used
        return result

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        routes = await self._digest_routes(repository, digest, f"@{digest}")
        _, manifest = await self._first(
            routes, lambda upstream, name: upstream.client.manifest(name, digest)
        )
        return manifest

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        routes = await self._own_routes(repository)
        _, referrers = await self._first(
            routes, lambda upstream, name: upstream.client.referrers(name, digest)
        )
        return referrers

    async def blob_size(self, repository: str, digest: Digest) -> int:
        routes = await self._digest_routes(repository, digest)
        _, size = await self._first(
            routes, lambda upstream, name: upstream.client.blob_size(name, digest)
        )
        return size

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        routes = await self._digest_routes(blob.repository, blob.digest)
        async with AsyncExitStack() as stack:

            async def work(upstream: Upstream, name: str) -> BlobStream:
                stream = upstream.client.open_blob(replace(blob, repository=name), start, stop)
                return await stack.enter_async_context(stream)

            upstream, stream = await self._first(routes, work, streaming=True)
            self._served.setdefault(blob.digest, set()).add(upstream)
            yield CountedStream(stream, upstream)

    async def identity(self, repository: str) -> str:
        """The name of the credentials for a repository (`auth.identity`). Sends no request."""
        routes = await self._routes.routes(self.host, repository)
        last = next((route for route in reversed(routes) if route.own), None)
        identities = []
        for route in routes:
            # Later requests use the client that is opened here, so its timeouts are those of
            # `_first`.
            upstream = await self._upstreams.get(route, is_last=route is last)
            credential = await upstream.client.credential(route.repository)
            identities.append(PresentedIdentity(route.endpoint, credential))
        key = frozenset(identities)
        if key not in self._identities:
            self._identities[key] = await in_thread(identity_of, identities)
        return self._identities[key]

    def report_corrupt(self, digest: Digest) -> bool:
        """Exclude the mirrors that served a digest. Returns whether there was a new one."""
        served = self._served.pop(digest, set())
        excluded = self._corrupt.get(digest) or set()
        mirrors = [one for one in served if not (one.own or one.endpoint in excluded)]
        for upstream in mirrors:
            upstream.health.record_corrupt(f"served content that does not match {digest}")
        if mirrors:
            self._corrupt[digest] = excluded | {upstream.endpoint for upstream in mirrors}
        return bool(mirrors)

    def is_strained(self) -> bool:
        return self._upstreams.is_strained()

    def facts(self) -> dict[str, object]:
        """The state of the registry and its endpoints, for status.json."""
        return self._upstreams.facts()

    async def _own_routes(self, repository: str) -> Sequence[Route]:
        routes = await self._routes.routes(self.host, repository)
        return [route for route in routes if route.own]

    async def _digest_routes(
        self, repository: str, digest: Digest, version: str = ""
    ) -> Sequence[Route]:
        """The routes for content by digest.

        The last one is a mirror for tags that has resolved a tag of the repository. It may be the
        only one with the content, and is not meant for content.
        """
        routes = await self._routes.routes(self.host, repository, version)
        excluded = self._corrupt.get(digest) or set()
        tag_mirror = self._tag_mirrors.get(repository)
        candidates = [route for route in routes if route.by_digest]
        candidates += [tag_mirror] if tag_mirror else []
        return [route for route in candidates if route.own or route.endpoint not in excluded]

    async def _first(
        self,
        routes: Sequence[Route],
        work: Callable[[Upstream, str], Awaitable[T]],
        *,
        streaming: bool = False,
    ) -> tuple[Upstream, T]:
        """The first result, and its upstream.

        `streaming`: the body follows. Raises the registry's own error if every route fails.
        """
        # A single endpoint is not probed or paused: the store's outage does that.
        is_probed = len(routes) > 1 or self.has_mirrors
        last = next((route for route in reversed(routes) if route.own), None)
        verdict: OcifsError | None = None
        failures: list[OcifsError] = []
        for route in routes:
            # The registry may have two routes, by TLS and without. The second one is tried only if
            # the first could not be reached.
            if route.own and verdict is not None and not isinstance(verdict, _OUTAGES):
                continue
            upstream = await self._upstreams.get(route, is_last=route is last)
            try:
                if is_probed:
                    await upstream.health.wait_ready(upstream.client.check)
                with upstream.health.track(streaming=streaming):
                    return upstream, await work(upstream, route.repository)
            except OcifsError as error:
                if route.own:
                    verdict = error
                else:
                    failures.append(error)
        if verdict is not None:
            raise verdict
        raise _mirrors_failed(self.host, failures)


def _names_below(namespace: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names below a namespace, without it."""
    prefix = f"{namespace}/" if namespace else ""
    return tuple(
        name.removeprefix(prefix) for name in names if name.startswith(prefix) and name != prefix
    )


def _mirrors_failed(host: str, failures: list[OcifsError]) -> OcifsError:
    """The error if the registry itself may not be used and every mirror failed.

    Content that the mirrors lack is not absent.
    """
    outages = (error for error in failures if not isinstance(error, NotFound | IntegrityError))
    message = f"no mirror of {host} has the content, and {host} itself does not serve it"
    return next(outages, Unreachable(message))


@asynccontextmanager
async def open_mirrored(
    host: str, routes: RouteTable, settings: Settings, sources: CredentialSources
) -> AsyncIterator[MirroredRegistry]:
    """A registry with its mirrors, for the duration of the block.

    Sends no request. Raises UsageError for an invalid configuration of the host.
    """
    await routes.prepare(host)
    async with AsyncExitStack() as stack:
        yield MirroredRegistry(host, routes, Upstreams(settings, sources, stack))
