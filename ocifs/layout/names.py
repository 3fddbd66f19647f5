"""The names of a local source's manifests.

`Layout` creates a `NameTable` for each state of the list of manifests.

Rules that hold here:

- Pure and immutable.
- Every manifest has at least one name: one of its own, its digest, or its position `@N`.
- Every displayed name resolves to one manifest.
- An ambiguous name is not displayed and cannot be resolved. The error lists unambiguous names.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.errors import InvalidReference, NotFound
from ocifs.layout.contents import ListedManifest
from ocifs.oci.local import index_of, split_digest
from ocifs.oci.reference import parse_reference

_SHOWN = 8  # names in a message


class NameTable:
    """The names of a list of manifests.

    `shown`: the displayed names. `ambiguous`: names of several manifests.
    """

    def __init__(self, entries: Sequence[ListedManifest]) -> None:
        self.entries = tuple(entries)
        self._exact: dict[str, list[ListedManifest]] = {}
        self._normal: dict[str, list[ListedManifest]] = {}
        self._digests: dict[str, list[ListedManifest]] = {}
        for entry in self.entries:
            if entry.descriptor is not None:
                self._digests.setdefault(str(entry.descriptor.digest), []).append(entry)
            for name in entry.names:
                self._exact.setdefault(name, []).append(entry)
                self._normal.setdefault(_normal(name), []).append(entry)
        self.ambiguous = tuple(name for name, same in self._exact.items() if _differ(same))
        unambiguous = self._exact.keys() - set(self.ambiguous)
        self._shown = tuple(_name_of(entry, unambiguous) for entry in self.entries)
        self.shown = tuple(dict.fromkeys(self._shown))

    def find(self, text: str) -> ListedManifest:
        """Resolve a name, `@N`, a digest, or a name with a digest.

        Raises NotFound, also if several manifests have the name.
        """
        # An exact name has precedence over positions, digests and equivalent names (decision 0271).
        matches = self._exact.get(text) or self._of_other_forms(text)
        if not matches:
            raise NotFound(f"no image named {text!r} in this source", hint=_choice(self.shown))
        # skopeo takes the first, oras the last: a script would read the wrong image without an
        # error (decision 0271).
        if _differ(matches):
            shown = (self._shown[self.entries.index(entry)] for entry in matches[:_SHOWN])
            raise NotFound(
                f"ambiguous name: {len(matches)} images are named {text!r}",
                hint=f"name one of them: {', '.join(dict.fromkeys(shown))}",
            )
        return matches[0]

    def only(self) -> ListedManifest | None:
        """The manifest if there is only one. A source without a reference resolves to it."""
        return self.entries[0] if self.entries and not _differ(self.entries) else None

    def of_digest(self, text: str) -> ListedManifest | None:
        """The first entry with this digest."""
        return self._digests.get(text, [None])[0]

    def _of_other_forms(self, text: str) -> list[ListedManifest]:
        """Entries by position, by digest, or by an equivalent name.

        `alpine` is equivalent to `docker.io/library/alpine:latest`.
        """
        number = index_of(text)
        if number is not None:
            return [entry for entry in self.entries if entry.number == number]
        name, digest = split_digest(text)
        if digest is None:
            return self._named(text)
        same = self._digests.get(str(digest), [])
        return same if not name else [entry for entry in same if entry in self._named(name)]

    def _named(self, text: str) -> list[ListedManifest]:
        normal = _normal(text)
        # All names that are not references share the key "", and are not equivalent.
        return self._exact.get(text) or (self._normal.get(normal, []) if normal else [])


def _differ(entries: Sequence[ListedManifest]) -> bool:
    # Several entries of one manifest are not ambiguous, even under the same name.
    return len({entry.identity for entry in entries}) > 1


def _normal(text: str) -> str:
    """A name with Docker's defaults; "" if it is not a reference."""
    try:
        return str(parse_reference(text))
    except InvalidReference:
        return ""


def _name_of(entry: ListedManifest, unambiguous: set[str]) -> str:
    name = next((name for name in entry.names if name in unambiguous), "")
    if name or entry.descriptor is None:
        return name or f"@{entry.number}"
    return str(entry.descriptor.digest)


def _choice(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"there {'is' if len(names) == 1 else 'are'}: {', '.join(names[:_SHOWN])}{more}"
