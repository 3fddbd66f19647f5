"""The key of a cached completion: everything that can change the answer, as a hash.

Called by `ocifs.cli.completion` in the main thread. Imports little, see `completion_cache`.

- The preceding words, the environment, the current directory, the user.
- The identity of each file with credentials or configuration: its path, time, size and inode.
- For hosts, the mounts of ocifs as well.
- The content of credentials is not read, except values in the environment, which are hashed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ocifs.cli.config import files as configuration_files
from ocifs.registry.auth.places import auth_files
from ocifs.userfiles import read_user_file

FORMAT = 1
"""The version of keys and files. Files of other versions are not found, and expire."""
_CONFIG_BYTES = 1 << 20
# Variables that shells and terminals change, and that have no effect on answers.
_IGNORED = frozenset(
    {
        "_",
        "COLUMNS",
        "COMP_CWORD",
        "COMP_WORDS",
        "LINES",
        "OCIFS_BREAKS",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "TERM",
        "TMUX_PANE",
        "WINDOWID",
        "_OCIFS_COMPLETE",
    }
)


class CompletionKeys:
    """The keys of one command line. Raises OSError if the current directory was removed."""

    def __init__(self, args: Sequence[str], environ: Mapping[str, str]) -> None:
        variables = sorted(item for item in environ.items() if item[0] not in _IGNORED)
        user = (*os.getresuid(), *os.getresgid())
        identities = [_identity(path) for path in _files(args, environ)]
        self._common = (FORMAT, list(args), user, os.getcwd(), variables, identities)

    def key(self, word: str) -> str:
        """The key of the candidates for a word or a stem."""
        # The sources of mounts are hosts to complete.
        mounts = [] if "/" in word or word.startswith("-") else _mounts()
        text = repr((*self._common, word, mounts))
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _files(args: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """The files that can change an answer. They need not exist."""
    yield from map(str, auth_files(environ, None))
    # Values of options, such as that of --authfile. Other words may be paths on dead mounts.
    for before, word in zip(["", *args], args, strict=False):
        if word.startswith("--"):
            yield word.partition("=")[2]
        elif before.startswith("-"):
            yield word
            # As in -o authfile=PATH,ro.
            yield from (option.partition("=")[2] for option in word.split(","))
    # Such as OCIFS_AUTHFILE.
    for name, value in environ.items():
        if name.startswith(("OCIFS_", "CONTAINERS_")):
            yield value
    for path in configuration_files(environ):
        yield str(path)
        yield from _files_in(path)


def _files_in(path: Path) -> Iterator[str]:
    """The texts in a configuration file, of which some are paths."""
    try:
        content = read_user_file(path, _CONFIG_BYTES).decode()
        if not content:
            return
        import tomllib

        todo: list[object] = [tomllib.loads(content)]
    except (OSError, ValueError, RecursionError):
        return
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            yield os.path.expanduser(item)
        elif isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def _mounts() -> list[bytes]:
    """The lines of the mount table that can be mounts of ocifs."""
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    return [line for line in lines if b"ocifs" in line or b" erofs " in line]


def _identity(path: str) -> tuple[object, ...]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return (path,)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (path, *times, status.st_size, status.st_ino, status.st_dev)
