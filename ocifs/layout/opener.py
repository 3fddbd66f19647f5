"""Opens a local source: finds out what it is, and refuses what it is not with a way out.

Everything blocks: it runs in a worker thread, whose `Progress` is told of each step.

Rules that hold here:
- The path that the user gave may be a link. Everything below it is a stranger's.
- A bare path is told apart by content: a layout before an archive of `docker save`, if its index
  lists anything.
- A refusal names the transport that fits.
"""

from __future__ import annotations

import os
import shlex
import stat

from ocifs.content import DerivedCache
from ocifs.errors import Malformed, NotFound, OcifsError, UsageError
from ocifs.layout import docker, skopeo_dir
from ocifs.layout.archive import ArchiveFiles
from ocifs.layout.contents import BLOBS, INDEX, MARKER, Contents, Files, OciContents
from ocifs.layout.directory import DirectoryFiles
from ocifs.layout.docker import DockerContents
from ocifs.layout.file_range import file_type, open_regular, translate_errors, version_of
from ocifs.layout.skopeo_dir import DirContents
from ocifs.layout.unpacked import Progress, open_uncompressed
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.settings import Limits


class SourceOpener:
    """One opening of a source."""

    def __init__(
        self, source: LayoutSource, shelf: DerivedCache, limits: Limits, work: Progress
    ) -> None:
        self._source = source
        self._shelf = shelf
        self._limits = limits
        self._work = work

    def open(self) -> Contents:
        """What the source holds.

        Raises UsageError for what is not such a source, and whatever keeps it from being read.
        """
        path = self._source.path
        try:
            with translate_errors(path):
                mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                return self._directory(path)
            if stat.S_ISREG(mode):
                return self._archive(path)
        except NotFound as error:
            raise UsageError(str(error), hint=error.hint or self._with_colon()) from None
        raise UsageError(f"not a directory or a regular file: {path} ({file_type(mode)})")

    def _with_colon(self) -> str:
        """What to do if the path that was meant has a colon in it."""
        path = f"{self._source.path}:{self._source.ref}"
        while ":" in path.rpartition("/")[2]:
            if os.path.lexists(path):
                return f"a path ends at its first colon: ln -s {shlex.quote(path)} layout, and name that"
            path = path.rpartition(":")[0]
        return ""

    def _directory(self, path: str) -> Contents:
        transport = self._source.transport
        if transport is LocalTransport.OCI_ARCHIVE:
            raise UsageError(
                f"not a file: {path}", hint=f"a directory is named by its path: {_shown_path(path)}"
            )
        files = DirectoryFiles(path)
        is_layout, is_saved = _is_layout(files), docker.is_saved(files, self._limits)
        is_dir = files.has(skopeo_dir.MANIFEST) and not is_layout and not is_saved
        if transport is LocalTransport.ANY:
            transport = self._form(is_layout, is_saved, files)
        if transport is LocalTransport.OCI and is_layout:
            return OciContents(files, self._limits)
        if transport is LocalTransport.DIR and is_dir:
            return DirContents(files, self._limits)
        if is_saved and transport is LocalTransport.DOCKER_ARCHIVE:  # `docker save | tar x`
            return DockerContents(files, self._limits, self._shelf, self._work.advance)
        raise self._not_a(path, files)

    def _form(self, is_layout: bool, is_saved: bool, files: Files) -> LocalTransport:
        """What a directory is read as that was named by its path."""
        if is_saved and not (is_layout and self._lists_something(files)):
            return LocalTransport.DOCKER_ARCHIVE
        return LocalTransport.OCI if is_layout else LocalTransport.DIR

    def _archive(self, path: str) -> Contents:
        transport = self._source.transport
        if transport in (LocalTransport.OCI, LocalTransport.DIR):
            raise UsageError(
                f"not a directory: {path}",
                hint=f"an archive is named by its path: {_shown_path(path)}",
            )
        try:
            descriptor = open_regular(path, path)
            with translate_errors(path):
                version = version_of(os.fstat(descriptor))
            unpacked = open_uncompressed(descriptor, path, self._shelf, self._limits, self._work)
            known = version if unpacked != descriptor else None
            files = ArchiveFiles(unpacked, path, self._limits, self._work.advance, known)
        except Malformed as error:
            raise UsageError(
                str(error), hint="an archive is a tar, uncompressed or in gzip, xz, bzip2 or zstd"
            ) from None
        is_layout, is_docker = _is_layout(files), files.has(docker.MANIFEST)
        if transport is LocalTransport.ANY:
            transport = LocalTransport.OCI_ARCHIVE
            if is_docker and not (is_layout and self._lists_something(files)):
                transport = LocalTransport.DOCKER_ARCHIVE
        if transport is LocalTransport.OCI_ARCHIVE and is_layout:
            return OciContents(files, self._limits)
        if transport is LocalTransport.DOCKER_ARCHIVE and is_docker:
            return DockerContents(files, self._limits, self._shelf, self._work.advance)
        raise self._not_a(path, files)

    def _lists_something(self, files: Files) -> bool:
        try:
            return bool(OciContents(files, self._limits).list_manifests())
        except OcifsError:
            return False

    def _not_a(self, path: str, files: Files) -> UsageError:
        """Why the files are not what they were named as."""
        source = self._source
        is_archive = isinstance(files, ArchiveFiles)
        fitting = ""
        if _is_layout(files):
            fitting = "oci-archive" if is_archive else "oci"
        elif files.has(docker.MANIFEST):
            fitting = (
                "docker-archive" if is_archive or docker.is_saved(files, self._limits) else "dir"
            )
        if fitting:
            return UsageError(
                f"{path} is not of the kind {source.transport.value}:",
                hint=f"name it as {fitting}:{path}",
            )
        if is_archive and files.has(docker.LEGACY):
            hint = "load it with Docker 25 or older and save it again: docker load -i FILE && docker save -o image.tar NAME"
            return UsageError(
                f"{path} was saved by Docker before 1.10, and has no manifest.json", hint=hint
            )
        if is_archive and files.has("etc") and files.has("usr"):  # `docker export`
            hint = (
                "it looks like a root filesystem; `docker save -o image.tar NAME` writes an image"
            )
            return UsageError(f"not an OCI image layout or a saved image: {path}", hint=hint)
        hint = "`skopeo copy docker://HOST/REPOSITORY:TAG oci:DIR` makes a layout"
        return UsageError(f"not an OCI image layout or a saved image: {path}", hint=hint)


def _is_layout(files: Files) -> bool:
    """Whether it is an OCI layout.

    Without the file `oci-layout` it needs both its index and blobs.
    """
    return files.has(MARKER) or (files.has(INDEX) and files.has(BLOBS))


def _shown_path(path: str) -> str:
    """A path as a source."""
    return path if path.startswith(("/", "./", "../")) else f"./{path}"
