"""ocifs for Python programs: what a mount shows, without a mount.

    with ocifs.open("registry.example.com/team/app:v1") as tree:      blocking, from any thread
        tree.read("manifest.json")
    async with ocifs.open_async("oci:./layout") as tree:              for programs that run on trio
        await tree.read("_manifests/1.0/manifest.json")

Rules that hold here: paths are those of docs/semantics.md, relative to the source, as text (bytes that are no UTF-8 as surrogate escapes);
links are followed, as open(2) does, unless `follow=False`; every wait is bounded by `timeout` and `max_wait`; what is raised is OcifsError.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypedDict, TypeVar, Unpack

import trio

from ocifs.app import open_tree, run_to_end
from ocifs.concurrency import patience
from ocifs.errors import InvalidReference, IsADirectory, NotADirectory, OcifsError, UsageError
from ocifs.oci.platform import Platform
from ocifs.oci.reference import hosts_of, parse_source
from ocifs.registry.registries_conf import expand
from ocifs.settings import CacheSettings, NetworkSettings, Settings, Timing, ViewSettings, default_cache_directory
from ocifs.tree.node import Directory, File, Node, Symlink
from ocifs.tree.walk import walk

T = TypeVar("T")
_PIECE = 1 << 20


class Options(TypedDict, total=False):
    """What can be said besides the source; names and meanings are those of the command line (docs/reference/cli.md)."""

    plain_http: bool
    insecure_tls: bool
    ca_file: str | os.PathLike[str]
    authfile: str | os.PathLike[str]
    hosts_dir: str | os.PathLike[str]
    registries_conf: str | os.PathLike[str]
    cache_dir: str | os.PathLike[str]
    cache_size: int
    cache_free: int
    offline: bool
    verify: str
    timeout: float
    max_wait: float
    tag_ttl: float
    platform: str
    owner: str
    links: str
    soci: bool
    repo: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stat:
    """What a path is: st_mode, bytes, nanoseconds since 1970, and where a link leads."""

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
    """One name found: its path relative to the source, and what it is (links are not followed)."""

    path: str
    stat: Stat


class AsyncTree:
    """A source, for programs on trio. Use `open_async`."""

    def __init__(self, root: Directory, timing: Timing) -> None:
        self._root = root
        self._timing = timing

    async def _node(self, path: str, *, follow: bool = True) -> Node:
        with patience(self._timing.timeout, self._timing.max_wait):
            return await walk(self._root, os.fsencode(path), follow=follow)
        raise AssertionError("patience raises when it ends")

    async def stat(self, path: str = "", *, follow: bool = True) -> Stat:
        """What a path is. Raises NotFound and whatever keeps it from being known."""
        return _stat(await self._node(path, follow=follow))

    async def list(self, path: str = "") -> list[Entry]:
        """What a directory lists. Raises NotADirectory."""
        node = await self._node(path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"{path!r} is no directory")
        with patience(self._timing.timeout, self._timing.max_wait):
            entries = await node.entries()
        prefix = path.rstrip("/") + "/" if path.strip("/") else ""
        return [Entry(prefix + os.fsdecode(entry.name), _stat(entry.node)) for entry in entries]

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes [offset, offset+size) of a file, or all from offset; fewer only at its end. Raises IsADirectory, IntegrityError, …"""
        node = await self._node(path)
        if not isinstance(node, File):
            raise IsADirectory(f"{path!r} is a directory")
        parts: list[bytes] = []
        wanted = size
        while wanted is None or wanted > 0:
            with patience(self._timing.timeout, self._timing.max_wait):
                piece = await node.read(offset, _PIECE if wanted is None else min(wanted, _PIECE))
            if not piece:
                break
            parts.append(piece)
            offset += len(piece)
            wanted = None if wanted is None else wanted - len(piece)
        return b"".join(parts)

    async def walk(self, path: str = "") -> AsyncIterator[Entry]:
        """Everything below a directory, each directory before what is in it. Links are given, and not followed."""
        for entry in await self.list(path):
            yield entry
            if entry.stat.is_dir:
                async for below in self.walk(entry.path):
                    yield below


