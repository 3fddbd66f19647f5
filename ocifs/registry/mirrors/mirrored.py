"""A registry and its mirrors as one Catalog and one BlobSource: each question goes to the first who
may answer it, then to the next.

Rules that hold here: the registry itself is asked last and its word is final, so that what a mirror
lacks is not absent; lists are the registry's alone; a mirror shows that it is there before anything
waits for it, and one that failed is left alone for a pause that grows, so that it costs its time
once; credentials are those of the host that is asked; who served bytes that were wrong is not asked
for that digest again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

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
from ocifs.registry.client import RegistryClient, open_registry
from ocifs.registry.config.endpoint import Endpoint, Route
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.mirrors.health import Health
from ocifs.settings import Settings

T = TypeVar("T")

_OUTAGES = (Unreachable, DeadlineExceeded, RegistryFailed)
_DIGESTS = 4096  # digests of which it is remembered who served them


@dataclass(eq=False, slots=True)
class Upstream:
    """A site that may answer, how it is, and the client that asks it."""

    site: Endpoint
    own: bool
    client: RegistryClient
    health: Health


class MirroredRegistry:
    """A registry with its mirrors. Use `open_mirrored`."""

    def __init__(
        self, host: str, locations: RouteTable, settings: Settings, stack: AsyncExitStack
    ) -> None:
        self.host = host
        self._locations = locations
        self._settings = replace(settings, network=locations.complete(settings.network))
        self._stack = stack
        self._upstreams: dict[tuple[Endpoint, bool], Upstream] = {}
        self._served: dict[Digest, set[Upstream]] = {}
        self._distrusted: dict[Digest, set[Upstream]] = {}
        self._by_tag_only: dict[str, Route] = {}
        self._identities: dict[frozenset[PresentedIdentity], str] = {}

    @property
    def has_mirrors(self) -> bool:
        """Whether anything of it may be answered by another registry."""
        return self._locations.has_mirrors(self.host)

    async def admit(self, repository: str) -> None:
        """Ask the registry itself, once, whether a repository (empty: all of it) can be read.

        Raises as `RegistryClient.admit`.
        """
        for endpoint in (await self._own(repository))[-1:]:
            upstream = await self._upstream(endpoint, patient=True)
            await upstream.client.admit(endpoint.repository)

    async def repositories(self) -> tuple[str, ...]:
        within, names = await self._listed(lambda client: client.repositories())
        return _below(within, names)

    async def brief_list(self) -> tuple[str, ...] | None:
        within, names = await self._listed(lambda client: client.brief_list())
        return None if names is None else _below(within, names)

    async def _listed(self, work: Callable[[RegistryClient], Awaitable[T]]) -> tuple[str, T]:
        """The registry's own list, and the namespace in it that this registry stands for."""
        endpoints = await self._locations.endpoints(self.host, "")
        within = {each.site: each.repository for each in endpoints}
        own = [each for each in endpoints if each.own]
        try:
            upstream, names = await self._first(own, lambda upstream, _: work(upstream.client))
        except _OUTAGES as error:
            if not self.has_mirrors:
                raise
            raise CatalogUnavailable(f"{error}; its mirrors are not asked for lists") from error
        return within[upstream.site], names

    async def tags(self, repository: str) -> tuple[str, ...]:
        endpoints = await self._own(repository)
        return (await self._first(endpoints, lambda upstream, there: upstream.client.tags(there)))[
            1
        ]

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        return await self._by_tag(
            repository, tag, lambda upstream, there: upstream.client.resolve(there, tag)
        )

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        endpoints = await self._locations.endpoints(self.host, repository, f":{tag}")
        if any(
            each.by_digest and not each.by_tag for each in endpoints
        ):  # a mirror may have what the registry only names
            return await self.manifest(repository, (await self.resolve(repository, tag)).digest)
        return await self._by_tag(
            repository, tag, lambda upstream, there: upstream.client.tagged(there, tag)
        )

    async def _by_tag(
        self, repository: str, tag: str, work: Callable[[Upstream, str], Awaitable[T]]
    ) -> T:
        endpoints = await self._locations.endpoints(self.host, repository, f":{tag}")
        asked = [each for each in endpoints if each.by_tag]
        upstream, found = await self._first(asked, work)
        through = next(each for each in asked if each.site == upstream.site)
        if not through.by_digest:
            self._by_tag_only[repository] = through
        return found

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        endpoints = await self._by_digest(repository, digest, f"@{digest}")
        return (
            await self._first(
                endpoints, lambda upstream, there: upstream.client.manifest(there, digest)
            )
        )[1]

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        endpoints = await self._own(repository)
        return (
            await self._first(
                endpoints, lambda upstream, there: upstream.client.referrers(there, digest)
            )
        )[1]

    async def blob_size(self, repository: str, digest: Digest) -> int:
        endpoints = await self._by_digest(repository, digest)
        return (
            await self._first(
                endpoints, lambda upstream, there: upstream.client.blob_size(there, digest)
            )
        )[1]

    @asynccontextmanager
    async def open_blob(self, blob: Blob, start: int, stop: int) -> AsyncIterator[BlobStream]:
        endpoints = await self._by_digest(blob.repository, blob.digest)
        async with AsyncExitStack() as stack:

            async def work(upstream: Upstream, there: str) -> BlobStream:
                opened = upstream.client.open_blob(replace(blob, repository=there), start, stop)
                return await stack.enter_async_context(opened)

            upstream, stream = await self._first(endpoints, work, begun=True)
            self._remember(blob.digest, upstream)
            yield _Served(stream, upstream)

    async def identity(self, repository: str) -> str:
        """Who the registry and its mirrors take us for (identity.py).

        Asks none of them anything.
        """
        endpoints = await self._locations.endpoints(self.host, repository)
        last = next((each for each in reversed(endpoints) if each.own), None)
        proofs = []
        for endpoint in endpoints:
            upstream = await self._upstream(endpoint, patient=endpoint is last)
            proofs.append(
                PresentedIdentity(
                    endpoint.site, await upstream.client.credential(endpoint.repository)
                )
            )
        key = frozenset(proofs)
        if key not in self._identities:
            self._identities[key] = await in_thread(identity_of, proofs)
        return self._identities[key]

    def report_corrupt(self, digest: Digest) -> bool:
        served = self._served.pop(digest, set())
        known = self._distrusted.setdefault(digest, set())
        wrong = {upstream for upstream in served if not upstream.own} - known
        for upstream in wrong:
            upstream.health.lied(f"what it served for {digest} has other content")
        known |= wrong
        while len(self._distrusted) > _DIGESTS:
            del self._distrusted[next(iter(self._distrusted))]
        return bool(wrong)

    def facts(self) -> dict[str, object]:
        """For status.json: what the registry says of itself, then who may answer, how each is and
        what it served.
        """
        told: dict[str, object] = {
            "rate_limits": {},
            "warnings": [],
        }  # until the registry itself was asked
        endpoints = []
        for each in self._upstreams.values():
            endpoints.append(
                {
                    "url": str(each.site),
                    "role": "registry" if each.own else "mirror",
                    **each.health.facts(),
                }
            )
            if each.own:
                told.update(each.client.facts())
        return {**told, "endpoints": endpoints}

    async def _own(self, repository: str) -> list[Route]:
        return [each for each in await self._locations.endpoints(self.host, repository) if each.own]

    async def _by_digest(self, repository: str, digest: Digest, version: str = "") -> list[Route]:
        """Who may be asked by digest; after all of them the mirror that says what tags mean and
        should not be asked without need.
        """
        endpoints = await self._locations.endpoints(self.host, repository, version)
        liars = {upstream.site for upstream in self._distrusted.get(digest, ())}
        last = self._by_tag_only.get(repository)
        asked = [each for each in endpoints if each.by_digest] + ([last] if last else [])
        return [each for each in asked if each.own or each.site not in liars]

    async def _first(
        self,
        endpoints: list[Route],
        work: Callable[[Upstream, str], Awaitable[T]],
        *,
        begun: bool = False,
    ) -> tuple[Upstream, T]:
        """The first answer, and who gave it; `begun`: most of it is to come.

        Without one: what the registry said, or why it did not.
        """
        several = len(endpoints) > 1 or self.has_mirrors
        last = next((each for each in reversed(endpoints) if each.own), None)
        verdict: OcifsError | None = None
        others: list[OcifsError] = []
        for endpoint in endpoints:
            if endpoint.own and verdict is not None and not isinstance(verdict, _OUTAGES):
                continue
            upstream = await self._upstream(endpoint, patient=endpoint is last)
            try:
                if several:
                    await upstream.health.ready(upstream.client.check)
                with upstream.health.question(begun):
                    return upstream, await work(upstream, endpoint.repository)
            except OcifsError as error:
                if endpoint.own:
                    verdict = error
                else:
                    others.append(error)
        if verdict is not None:
            raise verdict
        raise _without_the_registry(self.host, others)

    async def _upstream(self, endpoint: Route, *, patient: bool) -> Upstream:
        key = (endpoint.site, endpoint.own)
        if key not in self._upstreams:
            settings = _with_dial_timeout(self._settings, endpoint.site)
            settings = settings if patient else _for_a_mirror(settings, endpoint.site)
            client = await self._stack.enter_async_context(open_registry(endpoint.site, settings))
            self._upstreams[key] = Upstream(
                endpoint.site, endpoint.own, client, Health(endpoint.own, settings.timing)
            )
        return self._upstreams[key]

    def _remember(self, digest: Digest, upstream: Upstream) -> None:
        self._served.setdefault(digest, set()).add(upstream)
        while len(self._served) > _DIGESTS:
            del self._served[next(iter(self._served))]


