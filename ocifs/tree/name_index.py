"""A sorted index of repository names: a listing takes time for the names that it shows, not for all
names of the registry.

`Context` holds two: the catalog, built once for each list, and the repositories that this mount has
found. The event loop looks up and adds; an index of many names is built in a worker thread.

Rules that hold here:

- Pure. `has` and `add` take logarithmic time, `children` takes time for each
  child, independent of the names below it.
- Names are kept with NUL for `/`, so that all that is below a name follows it directly (`.` and `-`
  sort before `/`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator


class NameIndex:
    """A set of names of repositories, and of the namespaces that these imply."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._keys = sorted({name.replace("/", "\0") for name in names})

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, name: str) -> None:
        """Add a repository."""
        if not self.has_repository(name):
            key = name.replace("/", "\0")
            self._keys.insert(bisect_left(self._keys, key), key)

    def clear(self) -> None:
        """Remove all names."""
        self._keys = []

    def has_repository(self, name: str) -> bool:
        """Whether it is one of the names."""
        key = name.replace("/", "\0")
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place] == key

    def has_name(self, name: str) -> bool:
        """Whether it is one of the names, or a namespace of one."""
        key = name.replace("/", "\0")
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and (
            self._keys[place] == key or self._keys[place].startswith(f"{key}\0")
        )

    def children(self, namespace: str) -> Iterator[str]:
        """The components that follow a namespace (empty: the top), each once, in order."""
        keys, prefix = self._keys, namespace.replace("/", "\0") + "\0" if namespace else ""
        place = bisect_left(keys, prefix)
        while place < len(keys) and keys[place].startswith(prefix):
            component, _, rest = keys[place][len(prefix) :].partition("\0")
            if component:
                yield component
            place += 1
            below = f"{prefix}{component}\0"
            if rest or (place < len(keys) and keys[place].startswith(below)):
                # The byte after NUL sorts after all names below the component.
                place = bisect_left(keys, f"{prefix}{component}\1", place)
