"""Names with a time to live over any Catalog; manifests by digest for ever.

"Names expire, digests never do": a tag, a tag list or a catalog is believed for `tag_ttl`, that
something is absent for `negative_ttl`, and what was last known is written down, so that it stays
readable with the registry gone.

Rules that hold here:

- There is one question at a time for each name, whoever asks.
- What was last known is used only if the registry could not be asked, never in place of an answer.
- What is on disk belongs to the credential that the registry answered (`owner`); others have to
  ask. The credential of a repository is looked up once, so a mount keeps the one that it began
  with.
- After a failure to reach the registry the next questions fail at once, for a pause that grows.
  After a failure of the registry's own (5xx) only the same question does, or its kind if several
  have failed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio
from cachetools import LRUCache, TTLCache

from ocifs.concurrency import SingleFlight, in_thread, note_progress, patience
from ocifs.content import Catalog, RawManifest
from ocifs.errors import (
    CatalogUnavailable,
    IntegrityError,
    NotFound,
    OcifsError,
    RateLimited,
    Unreachable,
)
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import verify_manifest
from ocifs.settings import Settings
from ocifs.store.disk import Disk
from ocifs.store.names.files import NameFiles
from ocifs.store.names.outage import OUTAGES, Failures, Outage

T = TypeVar("T")

log = logging.getLogger("ocifs.store")

_KEPT = 20_000  # names believed at a time
_MANIFESTS = 512  # manifests held in memory


class CachedCatalog:
    """A Catalog that remembers."""

    def __init__(
        self, catalog: Catalog, host: str, disk: Disk, nursery: trio.Nursery, settings: Settings
    ) -> None:
        self._catalog = catalog
        self.host = host
        self._disk = disk
        self._offline = settings.cache.offline
        clock = trio.current_time
        self._known: TTLCache[str, object] = TTLCache(_KEPT, settings.timing.tag_ttl, timer=clock)
        self._absent: TTLCache[str, OcifsError] = TTLCache(
            _KEPT, settings.timing.negative_ttl, timer=clock
        )
        self._manifests: TTLCache[tuple[str, Digest], RawManifest] = TTLCache(
            _MANIFESTS, 3600, timer=clock
        )
        self._flights: SingleFlight[str, object] = SingleFlight(nursery)
        self._outage = Outage(settings.timing.outage_pause, settings.timing.timeout / 2)
        self._slow = Outage(
            settings.timing.outage_pause
        )  # for names with an answer from before, which are not waited for
        self._failures = Failures(settings.timing.outage_pause)
        self._hurry = min(settings.timing.stale_after, settings.timing.timeout / 3)
        self._max_wait = settings.timing.max_wait
        self.on_answer: Callable[[], None] = lambda: None
        self.stale = False
        self.catalog_error = ""
        self.identify: Callable[[str], Awaitable[str]] = _nobody
        """Who the registry takes us for, by repository (empty: the catalog). Called once for each."""
        self._owners: LRUCache[str, str] = LRUCache(_KEPT)
        self._files = NameFiles(disk, host)
        self._fresh = settings.cache.believe_names
        self._kept: tuple[str, ...] | None = None

    async def _owner(self, repository: str) -> str:
        if repository not in self._owners:
            self._owners[repository] = await self.identify(repository)
        return self._owners[repository]

    async def name_files(
        self, repository: str, tag: str, digests: Iterable[Digest]
    ) -> frozenset[str]:
        """Below `names/`, the files about a tag (empty: none) and about manifests, whether they are
        there yet or not.
        """
        keys = [f"manifest {repository}@{digest}" for digest in digests]
        return self._files.relative(
            await self._owner(repository), [*keys, *([f"tag {repository}:{tag}"] if tag else [])]
        )

    async def is_known(self) -> bool:
        """Whether anything of the registry is in the cache."""
        return await in_thread(self._files.any)

    async def has_seen(self, repository: str, digest: Digest) -> bool:
        """Whether this credential has seen a manifest of the repository that names a blob."""
        owner = await self._owner(repository)
        return await in_thread(self._files.names_blob, owner, repository, digest)

    async def repositories(self) -> tuple[str, ...]:
        try:
            listed = _names(await self._ask("", "catalog", self._catalog.repositories))
        except (CatalogUnavailable, *OUTAGES) as error:
            if isinstance(error, CatalogUnavailable) and not isinstance(error.__cause__, OUTAGES):
                raise
            kept = await self._met()
            if not kept:
                raise
            self.stale = True
            return kept
        if not self.stale:
            return listed
        return tuple(sorted({*listed, *await self._met()}))

    async def brief_list(self) -> tuple[str, ...] | None:
        """The catalog if it is believed, or can be had with one request; else None, until a listing
        has brought it.
        """
        listed = self._known.get("catalog")
        if listed is not None:
            return _names(listed)
        if "catalog" in self._absent or "no brief catalog" in self._known:
            return None
        try:
            return await self._flights.run("brief catalog", self._ask_briefly)  # type: ignore[return-value]
        except OUTAGES:
            return await self.repositories()  # what is known of it, if anything is

    async def _ask_briefly(self) -> tuple[str, ...] | None:
        owner = await self._owner("")
        if self._fresh:
            fresh = await in_thread(self._files.last, owner, "catalog", self._fresh)
            if fresh is not None:
                return _names(fresh)
        try:
            found = await self._reach_catalog("catalog", self._catalog.brief_list)
        except (CatalogUnavailable, RateLimited) as error:
            log.debug("no catalog for a lookup: %s", error)
            found = None
        if found is None:
            self._known["no brief catalog"] = ()
            return None
        self._known["catalog"] = found
        await in_thread(self._files.write, owner, "catalog", found)
        return found

    async def _reach_catalog(self, key: str, question: Callable[[], Awaitable[T]]) -> T:
        """Ask for the catalog: not for long, if the repositories that something is known of can be
        listed instead.
        """
        known = await in_thread(self._files.any)
        try:
            found = await (self._reach_soon(key, question) if known else self._reach(key, question))
        except OcifsError as error:
            self.catalog_error = str(error)
            raise
        self.catalog_error = ""
        return found

    async def _met(self) -> tuple[str, ...]:
        """The repositories that something is known of on disk, looked for once: a catalog that
        cannot be asked for hides none of them.
        """
        if self._kept is None:
            await self._owner("")
            self._kept = await in_thread(self._files.repositories, frozenset(self._owners.values()))
        return self._kept

    async def tags(self, repository: str) -> tuple[str, ...]:
        return _names(
            await self._ask(
                repository, f"tags {repository}", lambda: self._catalog.tags(repository)
            )
        )

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        key = f"tag {repository}:{tag}"
        answer = await self._ask(repository, key, lambda: self._meaning(repository, tag))
        media_type, digest, size = _triple(answer)
        return Descriptor(media_type, Digest.parse(digest), size)

    async def _meaning(self, repository: str, tag: str) -> list[object]:
        found = await self._catalog.resolve(repository, tag)
        return [found.media_type, str(found.digest), found.size]

    async def tagged(self, repository: str, tag: str) -> RawManifest:
        """One request for a tag of which nothing is known; for another, what it means now and a
        manifest that may be here already.
        """
        key = f"tag {repository}:{tag}"
        owner = await self._owner(repository)
        known = key in self._known or await in_thread(self._files.last, owner, key) is not None
        ask = self._meaning if known else self._bring
        _, digest, _ = _triple(await self._ask(repository, key, lambda: ask(repository, tag)))
        return await self.manifest(repository, Digest.parse(digest))

    async def _bring(self, repository: str, tag: str) -> list[object]:
        raw = await self._catalog.tagged(repository, tag)
        self._manifests[repository, raw.digest] = raw
        await in_thread(self._keep_manifest, await self._owner(repository), repository, raw)
        return [raw.media_type, str(raw.digest), len(raw.body)]

    async def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        key = f"referrers {repository}@{digest}"
        known = self._known.get(key)
        if isinstance(known, tuple):
            return known
        if key in self._absent:
            raise self._absent[key]
        try:
            found = await self._reach(key, lambda: self._catalog.referrers(repository, digest))
        except OcifsError as error:
            self._note_cut(key, error)
            raise
        self._known[key] = found
        return found

    async def manifest(self, repository: str, digest: Digest) -> RawManifest:
        held = self._manifests.get((repository, digest))
        if held is None:
            owner = await self._owner(repository)
            held = await in_thread(self._manifest_on_disk, owner, repository, digest)
            if held is None:
                key = f"manifest {repository}@{digest}"
                found = await self._flights.run(
                    key, lambda: self._fetch_manifest(repository, digest)
                )
                assert isinstance(found, RawManifest)
                held = found
            self._manifests[repository, digest] = held
        return held

    async def _fetch_manifest(self, repository: str, digest: Digest) -> RawManifest:
        key = f"manifest {repository}@{digest}"
        raw = await self._reach(key, lambda: self._catalog.manifest(repository, digest))
        await in_thread(self._keep_manifest, await self._owner(repository), repository, raw)
        return raw

    def _manifest_on_disk(self, owner: str, repository: str, digest: Digest) -> RawManifest | None:
        """A manifest that this repository has shown to this owner: its type is in a name's file,
        its bytes are by digest.
        """
        kept = self._files.last(owner, f"manifest {repository}@{digest}")
        body = self._disk.read(self._disk.whole(digest)) if isinstance(kept, str) else None
        if body is None:
            return None
        try:
            verify_manifest(body, digest)
        except IntegrityError:
            return None  # bit rot: the registry is asked again
        return RawManifest(digest, str(kept), body)

    def _keep_manifest(self, owner: str, repository: str, raw: RawManifest) -> None:
        try:
            self._disk.write(self._disk.whole(raw.digest), raw.body)
        except OcifsError as error:
            log.warning("a manifest could not be kept: %s", error)
            return
        self._files.write(owner, f"manifest {repository}@{raw.digest}", raw.media_type)

    async def _ask(
        self, repository: str, key: str, question: Callable[[], Awaitable[object]]
    ) -> object:
        """What a name means: believed, asked for, or as it last was when nobody can be asked."""
        absent = self._absent.get(key)
        if absent is not None:
            raise absent
        if key in self._known:
            return self._known[key]
        return await self._flights.run(key, lambda: self._renew(repository, key, question))

    async def _renew(
        self, repository: str, key: str, question: Callable[[], Awaitable[object]]
    ) -> object:
        owner = await self._owner(repository)
        if self._fresh:
            fresh = await in_thread(self._files.last, owner, key, self._fresh)
            if fresh is not None:
                return fresh
        last = await in_thread(self._files.last, owner, key)
        reach = (
            self._reach_catalog
            if key == "catalog"
            else self._reach
            if last is None
            else self._reach_soon
        )
        try:
            found = await reach(key, question)
        except (NotFound, CatalogUnavailable) as error:
            if isinstance(error.__cause__, OUTAGES) and last is not None:
                self.stale = True
                return last
            self._absent[key] = error
            if last is not None and isinstance(error, NotFound):
                await in_thread(self._files.forget, owner, key)
            raise
        except OUTAGES as error:
            if last is None:
                self._note_cut(key, error)
                raise
            self.stale = True
            # an answer from before is one: what comes next is not short of the time that this took
            note_progress()
            return last
        except OcifsError as error:
            self._note_cut(key, error)
            raise
        self._known[key] = found
        await in_thread(self._files.write, owner, key, found)
        return found

    def _note_cut(self, key: str, error: OcifsError) -> None:
        """Remember a list that was cut short, so that not each lookup follows it again."""
        if error.listed:
            self._absent[key] = error

    async def _reach_soon(self, key: str, question: Callable[[], Awaitable[T]]) -> T:
        """Ask for something with an answer from before, which is not waited for as long as if there
        were none.

        No answer in this time is an outage for such questions, and for no others: those may wait
        longer, and get one.
        """

        async def soon() -> T:
            with patience(self._hurry, self._max_wait):
                return await self._reach(key, question, patient=False)
            raise AssertionError("patience raises when it ends")

        return await self._slow.ask(soon)

    async def _reach(
        self, key: str, question: Callable[[], Awaitable[T]], *, patient: bool = True
    ) -> T:
        """Ask the registry, unless it could not be reached just now.

        `patient` as `Outage.ask` has it.
        """
        if self._offline:
            raise Unreachable(
                f"{self.host} is not asked, since --offline was given, and the cache does not know",
                hint="`ocifs prefetch` brings what is wanted while there is a network; without --offline the registry is asked",
            )
        found = await self._failures.ask(key, lambda: self._outage.ask(question, patient=patient))
        self._slow.over()
        self.stale = False
        self.on_answer()
        return found


async def _nobody(_repository: str) -> str:
    """Whoever opens a catalog without credentials."""
    return "anonymous"


def _names(value: object) -> tuple[str, ...]:
    assert isinstance(value, list | tuple)
    return tuple(value)


def _triple(value: object) -> tuple[str, str, int]:
    assert isinstance(value, list)
    media_type, digest, size = value
    return str(media_type), str(digest), int(size)