class _Served:
    """A stream of which it is noted who serves it."""

    def __init__(self, stream: BlobStream, upstream: Upstream) -> None:
        self.start, self.total = stream.start, stream.total
        self._stream = stream
        self._upstream = upstream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        health = self._upstream.health
        try:
            async for piece in self._stream:
                health.bytes += len(piece)
                yield piece
            health.well()
        except OcifsError as error:
            health.failed(error, answering=True)
            raise


def _below(namespace: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names below a namespace, without it."""
    prefix = f"{namespace}/" if namespace else ""
    return tuple(
        name.removeprefix(prefix) for name in names if name.startswith(prefix) and name != prefix
    )


def _for_a_mirror(settings: Settings, site: Endpoint) -> Settings:
    """A mirror is not waited for long, nor asked twice: others can be asked."""
    timing = settings.timing
    connect = site.connect_timeout or min(timing.connect_timeout, timing.mirror_timeout)
    return replace(
        settings,
        timing=replace(
            timing, connect_timeout=connect, mirror_timeout=max(timing.mirror_timeout, connect)
        ),
        limits=replace(settings.limits, retries=1),
    )


def _with_dial_timeout(settings: Settings, site: Endpoint) -> Settings:
    """The settings with a site's own `dial_timeout` (containerd docs/hosts.md), at most --max-wait."""
    if site.connect_timeout is None:
        return settings
    connect = min(site.connect_timeout, settings.timing.max_wait)
    return replace(settings, timing=replace(settings.timing, connect_timeout=connect))


def _without_the_registry(host: str, others: list[OcifsError]) -> OcifsError:
    """What to say when only mirrors might be asked, and none had it: that they lack it does not
    make it absent.
    """
    told: Iterator[OcifsError] = (
        error for error in others if not isinstance(error, NotFound | IntegrityError)
    )
    return next(
        told, Unreachable(f"no mirror of {host} has it, and {host} itself may not be asked for it")
    )


@asynccontextmanager
async def open_mirrored(
    host: str, locations: RouteTable, settings: Settings
) -> AsyncIterator[MirroredRegistry]:
    """A registry with its mirrors, for as long as the block lasts.

    Nothing is asked to open it. Raises UsageError.
    """
    await locations.prepare(host)
    async with AsyncExitStack() as stack:
        yield MirroredRegistry(host, locations, settings, stack)
