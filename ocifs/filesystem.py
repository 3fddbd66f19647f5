"""Registries for fsspec: `oci-registry://HOST/REPOSITORY:TAG/PATH`, so that pandas, pyarrow, duckdb and dask read from them.

Rules that hold here: read-only; what follows the host is a path in a mount of that host (docs/semantics.md), so a reference is one; ranges
are fetched as they are read. The name is not `oci`, which fsspec gives to Oracle's object storage (docs/decisions/0080-names-in-python.md).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from ocifs.api import Stat, Tree
from ocifs.errors import AccessDenied, BlobMissing, IsADirectory, NotADirectory, NotFound, OcifsError, ReadOnly
from ocifs.options import Options

PROTOCOL = "oci-registry"


class RegistryFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Registries as an fsspec filesystem. Storage options are those of `ocifs.open`."""

    protocol = PROTOCOL
    root_marker = ""

    def __init__(self, **options: object) -> None:
        known = {name: options.pop(name) for name in list(options) if name in Options.__annotations__}
        super().__init__(**options)
        self._options: Options = known  # type: ignore[assignment]
        # By process: a forked child (PyTorch's DataLoader) opens registries of its own.
        self._opened: dict[int, _Opened] = {}

    def _split(self, path: str) -> tuple[Tree, str]:
        """The registry's tree, opened once, and the path in it."""
        host, _, rest = str(self._strip_protocol(path)).partition("/")
        if not host:
            raise FileNotFoundError(f"{PROTOCOL}:// needs a host")
        opened = self._opened.setdefault(os.getpid(), _Opened())
        with opened.lock:
            if host not in opened.trees:
                opened.trees[host] = Tree(f"{host}/", self._options)
            return opened.trees[host], rest

    def info(self, path: str, **_: object) -> dict[str, object]:
        """What a path is; links are followed, so that a tag is a directory."""
        path = str(self._strip_protocol(path))
        with _Errors(path):
            tree, rest = self._split(path)
            return _info(path, tree.stat(rest))

    def ls(self, path: str, detail: bool = True, **_: object) -> Sequence[object]:
        """What a directory lists, or the file itself."""
        path = str(self._strip_protocol(path))
        with _Errors(path):
            tree, rest = self._split(path)
            try:
                host = path.partition("/")[0]
                found = [self._listed(tree, host, each.path, each.stat) for each in tree.list(rest)]
            except NotADirectory:
                if not tree.stat(rest).is_file:
                    raise
                found = [_info(path, tree.stat(rest))]
        return found if detail else [str(each["name"]) for each in found]

    @staticmethod
    def _listed(tree: Tree, host: str, path: str, found: Stat) -> dict[str, object]:
        """A listed link is what it leads to, where that is at hand; where not, it is a link."""
        if found.is_link:
            try:
                return {**_info(f"{host}/{path}", tree.stat(path)), "islink": True, "destination": found.target}
            except OcifsError:
                pass
        return _info(f"{host}/{path}", found)

    def modified(self, path: str) -> object:
        """When it was made, as its publisher says."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(float(str(self.info(path)["mtime"])), UTC)

    created = modified

    def ukey(self, path: str) -> str:
        """What changes when the content does: under a tag, that may be at any time."""
        found = self.info(path)
        return f"{found['name']}-{found['size']}-{found['mtime']}"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        """Bytes of a file; negative positions count from its end."""
        with _Errors(path):
            tree, rest = self._split(path)
            if (start or 0) < 0 or (end or 0) < 0:
                size = tree.stat(rest).size
                start = size + start if start is not None and start < 0 else start
                end = size + end if end is not None and end < 0 else end
            begin = max(start or 0, 0)
            return tree.read(rest, begin, None if end is None else max(end - begin, 0))

    def _open(self, path: str, mode: str = "rb", **options: object) -> AbstractBufferedFile:
        if mode != "rb":
            raise OSError(errno.EROFS, "registries are read-only", path)
        options = {
            name: value for name, value in options.items() if name in ("block_size", "cache_type", "cache_options")
        }
        return _File(self, path, mode, size=self.info(path)["size"], **options)

    def close(self) -> None:
        """Close the registries that this process opened."""
        opened = self._opened.pop(os.getpid(), _Opened())
        with opened.lock:
            while opened.trees:
                opened.trees.popitem()[1].close()

    def _refuse(self, path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "registries are read-only", path)

    # fsspec's own do nothing, without an error, or raise NotImplementedError.
    mkdir = makedirs = mkdirs = rmdir = rm = rm_file = _rm = _refuse
    touch = pipe_file = put_file = cp_file = copy = mv = move = sign = _refuse


@dataclass(frozen=True, slots=True)
class _Opened:
    """The registries that one process has opened, by host."""

    trees: dict[str, Tree] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _File(AbstractBufferedFile):  # type: ignore[misc]
    """One file, with fsspec's read-ahead."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


class _Errors:
    """Our errors as the ones that Python programs expect of files."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for ours, theirs in _THEIRS.items():
            if isinstance(error, ours):
                raise theirs(f"{self._path}: {error}") from error
        if isinstance(error, OcifsError):
            raise OSError(f"{self._path}: {error}") from error


_THEIRS: dict[type[OcifsError], type[OSError]] = {
    BlobMissing: OSError,  # before its parent
    NotFound: FileNotFoundError,
    NotADirectory: NotADirectoryError,
    IsADirectory: IsADirectoryError,
    AccessDenied: PermissionError,
    ReadOnly: PermissionError,
}


def _info(path: str, found: Stat) -> dict[str, object]:
    kind = "directory" if found.is_dir else "file" if found.is_file else "link" if found.is_link else "other"
    return {
        "name": path.rstrip("/"),
        "size": 0 if found.is_dir else found.size,
        "type": kind,
        "mtime": found.mtime_ns / 1e9,
        "mode": found.mode,
    }
