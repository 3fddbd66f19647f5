"""Names with a time to live over any Catalog; manifests by digest for ever.

"Names expire, digests never do": a tag, a tag list or a catalog is believed for `tag_ttl`, that something is absent for `negative_ttl`, and
what was last known is written down, so that it stays readable with the registry gone.

Rules that hold here: one question at a time for each name, whoever asks; what was last known is used only where nobody could be asked,
never in place of an answer; after a failure to reach the registry the next questions wait for nobody, for a pause that grows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

import trio
from cachetools import TTLCache

from ocifs.concurrency import SingleFlight, patience
from ocifs.content import Catalog, RawManifest
from ocifs.errors import (
    CatalogUnavailable,
    IntegrityError,
    Malformed,
    NotFound,
    OcifsError,
    Unreachable,
)
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import verify_manifest
from ocifs.settings import Settings
from ocifs.store.disk import Disk
from ocifs.store.outage import OUTAGES, Outage

T = TypeVar("T")

log = logging.getLogger("ocifs.store")

_KEPT = 20_000  # names believed at a time
_ABOUT = {"tag": ":", "tags": "", "manifest": "@"}  # kinds of keys, and what ends a repository's name in them
_MANIFESTS = 512  # manifests held in memory


class CachedCatalog:
    """A Catalog that remembers."""

    def __init__(self, catalog: Catalog, host: str, disk: Disk, nursery: trio.Nursery, settings: Settings) -> None:
        self._catalog = catalog
        self._host = host
        self._disk = disk
        self._offline = settings.cache.offline
        clock = trio.current_time
        self._known: TTLCache[str, object] = TTLCache(_KEPT, settings.timing.tag_ttl, timer=clock)
        self._absent: TTLCache[str, OcifsError] = TTLCache(_KEPT, settings.timing.negative_ttl, timer=clock)
        self._manifests: TTLCache[tuple[str, Digest], RawManifest] = TTLCache(_MANIFESTS, 3600, timer=clock)
        self._flights: SingleFlight[str, object] = SingleFlight(nursery)
        self._outage = Outage(settings.timing.outage_pause)
        self._hurry = min(settings.timing.stale_after, settings.timing.timeout / 3)
        self._max_wait = settings.timing.max_wait
        self.on_answer: Callable[[], None] = lambda: None
        self.stale = False
        self._directory = disk.name(host, Digest.of(b"")).parent
        self._kept: tuple[str, ...] | None = None

    async def repositories(self) -> tuple[str, ...]:
        async def ask() -> tuple[str, ...]:
            known = await trio.to_thread.run_sync(lambda: next(self._directory.glob("*.json"), None))
            return await (self._catalog.repositories() if known is None else self._soon(self._catalog.repositories))

        try:
            listed = _names(await self._ask("catalog", ask))
        except OUTAGES:
            kept = await self._met()
            if not kept:
                raise
            self.stale = True
            return kept
        return tuple(sorted({*listed, *await self._met()})) if self.stale else listed

    async def _met(self) -> tuple[str, ...]:
        """The repositories that something is known of on disk, looked for once: a catalog that cannot be asked for hides none of them."""
        if self._kept is None:
            self._kept = await trio.to_thread.run_sync(_repositories_in, self._directory)
        return self._kept

    async def tags(self, repository: str) -> tuple[str, ...]:
        return _names(await self._ask(f"tags {repository}", lambda: self._catalog.tags(repository)))

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        key = f"tag {repository}:{tag}"
        media_type, digest, size = _triple(await self._ask(key, lambda: self._meaning(repository, tag)))
        return Descriptor(media_type, Digest.parse(digest), size)

    async def _meaning(self, repository: str, tag: str) -> list[object]:
        found = await self._catalog.resolve(repository, tag)
        return [found.media_type, str(found.digest), found.size]

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        """One request for a tag of which nothing is known; for another, what it means now and a manifest that may be here already."""
        key = f"tag {repository}:{tag}"
        known = key in self._known or await trio.to_thread.run_sync(self._last, key) is not None
        ask = self._meaning if known else self._bring
        _, digest, _ = _triple(await self._ask(key, lambda: ask(repository, tag)))
        return await self.manifest(repository, Digest.parse(digest))

    async def _bring(self, repository: str, tag: str) -> list[object]:
        raw = await self._catalog.tagged(repository, tag)
        self._manifests[repository, raw.digest] = raw
        await trio.to_thread.run_sync(self._keep_manifest, repository, raw)
        return [raw.media_type, str(raw.digest), len(raw.body)]

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        key = f"referrers {repository}@{digest}"
        known = self._known.get(key)
        if isinstance(known, tuple):
            return known
        found = await self._reach(lambda: self._catalog.referrers(repository, digest))
        self._known[key] = found
        return found

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        held = self._manifests.get((repository, digest))
        if held is None:
            held = await trio.to_thread.run_sync(self._manifest_on_disk, repository, digest)
            if held is None:
                key = f"manifest {repository}@{digest}"
                found = await self._flights.run(key, lambda: self._fetch_manifest(repository, digest))
                assert isinstance(found, RawManifest)
                held = found
            self._manifests[repository, digest] = held
        return held

    async def _fetch_manifest(self, repository: str, digest: Digest) -> RawManifest:
        raw = await self._reach(lambda: self._catalog.manifest(repository, digest))
        await trio.to_thread.run_sync(self._keep_manifest, repository, raw)
        return raw

    def _manifest_on_disk(self, repository: str, digest: Digest) -> RawManifest | None:
        """A manifest that this repository is known to have: its type is kept by repository, its bytes by digest."""
        kept = self._last(f"manifest {repository}@{digest}")
        body = self._disk.read(self._disk.whole(digest)) if isinstance(kept, str) else None
        if body is None:
            return None
        try:
            verify_manifest(body, digest)
        except IntegrityError:
            return None  # bit rot: the registry is asked again
        return RawManifest(digest, str(kept), body)

    def _keep_manifest(self, repository: str, raw: RawManifest) -> None:
        try:
            self._disk.keep(self._disk.whole(raw.digest), raw.body)
        except OcifsError as error:
            log.warning("a manifest could not be kept: %s", error)
            return
        self._write_down(f"manifest {repository}@{raw.digest}", raw.media_type)

    async def _ask(self, key: str, question: Callable[[], Awaitable[object]]) -> object:
        """What a name means: believed, asked for, or as it last was when nobody can be asked."""
        absent = self._absent.get(key)
        if absent is not None:
            raise absent
        if key in self._known:
            return self._known[key]
        return await self._flights.run(key, lambda: self._renew(key, question))

    async def _renew(self, key: str, question: Callable[[], Awaitable[object]]) -> object:
        last = await trio.to_thread.run_sync(self._last, key)
        try:
            found = await self._reach(question if last is None else lambda: self._soon(question))
        except (NotFound, CatalogUnavailable) as error:
            if isinstance(error.__cause__, OUTAGES) and last is not None:
                self.stale = True
                return last
            self._absent[key] = error
            if last is not None and isinstance(error, NotFound):
                await trio.to_thread.run_sync(self._forget, key)
            raise
        except OUTAGES:
            if last is None:
                raise
            self.stale = True
            return last
        self._known[key] = found
        await trio.to_thread.run_sync(self._write_down, key, found)
        return found

    async def _soon(self, question: Callable[[], Awaitable[T]]) -> T:
        """Ask who may be silent: where an answer is known from before, that is not waited for as long as where none is."""
        with patience(self._hurry, self._max_wait):
            return await question()
        raise AssertionError("patience raises when it ends")

    async def _reach(self, question: Callable[[], Awaitable[T]]) -> T:
        """Ask the registry, unless it could not be reached just now."""
        if self._offline:
            raise Unreachable(
                f"{self._host} is not asked, since --offline was given, and the cache does not know",
                hint="`ocifs prefetch` brings what is wanted while there is a network; without --offline the registry is asked",
            )
        found = await self._outage.ask(question)
        self.stale = False
        self.on_answer()
        return found

    def _last(self, key: str) -> object:
        body = self._disk.read(self._disk.name(self._host, Digest.of(key.encode())))
        try:
            kept = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            return None
        value = kept.get("value") if isinstance(kept, dict) and kept.get("key") == key else None
        return value if _fits(key, value) else None

    def _write_down(self, key: str, value: object) -> None:
        """Keep what a name means, for times without the registry; that it cannot be kept is no reason to keep it from who asked."""
        content = json.dumps({"host": self._host, "key": key, "value": value}).encode()
        try:
            self._disk.keep(self._disk.name(self._host, Digest.of(key.encode())), content)
        except OcifsError as error:
            log.warning("what %s means could not be kept: %s", key, error)

    def _forget(self, key: str) -> None:
        """The registry said that there is no such name: it must not come back when nobody can be asked."""
        try:
            self._disk.drop(self._disk.name(self._host, Digest.of(key.encode())))
        except OcifsError as error:
            log.warning("what %s meant could not be forgotten: %s", key, error)


def names_of(disk: Disk, host: str, repository: str, tag: str, digests: Iterable[Digest]) -> frozenset[str]:
    """Below `names/`, the paths of what is known of a tag (empty: none) and of manifests, whether it is known yet or not."""
    keys = [f"manifest {repository}@{digest}" for digest in digests] + ([f"tag {repository}:{tag}"] if tag else [])
    paths = [disk.name(host, Digest.of(key.encode())) for key in keys]
    return frozenset("/".join(path.parts[-2:]) for path in paths)


def _repositories_in(directory: Path) -> tuple[str, ...]:
    """The repositories that a host's kept names are about. Blocks."""
    found = set()
    for path in directory.glob("*.json"):
        try:
            kind, _, name = str(json.loads(path.read_bytes())["key"]).partition(" ")
        except (OSError, ValueError, RecursionError, TypeError, KeyError):
            continue
        if kind in _ABOUT:
            found.add(name.partition(_ABOUT[kind])[0] if _ABOUT[kind] else name)
    return tuple(sorted(found))


def _fits(key: str, value: object) -> bool:
    """Whether what was kept has the shape that its key calls for: the file may be damaged, or somebody else's."""
    if key.startswith("manifest "):
        return isinstance(value, str)
    if not isinstance(value, list):
        return False
    if key.startswith("tag "):
        return len(value) == 3 and [type(each) for each in value] == [str, str, int] and _is_digest(value[1])
    return all(isinstance(each, str) for each in value)


def _is_digest(text: str) -> bool:
    try:
        return Digest.parse(text).verifiable
    except Malformed:
        return False


def _names(value: object) -> tuple[str, ...]:
    assert isinstance(value, list | tuple)
    return tuple(value)


def _triple(value: object) -> tuple[str, str, int]:
    assert isinstance(value, list)
    media_type, digest, size = value
    return str(media_type), str(digest), int(size)
