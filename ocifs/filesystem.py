"""Registries for fsspec: `oci-registry://HOST/REPOSITORY:TAG/PATH`, so that pandas, pyarrow, duckdb
and dask read from them.

Rules that hold here: read-only; what follows the host is a path in a mount of that host
(docs/semantics.md), so a reference is one; ranges are fetched as they are read. The name is not
`oci`, which fsspec gives to Oracle's object storage (docs/decisions/0080-names-in-python.md).
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
    """Registries as an fsspec filesystem. Storage options are those of `ocifs.open`.

    With `source`, paths are those in that source, as in `ocifs.open(source)`: a reference, an
    archive on this machine.
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
        # By process: a forked child (PyTorch's DataLoader) opens registries of its own.
        self._opened: dict[int, _Opened] = {}

    def _split(self, path: str) -> tuple[Tree, str, str]:
        """The tree that a path is in, opened once; what the path begins with before that in the
        tree; and that.
        """
        path = str(self._strip_protocol(path))
        host, _, rest = path.partition("/")
        if self._source is not None:
            return self._tree(self._source), "", path.lstrip("/")
        if not host:
            raise FileNotFoundError(f"{PROTOCOL}:// needs a host")
        return self._tree(f"{host}/"), f"{host}/", rest

    def _tree(self, source: str) -> Tree:
        opened = self._opened.setdefault(os.getpid(), _Opened())
        with opened.lock:
            if source not in opened.trees:
                opened.trees[source] = Tree(source, self._options)
            return opened.trees[source]

    def info(self, path: str, **_: object) -> dict[str, object]:
        """What a path is; links are followed, so that a tag is a directory."""
        path = str(self._strip_protocol(path))
        with _Errors(path):
            tree, _before, rest = self._split(path)
            return _info(path, tree.stat(rest))

    def ls(self, path: str, detail: bool = True, **_: object) -> Sequence[object]:
        """What a directory lists, or the file itself."""
        path = str(self._strip_protocol(path))
        with _Errors(path):
            tree, before, rest = self._split(path)
            try:
                found = [
                    self._listed(tree, before, each.path, each.stat) for each in tree.list(rest)
                ]
            except NotADirectory:
                if not tree.stat(rest).is_file:
                    raise
                found = [_info(path, tree.stat(rest))]
        return found if detail else [str(each["name"]) for each in found]

    @staticmethod
    def _listed(tree: Tree, before: str, path: str, found: Stat) -> dict[str, object]:
        """A listed link is what it leads to, where that is at hand; where not, it is a link."""
        if found.is_link:
            try:
                return {
                    **_info(f"{before}{path}", tree.stat(path)),
                    "islink": True,
                    "destination": found.target,
                }
            except OcifsError:
                pass
        return _info(f"{before}{path}", found)

    def modified(self, path: str) -> object:
        """When it was made, as its publisher says."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(float(str(self.info(path)["mtime"])), UTC)

    created = modified

    def ukey(self, path: str) -> str:
        """What changes when the content does: under a tag, that may be at any time."""
        found = self.info(path)
        return f"{found['name']}-{found['size']}-{found['mtime']}"

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: object
    ) -> bytes:
        """Bytes of a file; negative positions count from its end."""
        with _Errors(path):
            tree, _before, rest = self._split(path)
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
            name: value
            for name, value in options.items()
            if name in ("block_size", "cache_type", "cache_options")
        }
        return _File(self, path, mode, size=self.info(path)["size"], **options)

    def inspect(self, path: str) -> dict[str, object]:
        """The description of the manifest at a path, as `ocifs inspect --json` prints it."""
        tree, _before, rest = self._split(path)
        with _Errors(path):
            return tree.run(inspect_manifest, rest).as_dict()
        raise AssertionError("errors are raised, never swallowed")

    def prefetch(self, path: str) -> int:
        """Fetch everything at and below a path into the cache, and return the number of bytes."""
        tree, _before, rest = self._split(path)
        with _Errors(path):
            return tree.run(prefetch_paths, [rest])
        raise AssertionError("errors are raised, never swallowed")

    def export(self, path: str, destination: str) -> str:
        """Export the manifest at a path to the layout `oci:DIR[:TAG]`, and return its digest."""
        tree, _before, rest = self._split(path)
        with _Errors(path):
            return str(tree.run(export_image, destination, rest))
        raise AssertionError("errors are raised, never swallowed")

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
    kind = (
        "directory"
        if found.is_dir
        else "file"
        if found.is_file
        else "link"
        if found.is_link
        else "other"
    )
    return {
        "name": path.rstrip("/"),
        "size": 0 if found.is_dir else found.size,
        "type": kind,
        "mtime": found.mtime_ns / 1e9,
        "mode": found.mode,
    }
