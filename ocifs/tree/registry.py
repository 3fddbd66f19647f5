"""A registry's repositories as directories within directories.

A directory here may be a repository, a namespace of others, or both. What a catalog lists is listed; any valid name can be entered:
where the catalog is refused without a request, else after the registry said that it has such a repository.

Rules that hold here: a name that cannot be a repository is absent without a request; control names begin with `_`, which no component
of a repository can; an outage is never absence.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ocifs.errors import AccessDenied, CatalogUnavailable, Malformed, NotFound
from ocifs.oci.digest import Digest
from ocifs.oci.reference import MAX_REPOSITORY_LENGTH, is_component, is_tag
from ocifs.tree.context import Context
from ocifs.tree.node import DIRECTORY, Attributes, Entry, Link, Node, Plain
from ocifs.tree.repository import BlobsDirectory, ManifestsDirectory, TagsDirectory


class RepositoryDirectory(Plain):
    """The directory of one repository or namespace; the registry itself has the empty name.

    `is_source` (`repository`): it was named as the source, so it is asked for where no catalog lists it.
    """

    __slots__ = ("_context", "_controls", "_name", "is_source", "lifetime")

    def __init__(self, context: Context, name: str, key: Hashable, *, repository: bool = False) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        self.lifetime = context.name_lifetime
        self._context = context
        self._name = name
        self.is_source = repository
        controls: dict[bytes, Node] = {}
        if name or repository:
            manifests = ManifestsDirectory(context, name, (key, b"_manifests"))
            controls = {
                b"_tags": TagsDirectory(context, name, (key, b"_tags")),
                b"_manifests": manifests,
                b"_blobs": BlobsDirectory(context, name, (key, b"_blobs")),
            }
        self._controls = controls

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

    async def entries(self) -> Sequence[Entry]:
        known = await self._known()
        prefix = f"{self._name}/" if self._name else ""
        below = {
            name[len(prefix) :].partition("/")[0]
            for name in known
            if name.startswith(prefix) and len(name) > len(prefix)
        }
        shown = [Entry(name, node) for name, node in self._controls.items()] if self._name in known else []
        for component in sorted(below):
            key = (self.key, component.encode())
            shown.append(Entry(component.encode(), RepositoryDirectory(self._context, prefix + component, key)))
        if not shown and self.is_source and await self._exists(self._name):
            return [Entry(name, node) for name, node in self._controls.items()]
        return shown

    async def explain_emptiness(self) -> None:
        """Raise what there is to say of a listing with nothing in it: CatalogUnavailable, or NotFound where the source is not there."""
        await self._context.origin.catalog.repositories()
        if self.is_source:
            raise NotFound(f"no repository or namespace is called {self._name!r} there")

    def _child(self, component: str) -> str:
        name = f"{self._name}/{component}" if self._name else component
        if not is_component(component) or len(name) > MAX_REPOSITORY_LENGTH:
            raise _absent(component.encode())
        return name

    async def _known(self) -> set[str]:
        """The repositories that are known to exist."""
        try:
            listed = set(await self._context.origin.catalog.repositories())
        except CatalogUnavailable:
            listed = set(self._context.view.repositories)
        return listed | self._context.visited

    async def _exists(self, name: str) -> bool:
        catalog = self._context.origin.catalog
        try:
            listed = await catalog.repositories()
        except CatalogUnavailable:
            return True  # nobody can say; what is not there says so when it is read
        if any(known == name or known.startswith(f"{name}/") for known in (*listed, *self._context.visited)):
            return True
        try:
            await catalog.tags(name)
        except NotFound:
            return False
        except AccessDenied:
            return True  # it may be a namespace of something that this user may read
        self._context.visited.add(name)
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
        manifests = ManifestsDirectory(self._context, child, ((self.key, component.encode()), b"_manifests"))
        await manifests.lookup(version.encode())
        target = f"{component}/_manifests/{version}".encode()
        return Link((self.key, text), target, lifetime=self._context.name_lifetime)


def _absent(name: bytes) -> NotFound:
    return NotFound(f"no repository or reference is called {name.decode(errors='replace')!r} here")
