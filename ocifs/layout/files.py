"""Where the bytes of an OCI image layout lie: in a directory, or within a tar file of one.

Rules that hold here: everything blocks (callers run it off the event loop); a path inside a layout is only ever made from fixed names and
`Digest`s; a layout is read as it is now, since whoever owns the directory may add to it while it is mounted.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ocifs.errors import AccessDenied, NotFound, RegistryFailed, UsageError


@dataclass(frozen=True, slots=True)
class Place:
    """A run of bytes in a file of this machine. `version` changes when the bytes may have."""

    path: Path
    offset: int
    size: int
    version: tuple[int, ...]

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start+length) of the run, shorter only at its end."""
        length = max(0, min(length, self.size - start))
        with _as_errors(self.path), self.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, self.offset + start)


class Files(Protocol):
    """Finds the files of a layout by their paths within it."""

    def find(self, name: str) -> Place:
        """Where `name` lies. Raises NotFound."""
        ...


class DirectoryFiles:
    """A layout that is a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, name: str) -> Place:
        path = self._root / name
        with _as_errors(path):
            found = path.stat()
        return Place(path, 0, found.st_size, (found.st_ino, found.st_size, found.st_mtime_ns))


class ArchiveFiles:
    """A layout inside an uncompressed tar file, whose members are found once."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._places: dict[str, Place] = {}
        version = DirectoryFiles(archive.parent).find(archive.name).version
        try:
            with _as_errors(archive), tarfile.open(archive, "r:") as tar:
                for member in tar:
                    if member.isreg():
                        name = os.path.normpath(member.name)
                        self._places[name] = Place(
                            archive, member.offset_data, member.size, (*version, member.offset_data)
                        )
        except tarfile.TarError as error:
            raise UsageError(f"{archive} is no uncompressed tar file: {error}") from None

    def find(self, name: str) -> Place:
        try:
            return self._places[name]
        except KeyError:
            raise NotFound(f"{self._archive} has no {name}") from None


def open_files(path: Path, *, archive: bool) -> Files:
    """The files of the layout at `path`, after a look at whether it is one. Raises UsageError."""
    files: Files = ArchiveFiles(path) if archive else DirectoryFiles(path)
    try:
        files.find("oci-layout")
    except NotFound:
        hint = "a layout has a file oci-layout at its top; `skopeo copy … oci:DIR` makes one"
        raise UsageError(f"{path} is no OCI image layout", hint=hint) from None
    return files


class _as_errors:  # noqa: N801 (used as a statement)
    """Turns what the operating system says of a path into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(f"{self._path} does not exist") from None
        if isinstance(error, PermissionError):
            raise AccessDenied(f"{self._path} may not be read by this user") from None
        if isinstance(error, OSError):
            raise RegistryFailed(f"{self._path} cannot be read: {error.strerror}") from None
