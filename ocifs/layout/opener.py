"""Opens a local source: detects its format, or explains why it is not a source.

`Layout.open` runs this in a worker thread. Everything blocks; each step is recorded in `Progress`.

Rules that hold here:

- The user's path may be a symbolic link. Everything below it is untrusted.
- The format of a bare path is detected from the content. A layout with entries in its index has
  precedence over an archive of `docker save`.
- The error for a wrong transport names the right one.
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
    """Opens one source. Used once."""

    def __init__(
        self, source: LayoutSource, cache: DerivedCache, limits: Limits, progress: Progress
    ) -> None:
        self._source = source
        self._cache = cache
        self._limits = limits
        self._progress = progress

    def open(self) -> Contents:
        """Open the source. Raises UsageError, Malformed, AccessDenied, LimitExceeded."""
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
        """A hint if the intended path has a colon in it."""
        # The parser has split the path at its first colon: try longer prefixes.
        path = f"{self._source.path}:{self._source.ref}"
        while ":" in path.rpartition("/")[2]:
            if os.path.lexists(path):
                link = f"ln -s {shlex.quote(path)} layout"
                return f"a path ends at its first colon: {link}, and name the link"
            path = path.rpartition(":")[0]
        return ""

    def _directory(self, path: str) -> Contents:
        transport = self._source.transport
        if transport is LocalTransport.OCI_ARCHIVE:
            raise UsageError(
                f"is a directory: {path}", hint=f"name the directory: {_shown_path(path)}"
            )
        files = DirectoryFiles(path)
        # A `dir:` directory has a manifest.json as well: only its content distinguishes the two.
        is_layout, is_saved = _is_layout(files), docker.is_saved(files, self._limits)
        is_dir = files.has(skopeo_dir.MANIFEST) and not is_layout and not is_saved
        if transport is LocalTransport.ANY:
            transport = self._form(is_layout, is_saved, files)
        if transport is LocalTransport.OCI and is_layout:
            return OciContents(files, self._limits)
        if transport is LocalTransport.DIR and is_dir:
            return DirContents(files, self._limits)
        # An extracted archive: `docker save | tar x`.
        if is_saved and transport is LocalTransport.DOCKER_ARCHIVE:
            return DockerContents(files, self._limits, self._cache, self._progress.advance)
        raise self._not_a(path, files)

    def _form(self, is_layout: bool, is_saved: bool, files: Files) -> LocalTransport:
        """The format of a directory without a transport."""
        if is_saved and not (is_layout and self._lists_something(files)):
            return LocalTransport.DOCKER_ARCHIVE
        return LocalTransport.OCI if is_layout else LocalTransport.DIR

    def _archive(self, path: str) -> Contents:
        transport = self._source.transport
        if transport in (LocalTransport.OCI, LocalTransport.DIR):
            raise UsageError(
                f"not a directory: {path}",
                hint=f"name the archive: {_shown_path(path)}",
            )
        try:
            descriptor = open_regular(path, path)
            # The version is read first, since `open_uncompressed` may close the descriptor.
            with translate_errors(path):
                version = version_of(os.fstat(descriptor))
            unpacked = open_uncompressed(
                descriptor, path, self._cache, self._limits, self._progress
            )
            # The key of a decompressed copy is the version of the user's file.
            known = version if unpacked != descriptor else None
            files = ArchiveFiles(unpacked, path, self._limits, self._progress.advance, known)
        except Malformed as error:
            raise UsageError(
                str(error), hint="an archive is a tar, uncompressed or with gzip, xz, bzip2 or zstd"
            ) from None
        is_layout, is_docker = _is_layout(files), files.has(docker.MANIFEST)
        if transport is LocalTransport.ANY:
            transport = LocalTransport.OCI_ARCHIVE
            if is_docker and not (is_layout and self._lists_something(files)):
                transport = LocalTransport.DOCKER_ARCHIVE
        if transport is LocalTransport.OCI_ARCHIVE and is_layout:
            return OciContents(files, self._limits)
        if transport is LocalTransport.DOCKER_ARCHIVE and is_docker:
            return DockerContents(files, self._limits, self._cache, self._progress.advance)
        raise self._not_a(path, files)

    def _lists_something(self, files: Files) -> bool:
        try:
            return bool(OciContents(files, self._limits).list_manifests())
        except OcifsError:
            return False

    def _not_a(self, path: str, files: Files) -> UsageError:
        """The error for files that do not have the format of the transport."""
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
                f"not a source for {source.transport.value}: {path}",
                hint=f"name it as {fitting}:{path}",
            )
        if is_archive and files.has(docker.LEGACY):
            hint = (
                "load it with Docker 25 or older and save it again: "
                "docker load -i FILE && docker save -o image.tar NAME"
            )
            return UsageError(
                f"no manifest.json in {path}, an archive of Docker before 1.10", hint=hint
            )
        # An archive of `docker export`.
        if is_archive and files.has("etc") and files.has("usr"):
            hint = (
                "it looks like a root filesystem; `docker save -o image.tar NAME` writes an image"
            )
            return UsageError(f"not an OCI image layout or a saved image: {path}", hint=hint)
        hint = "create a layout: skopeo copy docker://HOST/REPOSITORY:TAG oci:DIR"
        return UsageError(f"not an OCI image layout or a saved image: {path}", hint=hint)


def _is_layout(files: Files) -> bool:
    """Whether the files are an OCI layout: `oci-layout`, or both index.json and `blobs`."""
    return files.has(MARKER) or (files.has(INDEX) and files.has(BLOBS))


def _shown_path(path: str) -> str:
    """A path in the form of a source."""
    return path if path.startswith(("/", "./", "../")) else f"./{path}"
