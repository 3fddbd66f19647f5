"""The control directories of a repository: `_tags`, `_manifests` and `_blobs`.

Rules that hold here:

- `_tags` has a link for each tag, created from the tag list alone.
- `_manifests` and `_blobs` list nothing and are entered by name. A walk that does not follow links
  downloads nothing.
- The directory of a tag exists if the tag list contains the tag. It belongs to one manifest from
  its first use. After the tag has moved, the next lookup creates another directory.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from ocifs.concurrency import in_thread
from ocifs.content import Blob
from ocifs.errors import (
    DeadlineExceeded,
    Malformed,
    NotFound,
    OcifsError,
    RegistryFailed,
    Unreachable,
)
from ocifs.filenames import mangle, to_bytes, unmangle
from ocifs.oci.digest import EMPTY_JSON, Digest
from ocifs.tree.base import FastNode, SimpleNode, SymlinkNode, WithoutLabels
from ocifs.tree.blob import BlobFile, with_known_size
from ocifs.tree.manifest.context import MANY_NAMES, Context
from ocifs.tree.node import (
    DIRECTORY,
    Attributes,
    DirectoryEntry,
    Node,
    make_entry,
    partial_listing_error,
)

if TYPE_CHECKING:
    from ocifs.tree.manifest.directory import ManifestDirectory

_MANIFESTS = b"../_manifests/"
_OUTAGES = (Unreachable, DeadlineExceeded, RegistryFailed)


class _ControlDirectory(WithoutLabels, SimpleNode):
    """Base of the three directories."""

    __slots__ = ("_context", "_repository", "lifetime")

    def __init__(self, context: Context, repository: str, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        self.lifetime = context.name_lifetime
        self._context = context
        self._repository = repository

    async def entries(self) -> Sequence[DirectoryEntry]:
        return ()


class ReferenceLink(WithoutLabels, SymlinkNode):
    """A link to the directory of a manifest."""

    __slots__ = ()


class TagsDirectory(_ControlDirectory, FastNode):
    """`_tags`: one symbolic link a tag."""

    __slots__ = ()

    async def lookup(self, name: bytes) -> Node:
        return self.lookup_nowait(name) or await self._look_up(_text(name))

    def lookup_nowait(self, name: bytes) -> Node | None:
        tag = _text(name)
        context = self._context
        return (
            self._link(tag, context.name_lifetime)
            if context.is_listed(self._repository, tag)
            else None
        )

    async def _look_up(self, tag: str) -> Node:
        """Resolve the tag, instead of reading a list that may be long."""
        catalog = self._context.origin.catalog
        try:
            await catalog.resolve(self._repository, tag)
        except _OUTAGES:
            # A cached list may have it.
            if tag not in await catalog.tags(self._repository):
                raise
        return self._link(tag, self._context.name_lifetime)

    async def entries(self) -> Sequence[DirectoryEntry]:
        try:
            tags = await self._context.origin.catalog.tags(self._repository)
        except OcifsError as error:
            if not error.listed:
                raise
            listed = tuple(map(str, error.listed))
            self._context.record_tags(self._repository, listed)
            raise partial_listing_error(
                error, self._links(listed, self._context.name_lifetime)
            ) from error
        self._context.record_tags(self._repository, tags)
        lifetime = max(self._context.name_lifetime, self._context.list_lifetime(self._repository))
        if len(tags) < MANY_NAMES:
            return self._links(tags, lifetime)
        return await in_thread(self._links, tags, lifetime)

    def _links(self, tags: Sequence[str], lifetime: float) -> list[DirectoryEntry]:
        """Links with the lifetime of the list: for a long list, `ls -l` requests the last ones more
        than a second later.
        """
        key = self.key
        names = ((tag, mangle(to_bytes(tag))) for tag in sorted(tags))
        return [
            make_entry((name, ReferenceLink((key, tag), _MANIFESTS + name, lifetime=lifetime)))
            for tag, name in names
        ]

    def _link(self, tag: str, lifetime: float) -> ReferenceLink:
        return ReferenceLink((self.key, tag), _MANIFESTS + mangle(to_bytes(tag)), lifetime=lifetime)


class ManifestsDirectory(_ControlDirectory):
    """`_manifests`: a manifest's directory by its tag or its digest."""

    __slots__ = ("_current",)

    def __init__(self, context: Context, repository: str, key: Hashable) -> None:
        super().__init__(context, repository, key)
        self._current: dict[str, ManifestDirectory] = {}

    async def lookup(self, name: bytes) -> Node:
        text = _text(name)
        digest = _digest(text)
        if digest is not None:
            return await self._by_digest(digest, name)
        return await self._by_tag(text)

    async def _by_digest(self, digest: Digest, name: bytes) -> Node:
        from ocifs.tree.manifest.directory import ManifestDirectory
        from ocifs.tree.manifest.load import ManifestLocation

        location = ManifestLocation(self._context, self._repository, digest)
        directory = ManifestDirectory(location, (self.key, name))
        await directory.load()
        return directory

    async def _by_tag(self, tag: str) -> Node:
        catalog = self._context.origin.catalog
        current = self._current.get(tag)
        # A listed tag exists: `ls -L _tags` must not send a request for each.
        if (current is None or current.digest is None) and self._context.is_listed(
            self._repository, tag
        ):
            return current or self._enter(tag)
        try:
            # The first lookup is followed by reading, so fetch the manifest at once.
            if current is None:
                digest = (await catalog.tagged(self._repository, tag)).digest
            else:
                digest = (await catalog.resolve(self._repository, tag)).digest
        except NotFound:
            self._current.pop(tag, None)
            raise
        self._context.visited.add(self._repository)
        # A directory without a digest is not loaded, and will load the new manifest.
        if current is not None and current.digest in (None, digest):
            return current
        return self._enter(tag)

    def _enter(self, tag: str) -> ManifestDirectory:
        # Imported here: a listing of tags does not need the modules about manifests.
        from ocifs.tree.manifest.directory import ManifestDirectory
        from ocifs.tree.manifest.load import ManifestLocation

        location = ManifestLocation(self._context, self._repository, tag)
        entered = ManifestDirectory(
            location,
            # After a tag has moved, the old directory may be in use: the new one is another inode.
            (self.key, tag, next(self._context.serials)),
            lifetime=self._context.name_lifetime,
        )
        self._current[tag] = entered
        return entered


class BlobsDirectory(_ControlDirectory):
    """`_blobs`: any blob of the repository by its digest."""

    __slots__ = ()

    async def lookup(self, name: bytes) -> Node:
        digest = _digest(_text(name))
        if digest is None:
            raise NotFound(f"not a digest: {name.decode(errors='replace')!r}")
        reader = self._context.origin.blobs
        # The content of the empty descriptor is fixed (image-spec, manifest.md): no request.
        embedded = b"{}" if digest == EMPTY_JSON else None
        blob = await with_known_size(
            reader, Blob(self._repository, digest, *((2, embedded) if embedded else ()))
        )
        return BlobFile(reader, blob, "")


def _text(name: bytes) -> str:
    """The registry's form of a name. Raises NotFound if it is not a valid name."""
    try:
        return unmangle(name).decode()
    except UnicodeDecodeError:
        raise NotFound(f"no such tag or digest: {name!r}") from None


def _digest(text: str) -> Digest | None:
    """The name as a digest, or None.

    Ref names of layouts may contain a colon and not be digests.
    """
    try:
        digest = Digest.parse(text)
    except Malformed:
        return None
    return digest if digest.verifiable else None
