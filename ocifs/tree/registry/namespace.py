"""A registry's repositories as directories within directories.

A directory here may be a repository, a namespace of others, or both. The catalog is a hint: it
decides what is listed, and any valid name can be entered. A lookup never waits for a long catalog:
it asks for the name's tags if one request has listed all repositories and the name is not among
them, else it takes the name as it is.

Rules that hold here:

- A name that cannot be a repository is absent without a request.
- Control names begin with `_`, which a component of a repository cannot.
- An outage is never absence.
- A catalog that fails keeps nothing from being entered. A listing that it cuts short is shown, and
  then the error.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ocifs.concurrency import in_thread
from ocifs.errors import (
    AccessDenied,
    CatalogFailed,
    CatalogUnavailable,
    Malformed,
    NotFound,
    OcifsError,
)
from ocifs.oci.digest import Digest
from ocifs.oci.reference import MAX_REPOSITORY_LENGTH, is_component, is_tag
from ocifs.tree.base import SimpleNode, WithoutLabels
from ocifs.tree.manifest.context import MANY_NAMES, Context
from ocifs.tree.name_index import NameIndex
from ocifs.tree.node import DIRECTORY, Attributes, DirectoryEntry, Node, partial_listing_error
from ocifs.tree.registry.repository import (
    BlobsDirectory,
    ManifestsDirectory,
    ReferenceLink,
    TagsDirectory,
)


class RepositoryDirectory(WithoutLabels, SimpleNode):
    """The directory of one repository or namespace; the registry itself has the empty name.

    `is_source` (`repository`): it was named as the source, so it is asked for where no catalog
    lists it.
    """

    __slots__ = ("_cached_controls", "_context", "_name", "is_source", "lifetime")

    def __init__(
        self, context: Context, name: str, key: Hashable, *, repository: bool = False
    ) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        self.lifetime = context.name_lifetime
        self._context = context
        self._name = name
        self.is_source = repository
        self._cached_controls: dict[bytes, Node] | None = None

    @property
    def _controls(self) -> dict[bytes, Node]:
        """`_tags`, `_manifests` and `_blobs`.

        Created at first use, since a listing creates many directories.
        """
        if self._cached_controls is None:
            context, name, key = self._context, self._name, self.key
            self._cached_controls = {}
            if name or self.is_source:
                self._cached_controls = {
                    b"_tags": TagsDirectory(context, name, (key, b"_tags")),
                    b"_manifests": ManifestsDirectory(context, name, (key, b"_manifests")),
                    b"_blobs": BlobsDirectory(context, name, (key, b"_blobs")),
                }
        return self._cached_controls

    async def lookup(self, name: bytes) -> Node:
        control = self._controls.get(name)
        if control is not None:
            return control
        try:
            text = name.decode("ascii")
        except UnicodeDecodeError:
            raise _absent(name) from None
        if ":" in text or "@" in text:
            return await self._reference(text)
        child = self._child(text)
        if not await self._exists(child):
            raise _absent(name)
        return RepositoryDirectory(self._context, child, (self.key, name))

    async def entries(self) -> Sequence[DirectoryEntry]:
        listed, error = await self._listed()
        context = self._context
        indexes = [listed, context.visited, NameIndex(context.view.repositories if error else ())]
        components = {component for index in indexes for component in index.children(self._name)}
        is_known = any(index.has_repository(self._name) for index in indexes)
        if not is_known and not components and (self._name or self.is_source):
            is_known = await self._has_tags(error)
        shown = (
            [DirectoryEntry(name, node) for name, node in self._controls.items()]
            if is_known
            else []
        )
        if len(components) < MANY_NAMES:
            shown += self._children(components)
        else:
            shown += await in_thread(self._children, components)
        # After a failed catalog, an empty listing would look like an empty registry.
        if error is not None and (error.listed or (isinstance(error, CatalogFailed) and not shown)):
            raise partial_listing_error(error, shown) from error
        if error is not None and not shown and not context.catalog.is_refusal_noted:
            # Programs see an empty directory, since names below it can still be entered.
            context.catalog.is_refusal_noted = True
            context.note(f"an empty listing: {error}; {error.hint}")
        return shown

    def _children(self, components: Iterable[str]) -> list[DirectoryEntry]:
        prefix = f"{self._name}/" if self._name else ""
        return [
            DirectoryEntry(
                name, RepositoryDirectory(self._context, prefix + component, (self.key, name))
            )
            for component in sorted(components)
            for name in (component.encode(),)
        ]

    async def explain_emptiness(self) -> None:
        """Raise the reason for an empty listing: CatalogUnavailable, or NotFound if the source does
        not exist.
        """
        await self._context.origin.catalog.repositories()
        if self.is_source:
            raise self._no_such_source()

    def _no_such_source(self) -> NotFound:
        return NotFound(f"no such repository or namespace: {self._name!r}")

    def _child(self, component: str) -> str:
        name = f"{self._name}/{component}" if self._name else component
        if not is_component(component) or len(name) > MAX_REPOSITORY_LENGTH:
            raise _absent(component.encode())
        return name

    async def _listed(self) -> tuple[NameIndex, OcifsError | None]:
        """The repositories in the catalog, and the error if the list is missing or incomplete."""
        error: OcifsError | None = None
        try:
            names = await self._context.origin.catalog.repositories()
        except OcifsError as cause:
            if not cause.listed and not isinstance(cause, CatalogUnavailable):
                raise
            error, names = cause, tuple(map(str, cause.listed))
        return await self._context.catalog.index(names), error

    async def _has_tags(self, no_list: OcifsError | None) -> bool:
        """Whether an unlisted name is a repository.

        Raises NotFound if the registry reports that it is not, and its catalog is complete.
        """
        try:
            await self._context.origin.catalog.tags(self._name)
        except AccessDenied:
            return self.is_source
        except NotFound as error:
            if no_list is None:
                raise self._no_such_source() from None if self.is_source else error
            # A namespace that is not listed has no tags.
            return self.is_source
        self._context.visited.add(self._name)
        return True

    async def _exists(self, name: str) -> bool:
        """Whether a name may exist, as far as it can be determined without a long list.

        A name that does not exist then fails when it is used.
        """
        catalog, visited = self._context.origin.catalog, self._context.visited
        if visited.has_name(name):
            return True
        try:
            listed = await catalog.brief_list()
        except OcifsError as error:
            if not error.listed and not isinstance(error, CatalogUnavailable):
                raise
            listed = None
        # Without a complete list absence cannot be determined cheaply, so the name is accepted.
        if listed is None or (await self._context.catalog.index(listed)).has_name(name):
            return True
        try:
            await catalog.tags(name)
        except NotFound:
            return False
        except AccessDenied:
            # It may be a namespace with a repository that this user may read.
            return True
        visited.add(name)
        return True

    async def _reference(self, text: str) -> Node:
        """`alpine:3.19`, `alpine@sha256:…`: a link into the repository's own directory."""
        name, at, digest_text = text.partition("@")
        component, colon, tag = name.partition(":")
        child = self._child(component)
        if colon and not is_tag(tag):
            raise _absent(text.encode())
        if at:
            try:
                version = str(Digest.parse(digest_text))
            except Malformed:
                raise _absent(text.encode()) from None
        else:
            version = tag
        manifests = ManifestsDirectory(
            self._context, child, ((self.key, component.encode()), b"_manifests")
        )
        # Raises NotFound: a wrong reference must be absent, not a dangling link.
        await manifests.lookup(version.encode())
        target = f"{component}/_manifests/{version}".encode()
        return ReferenceLink((self.key, text), target, lifetime=self._context.name_lifetime)


def _absent(name: bytes) -> NotFound:
    return NotFound(f"no such repository or reference: {name.decode(errors='replace')!r}")
