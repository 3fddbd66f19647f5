"""Finds the referrers of a manifest in a local source.

All manifests of the source are read, including those in nested indexes.

Everything blocks: callers are worker threads, several at a time; a lock serializes the searches.

Rules that hold here:

- A referrer is a manifest with this `subject`, or an entry of an index that is tagged
  `ALGORITHM-HEX` (distribution-spec, "Referrers Tag Schema"). regctl writes such tags into layouts.
- A manifest that is missing or invalid is skipped.
- The number of manifests and the depth are bounded. The subjects of manifests are cached by digest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ocifs.errors import OcifsError
from ocifs.layout.contents import REF_NAME, Contents, read_manifest
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution.endpoints import referrers_tag
from ocifs.oci.manifest import Manifest
from ocifs.settings import Limits


@dataclass(frozen=True, slots=True)
class _CachedManifest:
    """The subject of a manifest, its descriptor as a referrer, and the children of an index."""

    subject: Digest | None
    descriptor: Descriptor
    children: tuple[Descriptor, ...]


class ReferrerFinder:
    """The referrers of one source."""

    def __init__(self, contents: Contents, limits: Limits) -> None:
        self._contents = contents
        self._limits = limits
        self._manifests: dict[Digest, _CachedManifest] = {}
        self._lock = threading.Lock()

    def of(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The descriptors of a manifest's referrers, each once. Raises Malformed, LimitExceeded."""
        with self._lock:
            return self._find(digest)

    def _find(self, digest: Digest) -> tuple[Descriptor, ...]:
        referrers: dict[Digest, Descriptor] = {}
        tag = referrers_tag(digest)
        for descriptor in self._all():
            manifest = self._load(descriptor)
            if manifest is None:
                continue
            if manifest.subject == digest:
                referrers[manifest.descriptor.digest] = manifest.descriptor
            if descriptor.annotations.get(REF_NAME) == tag:
                for child in manifest.children:
                    referrers.setdefault(child.digest, child)
        return tuple(referrers.values())

    def _all(self) -> Iterator[Descriptor]:
        """The descriptors of all manifests at all depths.

        A digest is repeated only if it is listed under several names.
        """
        level = [
            entry.descriptor
            for entry in self._contents.list_manifests()
            if entry.descriptor is not None
        ]
        visited: set[Digest] = set()
        for _ in range(self._limits.index_depth):
            below: list[Descriptor] = []
            for descriptor in level:
                if len(visited) >= self._limits.referrers:
                    return
                yield descriptor
                # An index may be reachable by many paths. Its children are visited once.
                if descriptor.digest not in visited:
                    visited.add(descriptor.digest)
                    manifest = self._load(descriptor)
                    below += manifest.children if manifest is not None else ()
            level = below

    def _load(self, descriptor: Descriptor) -> _CachedManifest | None:
        """Read a manifest, or take it from the cache; None if it cannot be read."""
        cached = self._manifests.get(descriptor.digest)
        if cached is None:
            try:
                manifest = read_manifest(self._contents, descriptor, self._limits)
            except OcifsError:
                # A failure is not cached: the missing blob may be copied into the layout later.
                return None
            cached = _summarize(manifest, descriptor)
            # Dictionaries preserve the order of insertion: the oldest entry is evicted.
            while len(self._manifests) >= self._limits.referrers:
                self._manifests.pop(next(iter(self._manifests)), None)
            self._manifests[descriptor.digest] = cached
        return cached


def _summarize(manifest: Manifest, descriptor: Descriptor) -> _CachedManifest:
    # Without an `artifactType`, the type of a referrer is that of its config (distribution-spec,
    # "Listing Referrers").
    kind = manifest.artifact_type or (manifest.config.media_type if manifest.config else "")
    referrer = Descriptor(
        manifest.media_type,
        descriptor.digest,
        len(manifest.raw),
        manifest.annotations,
        artifact_type=kind,
    )
    subject = manifest.subject.digest if manifest.subject else None
    return _CachedManifest(subject, referrer, manifest.manifests)
