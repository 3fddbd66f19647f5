"""The files of a layout that is a directory.

It may belong to a stranger, and change while it is read.

Everything blocks: callers are worker threads. An object may be used from several threads.

Rules that hold here:
- A path is walked by descriptors, one component at a time, so that no change in the meantime leads
  elsewhere. Links inside the layout are followed; one that leads out of it is an error.
- The directory's own path is resolved once, when the layout is opened. A link put into it later is
  not followed.
- A layout is read as it is now: whoever owns it may add to it, or replace it, while it is mounted.
- A file of another owner than the directory may be someone else's, linked here, and so may one with
  several names if others can write to the directory. It is not trusted.
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
_LINKS = 40  # that are followed on the way to one file, as in Linux
_LONGEST = 4096  # of a path, as in Linux
_DEEPEST = 32  # directories that are open at a time; a layout has two


class DirectoryFiles:
    """A layout that is a directory."""

    def __init__(self, path: str) -> None:
        """Raises NotFound, Malformed and the like if it is not a directory that can be read."""
        self.shown = path
        with translate_errors(path):
            self._path = os.path.realpath(path, strict=True)
        self._opened_root: _RootHandle | None = None
        status = os.fstat(self._root().descriptor)
        self._owner = status.st_uid
        self._shared = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))

    def find(self, name: str) -> FileRange:
        """The regular file of a relative path.

        Raises NotFound, Malformed for what must not be opened.
        """
        shown = f"{self.shown}/{name}"
        with self._opened(name) as descriptor, translate_errors(shown):
            status = os.fstat(descriptor)
        version = version_of(status)

        def read_at(offset: int, length: int) -> bytes:
            with self._opened(name) as descriptor:
                check_version(descriptor, version, shown)
                return read_exactly(descriptor, offset, length, shown)

        trusted = status.st_uid == self._owner and (status.st_nlink == 1 or not self._shared)
        return FileRange(status.st_size, version, read_at, trusted)

    def has(self, name: str) -> bool:
        """Whether there is something of this name, of whatever type. Follows no link."""
        root = self._root()
        try:
            os.stat(name, dir_fd=root.descriptor, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _root(self) -> _RootHandle:
        """The directory as it is now: the open one as long as its path leads to it, else what the
        path leads to without a link.
        """
        with translate_errors(self.shown):
            status = os.stat(self._path, follow_symlinks=False)
        opened = self._opened_root
        if opened is None or (status.st_dev, status.st_ino) != opened.identity:
            opened = self._opened_root = _RootHandle(self._path, self.shown)
        return opened

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """A descriptor of a file of the layout."""
        root = self._root()
        descriptor = _Walk(root.descriptor, f"{self.shown}/{name}").open(name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class _RootHandle:
    """An open directory that was reached without following a link.

    It is closed when no thread uses it.
    """

    __slots__ = ("descriptor", "identity")

    def __init__(self, path: str, shown: str) -> None:
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
    """One walk below a directory.

    `..` goes back to the directory that the walk came through, never to a parent on disk.
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
            for descriptor in self._above[1:]:
                os.close(descriptor)

    def _open(self, path: str) -> int:
        todo = path.split("/")[::-1]
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(self._above) == 1:
                    raise self._leads_out()
                os.close(self._above.pop())
                continue
            here = self._above[-1]
            with translate_errors(self._shown):
                mode = os.stat(part, dir_fd=here, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                todo += self._target(part, here)
            elif any(each not in ("", ".") for each in todo):
                if len(self._above) > _DEEPEST:
                    raise Malformed(f"too many directories on the way: {self._shown}")
                with translate_errors(self._shown):
                    self._above.append(os.open(part, _DIRECTORY, dir_fd=here))
            else:
                return open_regular(part, self._shown, within=here)
        raise Malformed(f"not a regular file: {self._shown} (a directory)")

    def _target(self, name: str, here: int) -> list[str]:
        """The components of a link's target, the last first."""
        self._links += 1
        with translate_errors(self._shown):
            target = os.readlink(name, dir_fd=here)
        if target.startswith("/"):
            raise self._leads_out()
        if self._links > _LINKS or len(target) > _LONGEST:
            raise Malformed(f"too many symbolic links: {self._shown}")
        return target.split("/")[::-1]

    def _leads_out(self) -> Malformed:
        hint = "links out of a layout are not followed; `cp -rL` makes a copy without links"
        return Malformed(f"a symbolic link leads out of the layout: {self._shown}", hint=hint)
