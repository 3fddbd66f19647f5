"""The files of a layout that is a directory.

The directory may belong to another user, and may change at any time.

Everything blocks: callers are worker threads. An object may be used by several threads.

Rules that hold here:

- A path is resolved through descriptors, one component at a time, so that a concurrent change
  cannot redirect it. Links inside the layout are followed. A link out of the layout is an error.
- The directory's own path is resolved once, when the layout is opened. Links that are put into it
  later are not followed.
- The current state is read: the owner may add to the layout, or replace it, while it is mounted.
- A file is not trusted if it has another owner than the directory, or several names in a directory
  that others can write to. It may be a hard link to a file of another user.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ocifs.errors import Malformed
from ocifs.layout.file_range import (
    FileRange,
    check_version,
    open_regular,
    read_exactly,
    translate_errors,
    version_of,
)

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = 40  # symbolic links in one lookup, as in Linux
_LONGEST = 4096  # bytes of a path, as in Linux
_DEEPEST = 32  # open directories of one lookup; a layout has two


class DirectoryFiles:
    """A layout that is a directory."""

    def __init__(self, path: str) -> None:
        """Raises NotFound, AccessDenied or Malformed if `path` is not a readable directory."""
        self.shown = path
        with translate_errors(path):
            self._path = os.path.realpath(path, strict=True)
        self._opened_root: _RootHandle | None = None
        status = os.fstat(self._root().descriptor)
        self._owner = status.st_uid
        self._shared = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))

    def find(self, name: str) -> FileRange:
        """The regular file at a relative path.

        Raises NotFound, or Malformed if the file must not be opened.
        """
        shown = f"{self.shown}/{name}"
        with self._opened(name) as descriptor, translate_errors(shown):
            status = os.fstat(descriptor)
        version = version_of(status)

        # Each read opens the file again, so that no descriptor remains open between reads.
        def read_at(offset: int, length: int) -> bytes:
            with self._opened(name) as descriptor:
                check_version(descriptor, version, shown)
                return read_exactly(descriptor, offset, length, shown)

        trusted = status.st_uid == self._owner and (status.st_nlink == 1 or not self._shared)
        return FileRange(status.st_size, version, read_at, trusted)

    def has(self, name: str) -> bool:
        """Whether there is a directory entry of this name, of any type. Does not follow links."""
        root = self._root()
        try:
            os.stat(name, dir_fd=root.descriptor, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _root(self) -> _RootHandle:
        """The directory, reopened without following links if its path names another one now."""
        with translate_errors(self.shown):
            status = os.stat(self._path, follow_symlinks=False)
        # Other threads may still use the previous descriptor: it is closed by `__del__`.
        opened = self._opened_root
        if opened is None or (status.st_dev, status.st_ino) != opened.identity:
            opened = self._opened_root = _RootHandle(self._path, self.shown)
        return opened

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """A descriptor of a file of the layout."""
        # The local reference prevents another thread from closing the descriptor during the lookup.
        root = self._root()
        descriptor = _Walk(root.descriptor, f"{self.shown}/{name}").open(name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class _RootHandle:
    """A directory, opened without following links.

    It is closed when the last thread has released it.
    """

    __slots__ = ("descriptor", "identity")

    def __init__(self, path: str, shown: str) -> None:
        # If a component cannot be opened, `__del__` closes the last descriptor.
        self.descriptor = os.open("/", _DIRECTORY)
        for part in path.split("/"):
            if part:
                with translate_errors(shown):
                    below = os.open(part, _DIRECTORY, dir_fd=self.descriptor)
                os.close(self.descriptor)
                self.descriptor = below
        status = os.fstat(self.descriptor)
        self.identity = (status.st_dev, status.st_ino)

    def __del__(self) -> None:
        os.close(self.descriptor)


class _Walk:
    """One lookup below a directory.

    `..` returns to the previous directory of this lookup, never to the parent on disk.
    """

    def __init__(self, root: int, shown: str) -> None:
        self._above = [root]
        self._shown = shown
        self._links = 0

    def open(self, path: str) -> int:
        """Open the regular file at a relative path."""
        try:
            return self._open(path)
        finally:
            # The first descriptor belongs to the _RootHandle.
            for descriptor in self._above[1:]:
                os.close(descriptor)

    def _open(self, path: str) -> int:
        todo = path.split("/")[::-1]
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                # The root of the layout has no parent in this lookup.
                if len(self._above) == 1:
                    raise self._leads_out()
                os.close(self._above.pop())
                continue
            parent = self._above[-1]
            with translate_errors(self._shown):
                mode = os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode
            # If the entry is replaced after this check, O_NOFOLLOW makes the open fail.
            if stat.S_ISLNK(mode):
                todo += self._target(part, parent)
            elif any(component not in ("", ".") for component in todo):
                if len(self._above) > _DEEPEST:
                    raise Malformed(f"too many levels of directories: {self._shown}")
                with translate_errors(self._shown):
                    self._above.append(os.open(part, _DIRECTORY, dir_fd=parent))
            else:
                return open_regular(part, self._shown, within=parent)
        raise Malformed(f"not a regular file: {self._shown} (a directory)")

    def _target(self, name: str, parent: int) -> list[str]:
        """The components of a link's target, in reverse order."""
        self._links += 1
        with translate_errors(self._shown):
            target = os.readlink(name, dir_fd=parent)
        if target.startswith("/"):
            raise self._leads_out()
        if self._links > _LINKS or len(target) > _LONGEST:
            raise Malformed(f"too many levels of symbolic links: {self._shown}")
        return target.split("/")[::-1]

    def _leads_out(self) -> Malformed:
        hint = "links out of a layout are not followed; `cp -rL` makes a copy without links"
        return Malformed(f"a symbolic link leads out of the layout: {self._shown}", hint=hint)
