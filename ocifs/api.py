"""The Python API: the tree of a mount, without a mount.

    with ocifs.open("registry.example.com/team/app:v1") as tree:      blocking, from any thread
        tree.read("manifest.json")
    async with ocifs.open_async("oci:./layout") as tree:              for programs on trio
        await tree.read("_manifests/1.0/manifest.json")

An AsyncTree lives in the caller's event loop. A Tree starts a thread with an event loop, in which
an AsyncTree lives, and passes each call on to it. In a forked child that thread does not exist: the
first call in the child starts another one, and opens the source again.

- Paths are those of docs/semantics.md, relative to the source, as text. Bytes that are not UTF-8
  are surrogate escapes.
- Symbolic links are followed, as by open(2), unless `follow=False`.
- Every wait ends after `timeout` without progress, or after `max_wait`.
- Errors are OcifsErrors.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from ocifs.app import StatusSources, open_tree, run_to_end
from ocifs.concurrency import deadline, in_thread
from ocifs.errors import IsADirectory, NotADirectory, UsageError
from ocifs.oci.reference import Source, hosts_of, parse_source
from ocifs.options import Options, path_of, settings_of
from ocifs.registry.config.registries_conf import expand
from ocifs.settings import Settings
from ocifs.tree.node import Directory, File, Node, Symlink
from ocifs.tree.walk import walk

T = TypeVar("T")
Args = TypeVarTuple("Args")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stat:
    """The attributes of a path: st_mode, bytes, nanoseconds since 1970, and a link's target."""

    mode: int
    size: int
    mtime_ns: int
    target: str = ""

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed path, relative to the source, and its attributes. Links are not followed."""

    path: str
    stat: Stat


class AsyncTree:
    """A source, for programs on trio. Use `open_async`.

    `root` is the tree of nodes, for the functions of `ocifs.verbs`; `status` are the sources of the
    fields of status.json.
    """

    def __init__(
        self, source: Source, root: Directory, settings: Settings, status: StatusSources
    ) -> None:
        self.source = source
        self.root = root
        self.settings = settings
        self.timing = settings.timing
        self.status = status

    def deadline(self) -> AbstractContextManager[object]:
        """A block that raises DeadlineExceeded after `timeout` without progress, or `max_wait`."""
        return deadline(self.timing.timeout, self.timing.max_wait)

    async def node(self, path: str, *, follow: bool = True) -> Node:
        """The node at a path. Raises NotFound, NotADirectory and the errors of a read."""
        with self.deadline():
            return await walk(self.root, os.fsencode(path), follow=follow)
        # For mypy, which assumes that a context manager may swallow exceptions.
        raise AssertionError("a deadline raises when it passes")

    async def stat(self, path: str = "", *, follow: bool = True) -> Stat:
        """The attributes of a path. Raises NotFound, NotADirectory and the errors of a read."""
        return _stat(await self.node(path, follow=follow))

    async def list(self, path: str = "") -> list[Entry]:
        """The entries of a directory. Raises NotADirectory."""
        node = await self.node(path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"not a directory: {path!r}")
        with self.deadline():
            entries = await node.entries()
        prefix = path.rstrip("/") + "/" if path.strip("/") else ""
        return [Entry(prefix + os.fsdecode(entry.name), _stat(entry.node)) for entry in entries]

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Up to `size` bytes from `offset`, or all; fewer only at the end of the file.

        Raises IsADirectory, IntegrityError and the errors of a read.
        """
        node = await self.node(path)
        if not isinstance(node, File):
            raise IsADirectory(f"is a directory: {path!r}")
        chunks: list[bytes] = []
        remaining = size
        while remaining is None or remaining > 0:
            with self.deadline():
                chunk = await node.read(
                    offset, _CHUNK if remaining is None else min(remaining, _CHUNK)
                )
            if not chunk:
                break
            chunks.append(chunk)
            offset += len(chunk)
            remaining = None if remaining is None else remaining - len(chunk)
        return b"".join(chunks)

    async def walk(self, path: str = "") -> AsyncIterator[Entry]:
        """Everything below a directory, each directory before its content.

        Links are included, but not followed.
        """
        for entry in await self.list(path):
            yield entry
            if entry.stat.is_dir:
                async for below in self.walk(entry.path):
                    yield below