class Tree:
    """A source, blocking. Its methods are those of AsyncTree; it may be used from several threads. Close it, or use it in a `with`."""

    def __init__(self, source: str, options: Options) -> None:
        self._source = source
        self._options = options
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._tree: AsyncTree | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._ended: trio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=f"ocifs {source}", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        async def main() -> None:
            async with open_async(self._source, **self._options) as tree:
                self._tree, self._token, self._ended = tree, trio.lowlevel.current_trio_token(), trio.Event()
                self._ready.set()
                await self._ended.wait()

        try:
            run_to_end(main)
        except BaseException as error:  # whoever opens it is to have it
            self._failed = error
        finally:
            self._tree = None
            self._ready.set()

    def _call(self, work: Callable[[AsyncTree], Awaitable[T]]) -> T:
        tree, token = self._tree, self._token
        if tree is None or token is None:
            raise UsageError(f"{self._source} is closed")
        try:
            return trio.from_thread.run(work, tree, trio_token=token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise UsageError(f"{self._source} is closed") from None

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
        """A file to read and seek in, as tarfile, zipfile and the like want it; only what is read is fetched."""
        found = self.stat(path)
        if found.is_dir:
            raise IsADirectory(f"{path!r} is a directory")
        return io.BufferedReader(_Raw(self, path, found.size), 128 << 10)

    def close(self) -> None:
        """End it; twice is once."""
        if self._token is not None and self._ended is not None and self._thread.is_alive():
            try:
                self._token.run_sync_soon(self._ended.set)
            except trio.RunFinishedError:
                return
            self._thread.join(10)

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Raw(io.RawIOBase):
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
            raise ValueError(f"before the begin of {self._path!r}")
        self._offset = base + offset
        return self._offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self._tree.read(self._path, self._offset, len(buffer))
        buffer[: len(found)] = found
        self._offset += len(found)
        return len(found)


def open(source: str, **options: Unpack[Options]) -> Tree:
    """Open a source: a registry, a part of one, a reference, a layout (docs/semantics.md). Raises what keeps it from being opened."""
    return Tree(source, options)


@asynccontextmanager
async def open_async(source: str, **options: Unpack[Options]) -> AsyncIterator[AsyncTree]:
    """The same for programs that run on trio, for as long as the block lasts."""
    conf = _path(options.get("registries_conf"))
    parsed = parse_source(await trio.to_thread.run_sync(expand, source, os.environ, conf))
    settings = settings_of(hosts_of(parsed), options)
    async with open_tree(parsed, settings) as root:
        yield AsyncTree(root, settings.timing)


def settings_of(named: Collection[str], options: Options) -> Settings:
    """The settings that options mean for a source on the named hosts. Raises UsageError."""
    unknown = sorted(options.keys() - Options.__annotations__.keys())
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)}: no such option", hint=f"there are: {', '.join(Options.__annotations__)}"
        )
    paths = {name: _path(options.get(name)) for name in _PATHS}
    seconds = {name: float(options[name]) for name in ("timeout", "max_wait", "tag_ttl") if name in options}
    hosts = frozenset(named)
    try:
        platform = Platform.parse(options["platform"]) if options.get("platform") else None
    except OcifsError as error:
        raise InvalidReference(str(error)) from None
    return Settings(
        timing=Timing.within(**seconds),
        cache=CacheSettings(
            directory=paths["cache_dir"] or default_cache_directory(),
            size=options.get("cache_size"),
            free_space=options.get("cache_free"),
            verify_full=options.get("verify", "end") == "full",
            offline=options.get("offline", False),
        ),
        network=NetworkSettings(
            plain_http=hosts if options.get("plain_http") else frozenset(),
            insecure_tls=hosts if options.get("insecure_tls") else frozenset(),
            ca_file=paths["ca_file"],
            authfile=paths["authfile"],
            hosts_directory=paths["hosts_dir"],
            registries_conf=paths["registries_conf"],
            named_host=next(iter(hosts)) if len(hosts) == 1 else "",
        ),
        view=ViewSettings(
            platform=platform,
            owner=options.get("owner", "user"),
            links=options.get("links", "inside"),
            soci=options.get("soci", False),
            repositories=tuple(options.get("repo", ())),
        ),
    )


_PATHS = ("ca_file", "authfile", "hosts_dir", "registries_conf", "cache_dir")


def _path(given: object) -> Path | None:
    return Path(str(given)).absolute() if given else None


def _stat(node: Node) -> Stat:
    attributes = node.attributes
    target = os.fsdecode(node.target) if isinstance(node, Symlink) else ""
    return Stat(attributes.mode, attributes.size, attributes.mtime_ns, target)
