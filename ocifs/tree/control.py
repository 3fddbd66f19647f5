"""`.ocifs/`: the mount about itself.

Rules that hold here: what is shown is made anew at each look; reading it asks no registry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from ocifs.errors import OcifsError
from ocifs.tree.base import SimpleNode
from ocifs.tree.node import (
    FILE,
    Attributes,
    Directory,
    DirectoryEntry,
    Node,
    partial_entries,
    partial_listing_error,
)
from ocifs.tree.static import StaticDirectory

T = TypeVar("T")

NAME = b".ocifs"
_RENDERINGS = 16  # that readers may be in the middle of


class LiveFile(SimpleNode):
    """A small file whose content is made when it is looked at."""

    __slots__ = ("_lately", "_render")
    lifetime = 0.0
    changes = True
    owner_only = True
    """With --allow-other: for the user who mounted, and root. It has paths, hosts and errors."""

    def __init__(self, key: Hashable, render: Callable[[], bytes]) -> None:
        super().__init__(key, Attributes(FILE & ~0o044))
        self._render = render
        self._lately: deque[bytes] = deque(maxlen=_RENDERINGS)

    async def read(self, offset: int, size: int) -> bytes:
        """Made anew at its start; who reads on gets the end of what they began with, not that of
        what it is by now.
        """
        if offset == 0:
            self._lately.append(self._render())
            return self._lately[-1][:size]
        if any(len(content) == offset for content in self._lately):
            return b""
        return next(
            (
                content[offset : offset + size]
                for content in reversed(self._lately)
                if len(content) > offset
            ),
            b"",
        )


class MountRoot(SimpleNode):
    """The root of a mount: another directory, and `.ocifs` beside what it holds; `hidden`: not
    listed, where a tree is to be as it is.
    """

    __slots__ = ("_control", "_hidden", "_inner", "attributes_known", "lifetime")

    def __init__(
        self, inner: Directory, files: dict[bytes, Callable[[], bytes]], *, hidden: bool = False
    ) -> None:
        super().__init__(("root", inner.key), inner.attributes)
        self.lifetime = inner.lifetime
        self.attributes_known = inner.attributes_known
        self._inner = inner
        self._hidden = hidden
        live = ((name, LiveFile((NAME, name), render)) for name, render in files.items())
        self._control = StaticDirectory(NAME, live)

    async def lookup(self, name: bytes) -> Node:
        return self._control if name == NAME else self._known(await self._inner.lookup(name))

    async def entries(self) -> Sequence[DirectoryEntry]:
        control = [] if self._hidden else [DirectoryEntry(NAME, self._control)]
        try:
            entries = self._known(await self._inner.entries())
        except OcifsError as error:
            if not error.listed:
                raise
            raise partial_listing_error(error, [*control, *partial_entries(error)]) from error
        return [*control, *entries] if control else entries

    def _known(self, found: T) -> T:
        """The root of layers has its attributes once it was looked into."""
        inner = self._inner
        self.attributes, self.lifetime, self.attributes_known = (
            inner.attributes,
            inner.lifetime,
            inner.attributes_known,
        )
        return found

    async def restore_attributes(self) -> None:
        await self._inner.restore_attributes()
        self._known(None)

    async def load_attributes(self) -> None:
        await self._inner.load_attributes()
        self._known(None)

    def attribute_names(self) -> Sequence[bytes]:
        return self._inner.attribute_names()

    async def attribute(self, name: bytes) -> bytes:
        return await self._inner.attribute(name)
