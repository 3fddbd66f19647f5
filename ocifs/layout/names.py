"""The names of a source's manifests: which are shown, and which manifest a name means.

Rules that hold here:
- Pure, and made once for each state of the list.
- Every manifest is shown under at least one name, and every name that is shown leads to its
  manifest.
- A name that two manifests have is not shown and leads to neither: the error lists the names that
  do.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocifs.errors import InvalidReference, NotFound
from ocifs.layout.contents import ListedManifest
from ocifs.oci.local import index_of, split_digest
from ocifs.oci.reference import parse_reference

_SHOWN = 8  # names in a message


class NameTable:
    """The names of a list of manifests."""

    def __init__(self, listed: Sequence[ListedManifest]) -> None:
        self.listed = tuple(listed)
        self._exact: dict[str, list[ListedManifest]] = {}
        self._normal: dict[str, list[ListedManifest]] = {}
        self._digests: dict[str, list[ListedManifest]] = {}
        for each in self.listed:
            if each.descriptor is not None:
                self._digests.setdefault(str(each.descriptor.digest), []).append(each)
            for name in each.names:
                self._exact.setdefault(name, []).append(each)
                self._normal.setdefault(_normal(name), []).append(each)
        self.ambiguous = tuple(name for name, found in self._exact.items() if _differ(found))
        clear = self._exact.keys() - set(self.ambiguous)
        self._shown = tuple(_name_of(each, clear) for each in self.listed)
        self.shown = tuple(dict.fromkeys(self._shown))

    def find(self, text: str) -> ListedManifest:
        """The manifest that a name, `@N`, a digest or a name with a digest means.

        Raises NotFound, also when several manifests have the name.
        """
        found = self._exact.get(text) or self._of_other_forms(text)
        if not found:
            raise NotFound(f"no image is called {text!r} here", hint=_choice(self.shown))
        if _differ(found):
            names = list(
                dict.fromkeys(self._shown[self.listed.index(each)] for each in found[:_SHOWN])
            )
            raise NotFound(
                f"{len(found)} images are called {text!r}",
                hint=f"name one of them: {', '.join(names)}",
            )
        return found[0]

    def only(self) -> ListedManifest | None:
        """The manifest that stands for a source without a reference: the only one that is listed."""
        return self.listed[0] if self.listed and not _differ(self.listed) else None

    def of_digest(self, text: str) -> ListedManifest | None:
        """An entry of this digest, the first of several."""
        return self._digests.get(text, [None])[0]

    def _of_other_forms(self, text: str) -> list[ListedManifest]:
        """By position, by digest, and by a name that means the same (`alpine` for
        docker.io/library/alpine:latest).
        """
        number = index_of(text)
        if number is not None:
            return [each for each in self.listed if each.number == number]
        name, digest = split_digest(text)
        if digest is not None:
            found = self._digests.get(str(digest), [])
            return found if not name else [each for each in found if each in self._named(name)]
        return self._named(text)

    def _named(self, text: str) -> list[ListedManifest]:
        wanted = _normal(text)
        return self._exact.get(text) or (self._normal.get(wanted, []) if wanted else [])


def _differ(found: Sequence[ListedManifest]) -> bool:
    return len({each.identity for each in found}) > 1


def _normal(text: str) -> str:
    """A name with Docker's defaults; empty for one that is not a reference."""
    try:
        return str(parse_reference(text))
    except InvalidReference:
        return ""


def _name_of(each: ListedManifest, clear: set[str]) -> str:
    name = next((name for name in each.names if name in clear), "")
    if name or each.descriptor is None:
        return name or f"@{each.number}"
    return str(each.descriptor.digest)


def _choice(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"there {'is' if len(names) == 1 else 'are'}: {', '.join(names[:_SHOWN])}{more}"
        if names
        else ""
    )
