"""The clients for the endpoints of one registry, each with its health.

`MirroredRegistry` has one `Upstreams`. State: a client for each endpoint, opened with its first use
and closed with the exit stack of the registry.

- Opening a client sends no request.
- A mirror has short timeouts and a single attempt for each request, since there are other
  endpoints. The last endpoint has those of the settings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from ocifs.content import BlobStream
from ocifs.errors import OcifsError
from ocifs.registry.auth.source import CredentialSources
from ocifs.registry.client import RegistryClient, open_registry
from ocifs.registry.config.endpoint import Endpoint, Route
from ocifs.registry.mirrors.health import Health
from ocifs.settings import Settings


@dataclass(eq=False, slots=True)
class Upstream:
    """An endpoint with its client and its health. `own`: it is the registry itself."""

    endpoint: Endpoint
    own: bool
    client: RegistryClient
    health: Health


class Upstreams:
    """The upstreams of one registry."""

    def __init__(
        self, settings: Settings, sources: CredentialSources, stack: AsyncExitStack
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._stack = stack
        self._opened: dict[tuple[Endpoint, bool], Upstream] = {}

    async def get(self, route: Route, *, is_last: bool) -> Upstream:
        """The upstream of a route. `is_last`: no other endpoint is tried after it."""
        key = (route.endpoint, route.own)
        if key not in self._opened:
            settings = _with_dial_timeout(self._settings, route.endpoint)
            if not is_last:
                settings = _impatient(settings, route.endpoint)
            client = open_registry(route.endpoint, settings, self._sources)
            health = Health(route.own, settings.timing)
            # Entering has no checkpoint, so two tasks cannot both open a client.
            opened = await self._stack.enter_async_context(client)
            self._opened[key] = Upstream(route.endpoint, route.own, opened, health)
        return self._opened[key]

    def is_strained(self) -> bool:
        """Whether one of the endpoints in use limits requests."""
        return any(upstream.client.is_strained() for upstream in self._opened.values())

    def facts(self) -> dict[str, object]:
        """The registry's own warnings and the state of each endpoint, for status.json."""
        facts: dict[str, object] = {"rate_limits": {}, "warnings": []}
        endpoints = []
        for upstream in self._opened.values():
            role = "registry" if upstream.own else "mirror"
            endpoints.append(
                {"url": str(upstream.endpoint), "role": role, **upstream.health.facts()}
            )
            if upstream.own:
                facts.update(upstream.client.facts())
        return {**facts, "endpoints": endpoints}


class CountedStream:
    """A blob stream that records its bytes and its outcome in the upstream's health."""

    def __init__(self, stream: BlobStream, upstream: Upstream) -> None:
        self.start, self.stop, self.total = stream.start, stream.stop, stream.total
        self._stream = stream
        self._health = upstream.health

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                self._health.bytes += len(piece)
                yield piece
            # Only a complete body ends a pause: a mirror that stalls within bodies must be skipped
            # for longer each time.
            self._health.record_success()
        except OcifsError as error:
            self._health.record_failure(error, streaming=True)
            raise


def _impatient(settings: Settings, endpoint: Endpoint) -> Settings:
    """The settings for an endpoint that is not the last: short timeouts, one attempt."""
    timing = settings.timing
    connect = endpoint.connect_timeout or min(timing.connect_timeout, timing.mirror_timeout)
    # A probe also connects, so it must not end before the configured `dial_timeout`.
    probe = max(timing.mirror_timeout, connect)
    return replace(
        settings,
        timing=replace(timing, connect_timeout=connect, mirror_timeout=probe),
        limits=replace(settings.limits, retries=1),
    )


def _with_dial_timeout(settings: Settings, endpoint: Endpoint) -> Settings:
    """The settings with an endpoint's `dial_timeout` (docs/hosts.md), at most --max-wait."""
    if endpoint.connect_timeout is None:
        return settings
    connect = min(endpoint.connect_timeout, settings.timing.max_wait)
    return replace(settings, timing=replace(settings.timing, connect_timeout=connect))
