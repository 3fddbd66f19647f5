"""What every node of one origin shares: whom to ask, how to show things, what is known of the
names.

Rules that hold here: nothing in here asks anybody; whatever can be derived is derived; one context
an origin for the life of a mount.
"""

from __future__ import annotations

import itertools
import logging
import math
import platform as machine
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import trio

from ocifs.concurrency import in_thread
from ocifs.content import ContentSource
from ocifs.layers.service import LayerService
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import attached_to
from ocifs.oci.manifest import Manifest
from ocifs.oci.platform import Platform
from ocifs.settings import Limits, ViewSettings
from ocifs.tree.name_index import NameIndex

log = logging.getLogger("ocifs.tree")

# The kernel asks again after a second whether a name still means the same; the answer comes from
# memory until the tag's time to live is over. With the whole time to live here a moved tag could
# stay unseen for twice that time.
NAME_LIFETIME = 1.0

# Indexes whose attached children are remembered at a time.
MAX_INDEXES = 256

# Children of indexes whose sizes are remembered.
MAX_SIZES = 10_000

# Tags whose manifests are remembered at a time.
MAX_TAGS = 256

# Tag lists remembered at a time: a list of 10,000 tags takes about a megabyte.
MAX_LISTED = 64


# Names whose index takes longer than 10 ms to build, and whose listing does.
MANY_NAMES = 2_000


@dataclass(frozen=True, slots=True)
class Context:
    """Shared by the nodes of one origin.

    `visited`: repositories that were found to exist though no catalog lists them.
    """

    origin: ContentSource
    view: ViewSettings
    limits: Limits
    layer_service: LayerService
    tag_ttl: float = 60.0
    report: Callable[[str], None] = log.warning
    """Notes for the user about what no program that reads can notice; a mount shows them in `.ocifs/errors`."""
    visited: NameIndex = field(default_factory=NameIndex)
    _catalog: list[tuple[tuple[str, ...], NameIndex]] = field(default_factory=list)
    serials: Iterator[int] = field(default_factory=itertools.count)
    """Numbers that tell nodes with the same name apart."""
    _tags: dict[tuple[str, str], frozenset[Digest]] = field(default_factory=dict)
    _indexes: dict[tuple[str, Digest], dict[Digest, tuple[Descriptor, ...]]] = field(
        default_factory=dict
    )
    _sizes: dict[tuple[str, Digest], int] = field(default_factory=dict)
    _listed: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)

    @property
    def name_lifetime(self) -> float:
        """For how long the kernel may believe what a name means."""
        return min(NAME_LIFETIME, self.tag_ttl)

    async def index_of(self, names: tuple[str, ...]) -> NameIndex:
        """The index of a catalog, made once for each list."""
        if not self._catalog or (self._catalog[0][0] is not names and self._catalog[0][0] != names):
            made = (
                NameIndex(names) if len(names) < MANY_NAMES else await in_thread(NameIndex, names)
            )
            self._catalog[:] = [(names, made)]
        return self._catalog[0][1]

    def list_lifetime(self, repository: str) -> float:
        """For how many seconds the tag list that was shown last is still believed."""
        when, _ = self._listed.get(repository, (-math.inf, frozenset()))
        return max(0.0, when + self.tag_ttl - trio.current_time())

    def record_tags(self, repository: str, tags: Iterable[str]) -> None:
        """Remember a tag list that was just shown, so that what it names exists without a request a
        tag.
        """
        self.visited.add(repository)
        self._listed[repository] = (trio.current_time(), frozenset(tags))
        while len(self._listed) > MAX_LISTED:
            del self._listed[next(iter(self._listed))]

    def is_listed(self, repository: str, tag: str) -> bool:
        """Whether a tag list that is still believed names it."""
        when, tags = self._listed.get(repository, (0.0, frozenset()))
        return tag in tags and trio.current_time() < when + self.tag_ttl

    def record_siblings(self, repository: str, index: Manifest) -> None:
        """Remember the children of an index: their sizes, and which are about another of its
        children.
        """
        for child in index.manifests[:MAX_SIZES]:
            self._sizes[repository, child.digest] = child.size
        while len(self._sizes) > MAX_SIZES:
            del self._sizes[next(iter(self._sizes))]
        about: dict[Digest, tuple[Descriptor, ...]] = {}
        for child in index.manifests:
            subject = attached_to(child)
            if subject is not None:
                about[subject] = (*about.get(subject, ()), child)
        if not about:
            return
        self._indexes[repository, index.digest] = about
        while len(self._indexes) > MAX_INDEXES:
            del self._indexes[next(iter(self._indexes))]

    def size_notes(self, repository: str, digest: Digest, size: int) -> tuple[str, ...]:
        """What is odd about the size of a manifest, by the index that led to it (image-spec,
        descriptor.md "Properties").
        """
        recorded = self._sizes.get((repository, digest), UNKNOWN_SIZE)
        if recorded in (UNKNOWN_SIZE, size):
            return ()
        return (f"its descriptor in an index records {recorded} bytes, it has {size}",)

    def record_tag(self, repository: str, tag: str, manifest: Manifest) -> None:
        """Remember to which manifest a tag led, and to which children of that."""
        self._tags.pop((repository, tag), None)
        self._tags[repository, tag] = frozenset(
            (manifest.digest, *(child.digest for child in manifest.manifests))
        )
        while len(self._tags) > MAX_TAGS:
            del self._tags[next(iter(self._tags))]

    def tags_of(self, repository: str, digest: Digest) -> tuple[str, ...]:
        """The tags that were found to lead to a manifest, the last first."""
        known = reversed(self._tags.items())
        return tuple(
            tag for (name, tag), digests in known if name == repository and digest in digests
        )

    def siblings(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """What stands beside a manifest, in an index that was seen, and is about it."""
        of_all = [
            about.get(digest, ())
            for (name, _), about in self._indexes.items()
            if name == repository
        ]
        return tuple(child for children in of_all for child in children)

    @property
    def platform(self) -> Platform:
        """The platform that an image is meant for when nobody says which."""
        return self.view.platform or Platform.of_machine(machine.machine(), sys.byteorder)
