"""What refers to a manifest of a local source: entries of its index, those of indices in it, and
regctl's fallback tags.

Everything blocks: callers are worker threads, several at a time.

Rules that hold here:
- A referrer is a manifest with this `subject`, or an entry of an index that is tagged
  `ALGORITHM-HEX` (distribution-spec, "Referrers Tag Schema"), which tools write into layouts too.
- What a sparse layout does not hold, or what cannot be understood, refers to nothing.
- The manifests and the depth that are looked into are bounded. What a digest refers to is
  remembered.
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
    """What is remembered of a manifest: its subject, its descriptor as a referrer, and the children
    of an index.
    """

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

    def to(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The descriptors of what refers to a digest, each once.

        Raises what listing the source raises.
        """
        with self._lock:
            return self._to(digest)

    def _to(self, digest: Digest) -> tuple[Descriptor, ...]:
        found: dict[Digest, Descriptor] = {}
        tag = referrers_tag(digest)
        for descriptor in self._all():
            seen = self._see(descriptor)
            if seen is None:
                continue
            if seen.subject == digest:
                found[seen.descriptor.digest] = seen.descriptor
            if descriptor.annotations.get(REF_NAME) == tag:
                for child in seen.children:
                    found.setdefault(child.digest, child)
        return tuple(found.values())

    def _all(self) -> Iterator[Descriptor]:
        """Every manifest that is listed, at whatever depth, each digest once unless it is listed
        under another name.
        """
        level = [
            each.descriptor
            for each in self._contents.list_manifests()
            if each.descriptor is not None
        ]
        passed: set[Digest] = set()
        for _ in range(self._limits.index_depth):
            below: list[Descriptor] = []
            for descriptor in level:
                if len(passed) >= self._limits.referrers:
                    return
                yield descriptor
                if descriptor.digest not in passed:
                    passed.add(descriptor.digest)
                    seen = self._see(descriptor)
                    below += seen.children if seen is not None else ()
            level = below

    def _see(self, descriptor: Descriptor) -> _CachedManifest | None:
        """What a manifest refers to; None if it cannot be read."""
        seen = self._manifests.get(descriptor.digest)
        if seen is None:
            try:
                seen = _look(read_manifest(self._contents, descriptor, self._limits), descriptor)
            except OcifsError:
                return None
            while len(self._manifests) >= self._limits.referrers:
                self._manifests.pop(next(iter(self._manifests)), None)
            self._manifests[descriptor.digest] = seen
        return seen


def _look(manifest: Manifest, descriptor: Descriptor) -> _CachedManifest:
    kind = manifest.artifact_type or (manifest.config.media_type if manifest.config else "")
    shown = Descriptor(
        manifest.media_type,
        descriptor.digest,
        len(manifest.raw),
        manifest.annotations,
        artifact_type=kind,
    )
    return _CachedManifest(
        manifest.subject.digest if manifest.subject else None, shown, manifest.manifests
    )
