"""State that all nodes of one content source share.

`ocifs.app` creates one `Context` for each host or local source. Nodes call it from the event loop;
no method causes a request.

The second half of the fields is a record of recent answers, which saves requests and shows
relations that no single answer contains:

- `visited`: repositories that exist, whether a catalog lists them or not
- tag lists, so that every tag of a listed `_tags` exists without a request each
- which manifest a tag meant, since eStargz stores tables of contents under a derived tag
- children of indexes: their sizes, and which of them are about another child

The records have fixed sizes, and the oldest is dropped first. A missing record costs a request, or
an entry in `referrers`, never a wrong answer.
"""

from __future__ import annotations

import itertools
import logging
import math
import platform as machine
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from cachetools import FIFOCache

from ocifs.concurrency import in_thread
from ocifs.content import ContentSource
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import attached_to
from ocifs.oci.manifest import Manifest
from ocifs.oci.platform import Platform
from ocifs.settings import Limits, ViewSettings
from ocifs.tree.name_index import NameIndex

if TYPE_CHECKING:
    from ocifs.layers.service import LayerService
    from ocifs.oci.kinds.rules import KindRules

log = logging.getLogger("ocifs.tree")

# The kernel asks again after a second whether a name still means the same. The answer comes from
# memory until the tag's time to live is over. If the kernel cached names for the whole time to
# live, a moved tag could stay unnoticed for twice that time.
NAME_LIFETIME = 1.0

# Sizes of the records. A list of 10,000 tags takes about a megabyte.
MAX_INDEXES = 256
MAX_SIZES = 10_000
MAX_TAGS = 256
MAX_LISTED = 64

# With more names than this, building an index or a listing takes longer than 10 ms.
MANY_NAMES = 2_000


class CatalogIndex:
    """The index of the latest list of repositories.

    `is_refusal_noted`: an error record explains why a listing without a catalog is empty.
    """

    def __init__(self) -> None:
        self.is_refusal_noted = False
        self._names: Sequence[str] = ()
        self._index = NameIndex()

    async def index(self, names: tuple[str, ...]) -> NameIndex:
        """The index of these names, built once for each list."""
        # Comparing two long lists takes time, and the list is usually the same object.
        if self._names is not names and self._names != names:
            is_short = len(names) < MANY_NAMES
            index = NameIndex(names) if is_short else await in_thread(NameIndex, names)
            # Both change together: other tasks compare the names while an index is built.
            self._names, self._index = names, index
        return self._index


@dataclass(frozen=True, slots=True)
class Context:
    """Shared by the nodes of one content source.

    - `make_layer_service` returns the same layer service each time. It is called when the first
      layer is used.
    - `report` shows a note to the user about something that no reader can notice. A mount adds it
      to `.ocifs/errors`.
    - `note` is the same for messages that a command without a mount prints itself.
    - `serials` are numbers that distinguish nodes of the same name.
    """

    origin: ContentSource
    view: ViewSettings
    limits: Limits
    make_layer_service: Callable[[], LayerService]
    tag_ttl: float = 60.0
    report: Callable[[str], None] = log.warning
    note: Callable[[str], None] = log.debug
    visited: NameIndex = field(default_factory=NameIndex)
    serials: Iterator[int] = field(default_factory=itertools.count)
    catalog: CatalogIndex = field(default_factory=CatalogIndex)
    _tags: FIFOCache[tuple[str, str], frozenset[Digest]] = field(
        default_factory=lambda: FIFOCache(MAX_TAGS)
    )
    _indexes: FIFOCache[tuple[str, Digest], dict[Digest, tuple[Descriptor, ...]]] = field(
        default_factory=lambda: FIFOCache(MAX_INDEXES)
    )
    _sizes: FIFOCache[tuple[str, Digest], int] = field(default_factory=lambda: FIFOCache(MAX_SIZES))
    _listed: FIFOCache[str, tuple[float, frozenset[str]]] = field(
        default_factory=lambda: FIFOCache(MAX_LISTED)
    )

    @property
    def layer_service(self) -> LayerService:
        """The service that makes trees of layers."""
        return self.make_layer_service()

    @property
    def own_kinds(self) -> KindRules | None:
        """The rules for the kinds of artifact that the user declared, if there are any."""
        if not self.view.kinds:
            return None
        # Imported here: a listing of names does not need the table of kinds.
        from ocifs.oci.kinds.rules import KindRules

        return KindRules(self.view.kinds, own=True)

    @property
    def name_lifetime(self) -> float:
        """For how many seconds the kernel may cache a name."""
        return min(NAME_LIFETIME, self.tag_ttl)

    def list_lifetime(self, repository: str) -> float:
        """For how many seconds the latest tag list is still valid."""
        listed_at, _ = self._listed.get(repository, (-math.inf, frozenset[str]()))
        return max(0.0, listed_at + self.tag_ttl - trio.current_time())

    def record_tags(self, repository: str, tags: Iterable[str]) -> None:
        """Record a tag list that is shown now."""
        self.visited.add(repository)
        self._listed[repository] = (trio.current_time(), frozenset(tags))

    def is_listed(self, repository: str, tag: str) -> bool:
        """Whether a valid tag list contains the tag."""
        listed_at, tags = self._listed.get(repository, (0.0, frozenset[str]()))
        return tag in tags and trio.current_time() < listed_at + self.tag_ttl

    def forget_names(self) -> None:
        """Forget which repositories and tags exist, so that the registry is asked again."""
        self._listed.clear()
        self.visited.clear()

    def record_siblings(self, repository: str, index: Manifest) -> None:
        """Record the sizes of an index's children, and which of them are about another child."""
        # Any more would drop the sizes recorded just before.
        for child in index.manifests[:MAX_SIZES]:
            self._sizes[repository, child.digest] = child.size
        attached: dict[Digest, tuple[Descriptor, ...]] = {}
        for child in index.manifests:
            subject = attached_to(child)
            if subject is not None:
                attached[subject] = (*attached.get(subject, ()), child)
        if attached:
            self._indexes[repository, index.digest] = attached

    def size_notes(self, repository: str, digest: Digest, size: int) -> tuple[str, ...]:
        """Notes on a manifest whose size differs from its descriptor in an index (image-spec,
        descriptor.md "Properties").
        """
        recorded = self._sizes.get((repository, digest), UNKNOWN_SIZE)
        if recorded in (UNKNOWN_SIZE, size):
            return ()
        return (f"its descriptor in an index records {recorded} bytes, it has {size}",)

    def record_tag(self, repository: str, tag: str, manifest: Manifest) -> None:
        """Record the manifest that a tag means, with its children."""
        # A key that exists stays at its position: remove it, so that the newest tag is the last.
        self._tags.pop((repository, tag), None)
        self._tags[repository, tag] = frozenset(
            (manifest.digest, *(child.digest for child in manifest.manifests))
        )

    def tags_of(self, repository: str, digest: Digest) -> tuple[str, ...]:
        """The recorded tags that mean a manifest or an index with it, newest first."""
        newest_first = reversed(list(self._tags.items()))
        return tuple(
            tag for (name, tag), digests in newest_first if name == repository and digest in digests
        )

    def siblings(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """The manifests about this one that recorded indexes list beside it."""
        attached = [
            of_index.get(digest, ())
            for (name, _), of_index in self._indexes.items()
            if name == repository
        ]
        return tuple(child for children in attached for child in children)

    @property
    def platform(self) -> Platform:
        """The platform to show: that of the settings, or of this machine."""
        return self.view.platform or Platform.of_machine(machine.machine(), sys.byteorder)
