"""Registries as an fsspec filesystem, for pandas, pyarrow, duckdb and dask:
`oci-registry://HOST/REPOSITORY:TAG/PATH`.

fsspec makes instances and calls them from any thread. An instance opens a Tree for each host, in
each process that uses it.

- The filesystem is read-only.
- The part after the host is a path in a mount of that host (docs/semantics.md), so it can be a
  reference.
- Only the ranges that are read are fetched.
- The protocol is not `oci`, which fsspec uses for Oracle's object storage
  (docs/decisions/0080-names-in-python.md).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from ocifs.api import Stat, Tree
from ocifs.errors import (
    AccessDenied,
    BlobMissing,
    IsADirectory,
    NotADirectory,
    NotFound,
    OcifsError,
    ReadOnly,
)
from ocifs.options import Options
from ocifs.verbs.export import export_image
from ocifs.verbs.inspect import inspect_manifest
from ocifs.verbs.prefetch import prefetch_paths

PROTOCOL = "oci-registry"


class RegistryFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Registries as a filesystem. Storage options are the options of `ocifs.open`.

    With `source`, paths are relative to that source, such as a reference or a local archive.
    """

    protocol = PROTOCOL
    root_marker = ""

    def __init__(self, **options: object) -> None:
        source = options.pop("source", None)
        known = {
            name: options.pop(name) for name in list(options) if name in Options.__annotations__
        }
        super().__init__(**options)
        self._options: Options = known  # type: ignore[assignment]
        self._source = None if source is None else str(source)
        # By process: a forked child, as of PyTorch's DataLoader, opens its own registries.
        self._opened: dict[int, _OpenTrees] = {}

    def _split(self, path: str) -> tuple[Tree, str, str]:
        """The tree of a path, the prefix of its paths (`HOST/`), and the path in the tree."""
        path = str(self._strip_protocol(path))
        host, _, rest = path.partition("/")
        if self._source is not None:
            return self._tree(self._source), "", path.lstrip("/")
        if not host:
            raise FileNotFoundError(f"missing host: {PROTOCOL}://HOST/PATH")
        return self._tree(f"{host}/"), f"{host}/", rest

    def _tree(self, source: str) -> Tree:
        opened = self._opened.setdefault(os.getpid(), _OpenTrees())
        # Held while a source is opened, so that two threads do not open it twice.
        with opened.lock:
            if source not in opened.trees:
                opened.trees[source] = Tree(source, self._options)
            return opened.trees[source]

    def info(self, path: str, **_: object) -> dict[str, object]:
        """The attributes of a path. Links are followed, so a tag is a directory."""
        path = str(self._strip_protocol(path))
        with _Errors(path):
            tree, _prefix, rest = self._split(path)
            return _info(path, tree.stat(rest))

    def ls(self, path: str, detail: bool = True, **_: object) -> Sequence[object]:
        """The entries of a directory, or the file itself."""
        path = str(self._strip_protocol(path))
        with _Errors(path):
            tree, prefix, rest = self._split(path)
            try:
                rows = [
                    self._listed(tree, prefix, entry.path, entry.stat) for entry in tree.list(rest)
                ]
            except NotADirectory:
                if not tree.stat(rest).is_file:
                    raise
                rows = [_info(path, tree.stat(rest))]
        return rows if detail else [str(row["name"]) for row in rows]

    @staticmethod
    def _listed(tree: Tree, prefix: str, path: str, stat: Stat) -> dict[str, object]:
        """A listed path. A link has the attributes of its target, or its own if that fails."""
        if stat.is_link:
            try:
                # With the keys of fsspec's LocalFileSystem.
                return {
                    **_info(f"{prefix}{path}", tree.stat(path)),
                    "islink": True,
                    "destination": stat.target,
                }
            except OcifsError:
                pass
        return _info(f"{prefix}{path}", stat)

    def modified(self, path: str) -> object:
        """The time of creation, according to the publisher."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(float(str(self.info(path)["mtime"])), UTC)

    created = modified

    def ukey(self, path: str) -> str:
        """A key that changes with the content, which can happen at any time below a tag."""
        info = self.info(path)
        return f"{info['name']}-{info['size']}-{info['mtime']}"

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: object
    ) -> bytes:
        """Bytes of a file; negative positions count from its end."""
        with _Errors(path):
            tree, _prefix, rest = self._split(path)
            if (start or 0) < 0 or (end or 0) < 0:
                size = tree.stat(rest).size
                start = size + start if start is not None and start < 0 else start
                end = size + end if end is not None and end < 0 else end
            begin = max(start or 0, 0)
            count = None if end is None else max(end - begin, 0)
            return tree.read(rest, begin, count)

    def _open(self, path: str, mode: str = "rb", **options: object) -> AbstractBufferedFile:
        if mode != "rb":
            raise OSError(errno.EROFS, "registries are read-only", path)
        options = {
            name: value
            for name, value in options.items()
            if name in ("block_size", "cache_type", "cache_options")
        }
        return _BufferedFile(self, path, mode, size=self.info(path)["size"], **options)

    def inspect(self, path: str) -> dict[str, object]:
        """The description of the manifest at a path, as `ocifs inspect --json` prints it."""
        tree, _prefix, rest = self._split(path)
        with _Errors(path):
            return tree.run(inspect_manifest, rest).as_dict()
        raise AssertionError("errors are raised, never swallowed")

    def prefetch(self, path: str) -> int:
        """Fetch everything at and below a path into the cache, and return the number of bytes."""
        tree, _prefix, rest = self._split(path)
        with _Errors(path):
            return tree.run(prefetch_paths, [rest])
        raise AssertionError("errors are raised, never swallowed")

    def export(self, path: str, destination: str) -> str:
        """Export the manifest at a path to the layout `oci:DIR[:TAG]`, and return its digest."""
        tree, _prefix, rest = self._split(path)
        with _Errors(path):
            return str(tree.run(export_image, destination, rest))
        raise AssertionError("errors are raised, never swallowed")

    def close(self) -> None:
        """Close the registries that this process opened."""
        opened = self._opened.pop(os.getpid(), _OpenTrees())
        with opened.lock:
            while opened.trees:
                opened.trees.popitem()[1].close()

    def _refuse(self, path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "registries are read-only", path)

    # Those of fsspec do nothing, without an error, or raise NotImplementedError.
    mkdir = makedirs = mkdirs = rmdir = rm = rm_file = _rm = _refuse
    touch = pipe_file = put_file = cp_file = copy = mv = move = sign = _refuse


@dataclass(frozen=True, slots=True)
class _OpenTrees:
    """The registries that one process has opened, by host."""

    trees: dict[str, Tree] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _BufferedFile(AbstractBufferedFile):  # type: ignore[misc]
    """One file, with fsspec's read-ahead."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


class _Errors:
    """Raises OcifsErrors as the errors that Python programs expect of files."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for kind_of_error, python_error in _PYTHON_ERRORS.items():
            if isinstance(error, kind_of_error):
                raise python_error(f"{self._path}: {error}") from error
        if isinstance(error, OcifsError):
            raise OSError(f"{self._path}: {error}") from error


_PYTHON_ERRORS: dict[type[OcifsError], type[OSError]] = {
    # Before its base class NotFound.
    BlobMissing: OSError,
    NotFound: FileNotFoundError,
    NotADirectory: NotADirectoryError,
    IsADirectory: IsADirectoryError,
    AccessDenied: PermissionError,
    ReadOnly: PermissionError,
}


def _info(path: str, stat: Stat) -> dict[str, object]:
    file_type = "file" if stat.is_file else "link" if stat.is_link else "other"
    return {
        "name": path.rstrip("/"),
        "size": 0 if stat.is_dir else stat.size,
        "type": "directory" if stat.is_dir else file_type,
        "mtime": stat.mtime_ns / 1e9,
        "mode": stat.mode,
    }
