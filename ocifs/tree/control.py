"""`.ocifs/`: the status and the latest errors of a mount, and the file that refreshes it.

Rules that hold here: the content is created at each read from the start, without any request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeAlias, TypeVar

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
Action: TypeAlias = Callable[[], Awaitable[bytes]]
"""Does something, and returns the content of its file."""

NAME = b".ocifs"
# The number of contents that are kept for readers that have read a part.
_RENDERINGS = 16


class LiveFile(SimpleNode):
    """A small file with content that is created when it is read.

    It contains paths, hosts and errors, so with --allow-other it is for the mounting user and root.
    """

    __slots__ = ("_lately", "_render")
    lifetime = 0.0
    changes = True
    owner_only = True

    def __init__(self, key: Hashable, render: Callable[[], bytes]) -> None:
        # The size is unknown before a read. With direct I/O, readers go on until an empty answer.
        super().__init__(key, Attributes(FILE & ~0o044))
        self._render = render
        self._lately: deque[bytes] = deque(maxlen=_RENDERINGS)

    async def read(self, offset: int, size: int) -> bytes:
        """Create the content at offset 0. A later offset reads from the content that the reader
        began with, not from a newer one.
        """
        if offset == 0:
            self._lately.append(self._render())
            return self._lately[-1][:size]
        # This reader has read all of its content, and must not get the end of a longer one.
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


class ActionFile(LiveFile):
    """A file that does something when it is read from its start, and contains the result."""

    __slots__ = ("_act",)

    def __init__(self, key: Hashable, act: Action) -> None:
        super().__init__(key, bytes)
        self._act = act

    async def read(self, offset: int, size: int) -> bytes:
        """Act at offset 0, and return the result when that is done."""
        return (await self._act())[:size] if offset == 0 else b""


class ControlDirectory(StaticDirectory):
    """`.ocifs/`. Its action files are not listed, so that no crawler reads them."""

    __slots__ = ("_actions",)

    def __init__(
        self, files: dict[bytes, Callable[[], bytes]], actions: dict[bytes, Action]
    ) -> None:
        super().__init__(
            NAME, ((name, LiveFile((NAME, name), render)) for name, render in files.items())
        )
        self._actions = {name: ActionFile((NAME, name), act) for name, act in actions.items()}

    def lookup_nowait(self, name: bytes) -> Node:
        return self._actions.get(name) or super().lookup_nowait(name)


class MountRoot(SimpleNode):
    """The root of a mount: the names of another directory, and `.ocifs`.

    With `hidden`, `.ocifs` is not listed: the mount shows an image's files only.
    """

    __slots__ = ("_control", "_hidden", "_inner", "attributes_known", "lifetime")

    def __init__(
        self,
        inner: Directory,
        files: dict[bytes, Callable[[], bytes]],
        actions: dict[bytes, Action] | None = None,
        *,
        hidden: bool = False,
    ) -> None:
        super().__init__(("root", inner.key), inner.attributes)
        self.lifetime = inner.lifetime
        self.attributes_known = inner.attributes_known
        self._inner = inner
        self._hidden = hidden
        self._control = ControlDirectory(files, actions or {})

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
        """Copy the attributes of the inner directory, which become known when it is opened."""
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

    @property
    def unsupported_attributes(self) -> frozenset[bytes]:
        return self._inner.unsupported_attributes

    def attribute_names(self) -> Sequence[bytes]:
        return self._inner.attribute_names()

    async def attribute(self, name: bytes) -> bytes:
        return await self._inner.attribute(name)
