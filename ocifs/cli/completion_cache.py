"""Cached answers of the shell completion: one small file per key, for this user only.

    $XDG_CACHE_HOME/ocifs/completion/<hash>   JSON: [word, type] for each candidate

Called by `ocifs.cli.completion` in the main thread of the process that answers a shell, and by
`ocifs cache clear`. The keys are made by `ocifs.cli.completion_key`.

- A file appears by rename. Its modification time is the time of the answer.
- A file or directory of another user, or one that others can change, is never read.
- A file that is malformed, too large, too old or from the future is ignored.
- The number of files and their size are bounded whenever one is written.
- Nothing here raises OSError. An answer that cannot be stored is requested again.
- No import that takes long: a cached answer is quick only because of that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ocifs.directories import cache_home

FRESH = 60.0
"""The age in seconds up to which an answer is used without a refresh."""
MAX_AGE = 86400.0
"""The age in seconds up to which an answer is used, and refreshed after that."""
MAX_FILES = 200
MAX_FILE_BYTES = 256 << 10
MAX_BYTES = 4 << 20
_TEMPORARY = ".tmp-"
_TEMPORARY_AGE = 60.0

Words = Sequence[tuple[str, str]]
"""Candidates: each a word and its type, `plain` or `open`."""


class CachedAnswer(NamedTuple):
    """The candidates of a file, and whether they need a refresh."""

    words: list[tuple[str, str]]
    outdated: bool


class CompletionCache:
    """The files of one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> CompletionCache:
        """The cache in the user's cache directory. `--cache-dir` does not move it."""
        return cls(os.path.join(cache_home(environ), "ocifs", "completion"))

    def find(self, key: str) -> CachedAnswer | None:
        """The answer for a key, or None."""
        descriptor = self._open(key)
        if descriptor is None:
            return None
        with open(descriptor, "rb") as file:
            age = _age(os.fstat(descriptor))
            try:
                words = _parse(file.read(MAX_FILE_BYTES + 1))
            except (OSError, ValueError, RecursionError):
                return None
        return CachedAnswer(words, age > FRESH) if 0 <= age <= MAX_AGE else None

    def lock_outdated(self, key: str) -> int | None:
        """A descriptor that locks an outdated answer until it is closed by all processes.

        None if the answer is fresh, or if another process has locked it.
        """
        descriptor = self._open(key)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, another process may have replaced the file.
            current = os.stat(self._path(key), follow_symlinks=False)
            if os.path.samestat(current, os.fstat(descriptor)) and _age(current) > FRESH:
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
        return None

    def store(self, key: str, words: Words) -> bool:
        """Replace the answer for a key. Whether it was not too large, and could be written."""
        # Imported here because reading an answer does not need it.
        from ocifs.store.disk import make_directory

        content = json.dumps(list(words)).encode()
        if len(content) > MAX_FILE_BYTES:
            return False
        try:
            make_directory(Path(self.directory))
            if not self._is_private():
                return False
            self._write(key, content)
            self._prune()
        except OSError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Remove the answer for a key, if there is one."""
        self._remove(key)

    def clear(self) -> int:
        """Remove all files; their number."""
        removed = 0
        with contextlib.suppress(OSError):
            if self._is_private():
                for name in os.listdir(self.directory):
                    removed += self._remove(name)
        return removed

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _is_private(self) -> bool:
        """Whether the directory belongs to this user alone. Raises OSError."""
        status = os.stat(self.directory, follow_symlinks=False)
        return stat.S_ISDIR(status.st_mode) and _is_private(status)

    def _open(self, key: str) -> int | None:
        """A descriptor of a private regular file, or None."""
        descriptor = None
        try:
            if not self._is_private():
                return None
            # O_NONBLOCK, since opening a FIFO would wait for its writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(self._path(key), flags)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and _is_private(status):
                return descriptor
        except OSError:
            pass
        if descriptor is not None:
            os.close(descriptor)
        return None

    def _write(self, key: str, content: bytes) -> None:
        temporary = self._path(f"{_TEMPORARY}{os.getpid()}-{time.monotonic_ns()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(content)
            os.rename(temporary, self._path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _prune(self) -> None:
        """Remove old files, and the oldest until the bounds hold."""
        files = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    files.append((entry.stat(follow_symlinks=False), entry.name))
        files.sort(key=lambda file: -file[0].st_mtime)
        count = size = 0
        for status, name in files:
            limit = _TEMPORARY_AGE if name.startswith(_TEMPORARY) else MAX_AGE
            count += 1
            size += status.st_size
            # From the future: the clock was changed, and the file would be the newest for long.
            if count > MAX_FILES or size > MAX_BYTES or not -1 <= _age(status) <= limit:
                self._remove(name)
                count -= 1
                size -= status.st_size

    def _remove(self, name: str) -> bool:
        try:
            os.unlink(self._path(name))
        except OSError:
            return False
        return True


def _age(status: os.stat_result) -> float:
    # File systems round times, so that a new file can seem to be from the future.
    age = time.time() - status.st_mtime
    return 0.0 if -1 < age < 0 else age


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _parse(content: bytes) -> list[tuple[str, str]]:
    """Raises ValueError, RecursionError."""
    if len(content) > MAX_FILE_BYTES:
        raise ValueError("too large")
    document = json.loads(content)
    words = [
        (item[0], item[1])
        for item in (document if isinstance(document, list) else ())
        if isinstance(item, list)
        and len(item) == 2
        and isinstance(item[0], str)
        and item[1] in ("plain", "open")
    ]
    if not isinstance(document, list) or len(words) != len(document):
        raise ValueError("not a list of candidates")
    return words
