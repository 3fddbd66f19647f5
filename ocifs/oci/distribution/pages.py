"""Parses a page of a list: names of repositories or tags, or descriptors of referrers.

`registry.lists` and `registry.referrers` call this for each page, in a worker thread if the page is
large.

Rules that hold here:

- Pure, and linear in the size of the page.
- Invalid entries are skipped: Nexus lists null among the tags, Artifactory digests.
- A page that is not a list is Malformed. An error with status 200 is never an empty list.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor, as_object, parse_descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import load_json
from ocifs.oci.reference import is_repository, is_tag


@dataclass(frozen=True, slots=True)
class NamesPage:
    """One page of names.

    `names`: the valid names. `count`: the number of all entries. `last`: the last string.
    """

    names: tuple[str, ...]
    count: int
    last: str


def read_names(body: bytes, member: str) -> NamesPage:
    """The repositories or tags of one page. Raises Malformed."""
    try:
        entries = _entries(body, member)
    except Malformed as error:
        error.hint = (
            "is this a registry, and not another server or a proxy's page? try `ocifs doctor HOST`"
        )
        raise
    is_valid = is_tag if member == "tags" else is_repository
    texts = [name for name in entries if isinstance(name, str)]
    return NamesPage(tuple(filter(is_valid, texts)), len(entries), texts[-1] if texts else "")


def _entries(body: bytes, member: str) -> list[object]:
    what = f"the list of {member}"
    page = as_object(load_json(body, what), what)
    entries = page.get(member)
    if entries is None and page.get("errors"):
        raise Malformed(f"{what} is an error with the status of a success")
    # Go serializes an empty list as null.
    if not isinstance(entries, list | None):
        raise Malformed(f"{what} is not a list")
    return entries or []


def read_referrers(body: bytes, media_type: str) -> tuple[Descriptor, ...] | None:
    """The valid descriptors of an image index; None if the body is not an index.

    `media_type`: the Content-Type, which is used if the index has no `mediaType`.
    """
    try:
        index = as_object(load_json(body, "the list of referrers"), "the list of referrers")
    except Malformed:
        return None
    own = index.get("mediaType")
    kind = mediatype.essence(own if isinstance(own, str) and own else media_type)
    entries = index.get("manifests")
    if "errors" in index or "manifests" not in index or not isinstance(entries, list | None):
        return None
    if kind in mediatype.MANIFESTS and kind != mediatype.OCI_INDEX:
        return None
    descriptors = []
    for value in entries or ():
        with suppress(Malformed):
            descriptors.append(parse_descriptor(value, "a referrer"))
    return tuple(descriptors)


def read_fallback(body: bytes, media_type: str, subject: Digest) -> tuple[Descriptor, ...] | None:
    """The index at a subject's referrers tag (distribution-spec "Referrers Tag Schema").

    None if it is not an index. GitLab serves the subject itself under that tag, and its manifests
    are platforms.
    """
    if subject.verifiable and subject.matches(body):
        return None
    return read_referrers(body, media_type)