class _Loop:
    """A thread with the event loop of one tree, in the process that started it.

    The constructor returns when the tree is open, and raises the errors that prevent that.
    """

    def __init__(self, source: str, options: Options) -> None:
        self._source = source
        self._options = options
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._tree: AsyncTree | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._ended: trio.Event | None = None
        # A daemon thread, so that a program which does not close the tree can still end.
        self._thread = threading.Thread(target=self._run, name=f"ocifs {source}", daemon=True)
        self._thread.start()
        # Set when the tree is open, and also when it cannot be opened.
        self._ready.wait()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        async def main() -> None:
            async with open_async(self._source, **self._options) as tree:
                self._tree, self._token, self._ended = (
                    tree,
                    trio.lowlevel.current_trio_token(),
                    trio.Event(),
                )
                self._ready.set()
                await self._ended.wait()

        try:
            run_to_end(main)
        except BaseException as error:
            # Raised again in the thread that opens the tree.
            self._failed = error
        finally:
            # From here on, a call raises UsageError and does not wait for an ended loop.
            self._tree = None
            self._ready.set()

    def call(self, work: Callable[[AsyncTree], Awaitable[T]]) -> T:
        # Local, because the thread of the loop clears `_tree` at any time.
        tree, token = self._tree, self._token
        if tree is None or token is None:
            raise UsageError(f"closed: {self._source}")
        try:
            return trio.from_thread.run(work, tree, trio_token=token)
        # The loop has ended, or ended while the call was running.
        except (trio.RunFinishedError, trio.Cancelled):
            raise UsageError(f"closed: {self._source}") from None

    def close(self) -> None:
        if self._token is not None and self._ended is not None and self._thread.is_alive():
            try:
                self._token.run_sync_soon(self._ended.set)
            except trio.RunFinishedError:
                return
            # Not longer: the thread is a daemon thread, which ends with the process at the latest.
            self._thread.join(10)


class Tree:
    """A source, for programs without an event loop. Use `open`.

    Its methods are those of AsyncTree, and block. Several threads and forked children may use it.
    Close it, or use it in a `with` block.
    """

    def __init__(self, source: str, options: Options) -> None:
        self._source = source
        self._options = options
        self._closed = False
        # By process: a child must not use its parent's loop, or a lock that was held at the fork.
        self._loops = {os.getpid(): _Loop(source, options)}
        self._locks: dict[int, threading.Lock] = {}

    def _call(self, work: Callable[[AsyncTree], Awaitable[T]]) -> T:
        pid = os.getpid()
        loop = self._loops.get(pid)
        if loop is None:
            # setdefault is atomic, so all threads of a child get the same lock.
            with self._locks.setdefault(pid, threading.Lock()):
                if self._closed:
                    raise UsageError(f"closed: {self._source}")
                loop = self._loops.get(pid) or self._loops.setdefault(
                    pid, _Loop(self._source, self._options)
                )
        return loop.call(work)

    def run(self, function: Callable[[AsyncTree, Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
        """Run a coroutine function, such as one of `ocifs.verbs`, with the AsyncTree and `args`."""
        return self._call(lambda tree: function(tree, *args))

    def stat(self, path: str = "", *, follow: bool = True) -> Stat:
        """See AsyncTree."""
        return self._call(lambda tree: tree.stat(path, follow=follow))

    def list(self, path: str = "") -> list[Entry]:
        """See AsyncTree."""
        return self._call(lambda tree: tree.list(path))

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See AsyncTree."""
        return self._call(lambda tree: tree.read(path, offset, size))

    def walk(self, path: str = "") -> Iterator[Entry]:
        """See AsyncTree."""
        for entry in self.list(path):
            yield entry
            if entry.stat.is_dir:
                yield from self.walk(entry.path)

    def open(self, path: str) -> io.BufferedReader:
        """A seekable file, for tarfile, zipfile and the like. Only the parts read are fetched."""
        stat = self.stat(path)
        if stat.is_dir:
            raise IsADirectory(f"is a directory: {path!r}")
        return io.BufferedReader(_RawFile(self, path, stat.size), 128 << 10)

    def close(self) -> None:
        """Close the tree in this process. A second call does nothing."""
        self._closed = True
        loop = self._loops.get(os.getpid())
        if loop is not None:
            loop.close()

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _RawFile(io.RawIOBase):
    """A file of a tree, for io.BufferedReader."""

    def __init__(self, tree: Tree, path: str, size: int) -> None:
        self._tree, self._path, self._size, self._offset = tree, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position in {self._path!r}")
        self._offset = base + offset
        return self._offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self._tree.read(self._path, self._offset, len(buffer))
        buffer[: len(chunk)] = chunk
        self._offset += len(chunk)
        return len(chunk)


def open(source: str, **options: Unpack[Options]) -> Tree:
    """Open a registry, a part of one, a reference or a local source (docs/semantics.md).

    Raises the errors that prevent opening it.
    """
    return Tree(source, options)


@asynccontextmanager
async def open_async(source: str, **options: Unpack[Options]) -> AsyncIterator[AsyncTree]:
    """Open a source in the event loop of trio, while the block lasts. See `open`."""
    conf = path_of(options.get("registries_conf"))
    parsed = parse_source(await in_thread(expand, source, os.environ, conf))
    settings = settings_of(hosts_of(parsed), options)
    status: StatusSources = {}
    async with open_tree(parsed, settings, status) as root:
        yield AsyncTree(parsed, root, settings, status)


def _stat(node: Node) -> Stat:
    attributes = node.attributes
    target = os.fsdecode(node.target) if isinstance(node, Symlink) else ""
    return Stat(attributes.mode, attributes.size, attributes.mtime_ns, target)
