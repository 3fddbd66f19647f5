"""Turns names from publishers (titles, annotation keys, ref names of layouts, paths in tars) into
names of one directory.

The rule, for one name:
  - the bytes that no name can have, `/` and NUL, are written as `%2F` and `%00`;
  - the names that mean something else are written as `%` (empty), `%2E` (`.`) and `%2E%2E` (`..`);
  - a `%` that two hexadecimal digits follow is written as `%25`, and so is the name `%`, so that
    nothing else is ever changed;
  - a name of more than 255 bytes is shortened to its beginning, `~`, 16 hexadecimal digits of its
    SHA-256, and its extension;
  - of equal names in one directory the first keeps its name and the others get `~2`, `~3`, … before
    the extension.
All other bytes stay as they are, also invalid UTF-8: `100%.txt` and `a b` are
unchanged.

Rules that hold here: pure; `unmangle(mangle(name)) == name` for every name that was not shortened;
a mangled name is one component, never `.` or `..`; the same names in the same order always give the
same result.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

MAX_NAME = 255
"""The longest component of a path, in bytes, that Linux takes (NAME_MAX)."""

MAX_DEPTH = 64
"""How many components a title may have: a manifest of megabytes can hold one of a million."""

# The mark is counted in hexadecimal digits, the extension in bytes.
_MARK = 16
_LONGEST_EXTENSION = 32
_UNSAFE = re.compile(rb"[/\x00]|%(?=[0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def to_bytes(text: str) -> bytes:
    """A string of JSON as the bytes of a name; half a surrogate pair, which JSON can spell, has
    bytes too.
    """
    return text.encode("utf-8", "surrogatepass")


def mangle(name: bytes) -> bytes:
    """One name as one component of a path, by the rule above."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special
    return _shorten(_UNSAFE.sub(_escape, name))


def unmangle(name: bytes) -> bytes:
    """What `mangle` was given, unless it had to shorten it: then the shortened name without its
    escapes.
    """
    return b"" if name == b"%" else _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), name)


def unique(names: Sequence[bytes]) -> list[bytes]:
    """The names in the same order, made unique by `~2`, `~3`, … before the extension."""
    taken = set(names)
    seen: set[bytes] = set()
    last: dict[bytes, int] = {}
    result = []
    for name in names:
        chosen = name
        # A numbered name must not take a name that occurs later in the list.
        while chosen in seen or (chosen != name and chosen in taken):
            # Counting from 2 for each of many equal names would take quadratic time.
            last[name] = last.get(name, 1) + 1
            chosen = _numbered(name, last[name])
        seen.add(chosen)
        result.append(chosen)
    return result


def unique_paths(paths: Sequence[tuple[bytes, ...]]) -> list[tuple[bytes, ...]]:
    """Paths of files in the same order, each once and none where another path has a directory; `()`
    stays as it is.

    So of the titles `a` and `a/b` the first becomes `a~2`, since `a` has to be the directory.
    """
    directories = {path[:depth] for path in paths for depth in range(1, len(path))}
    taken = directories.union(paths)
    seen: set[tuple[bytes, ...]] = set()
    last: dict[tuple[bytes, ...], int] = {}
    result = []
    for path in paths:
        chosen = path
        # As in `unique`, and a file must not replace a directory.
        while path and (
            chosen in seen or chosen in directories or (chosen != path and chosen in taken)
        ):
            last[path] = last.get(path, 1) + 1
            chosen = (*path[:-1], _numbered(path[-1], last[path]))
        seen.add(chosen)
        result.append(chosen)
    return result


def split_path(title: str | bytes) -> tuple[bytes, ...]:
    """A title with directories as mangled components, relative and without `.`: empty when the
    title means the directory itself.

    A `..` is kept as a name (`%2E%2E`), not followed, so that two different titles cannot fall
    together and none leads outside. The components below MAX_DEPTH stay together as the last
    one.
    """
    parts = list(components(title))
    if len(parts) > MAX_DEPTH:
        parts[MAX_DEPTH - 1 :] = [b"/".join(parts[MAX_DEPTH - 1 :])]
    return tuple(map(mangle, parts))


def components(title: str | bytes) -> tuple[bytes, ...]:
    """A title's components, without empty ones and `.`."""
    raw = to_bytes(title) if isinstance(title, str) else title
    return tuple(part for part in raw.split(b"/") if part not in (b"", b"."))


_SPECIAL = {b"": b"%", b".": b"%2E", b"..": b"%2E%2E", b"%": b"%25"}


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _extension(name: bytes) -> bytes:
    """From the last dot on, or from the one before where a compression stands last; none for a
    hidden file or an odd length.
    """
    stem, dot, last = name.rpartition(b".")
    if not dot or not stem:
        return b""
    inner = stem.rpartition(b".")
    if inner[1] and inner[0] and inner[2] == b"tar":
        last = inner[2] + dot + last
    return b"." + last if len(last) < _LONGEST_EXTENSION else b""


def _shorten(name: bytes) -> bytes:
    if len(name) <= MAX_NAME:
        return name
    tail = b"~" + hashlib.sha256(name).hexdigest()[:_MARK].encode() + _extension(name)
    return _cut(name, MAX_NAME - len(tail)) + tail


def _cut(name: bytes, length: int) -> bytes:
    """The beginning of a name, without half a character of UTF-8 or half an escape at its end."""
    # A character has at most three continuation bytes: more of them are not UTF-8.
    kept = name[:length]
    while kept and length < len(name) and name[len(kept)] & 0xC0 == 0x80 and length - len(kept) < 3:
        kept = kept[:-1]
    return re.sub(rb"%[0-9A-Fa-f]?\Z", b"", kept)


def _numbered(name: bytes, number: int) -> bytes:
    extension = _extension(name)
    stem = name[: len(name) - len(extension)]
    suffix = b"~%d" % number
    return _cut(stem, MAX_NAME - len(suffix) - len(extension)) + suffix + extension
