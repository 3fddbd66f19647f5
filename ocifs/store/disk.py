"""The cache's directory: which file holds what.

    v1/blobs/<algorithm>/<hex>          whole blobs, verified: readable by any tool as the blobs of an image layout
    v1/partial/<algorithm>/<hex>        blobs of which some blocks are here, and beside each its map, <hex>.map
    v1/names/<host>/<hash>.json         what a tag, a list or a manifest's type last was

Rules that hold here: a path is made from `Digest`s and hashes alone; a whole file appears by rename after fsync, so that nobody ever
sees a part of one; the directory belongs to one user, and one that others can write is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from ocifs.errors import CacheFull, OcifsError, RegistryFailed, UsageError
from ocifs.oci.digest import Digest

VERSION = "v1"


class Disk:
    """A cache directory. Everything here blocks."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / VERSION
        try:
            for path in (directory, self.root):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.stat()
        except OSError as error:
            raise UsageError(
                f"the cache directory {directory} cannot be made: {error.strerror}",
                hint="name another with --cache-dir",
            ) from None
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(f"others can write to the cache directory {directory}", hint=f"chmod go-w {directory}")

    def whole(self, digest: Digest) -> Path:
        """Where a whole blob is, when it is here."""
        return self.root / "blobs" / digest.algorithm / digest.encoded

    def partial(self, digest: Digest) -> Path:
        """Where a blob is while parts of it are missing."""
        return self.root / "partial" / digest.algorithm / digest.encoded

    def name(self, host: str, key: Digest) -> Path:
        """Where it is written what a name of a host last meant."""
        return self.root / "names" / Digest.of(host.encode()).encoded[:32] / f"{key.encoded}.json"

    def read(self, path: Path) -> bytes | None:
        """The content of a small file, or None when it is not here."""
        try:
            return path.read_bytes()
        except OSError:
            return None

    def keep(self, path: Path, content: bytes) -> None:
        """Put a small file in its place, whole or not at all."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise of_disk(error, path) from None


def of_disk(error: OSError, path: Path) -> OcifsError:
    """What an error of the cache's own disk is to a reader."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CacheFull(
            f"the cache's disk is full ({path.parent})", hint="free some space, or name another place with --cache-dir"
        )
    return RegistryFailed(f"the cache cannot be used: {error.strerror} ({path})")
