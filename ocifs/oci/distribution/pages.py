"""What a page of a list contains: names of repositories or tags, or descriptors of referrers.

`registry.lists` and `registry.referrers` call this for each page, in a worker thread if the page is
large.

Rules that hold here:

- Pure, and linear in the size of the page.
- An entry that cannot be what it should be is dropped, and the others stay: Nexus has null among
  the tags, Artifactory digests.
- A page that is not a list at all is Malformed. An empty list is never made from an error that came
  with status 200.
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

    `names`: the valid ones. `count`: all entries. `last`: the last entry that is a string.
    """

    names: tuple[str, ...]
    count: int
    last: str


def read_names(body: bytes, member: str) -> NamesPage:
    """The repositories or tags of one page. Raises Malformed."""
    try:
        listed = _listed(body, member)
    except Malformed as error:
        error.hint = (
            "is this a registry, and not another server or a proxy's page? try `ocifs doctor HOST`"
        )
        raise
    fits = is_tag if member == "tags" else is_repository
    texts = [name for name in listed if isinstance(name, str)]
    return NamesPage(tuple(filter(fits, texts)), len(listed), texts[-1] if texts else "")


def _listed(body: bytes, member: str) -> list[object]:
    what = f"the list of {member}"
    page = as_object(load_json(body, what), what)
    listed = page.get(member)
    if listed is None and page.get("errors"):
        raise Malformed(f"{what} is an error with the status of a success")
    if not isinstance(listed, list | None):
        raise Malformed(f"{what} is not a list")
    return listed or []


def read_referrers(body: bytes, media_type: str) -> tuple[Descriptor, ...] | None:
    """The descriptors of an image index, without those that cannot be read; None for content that
    is not an index.

    `media_type`: the Content-Type, which decides if the index does not name its own type.
    """
    try:
        index = as_object(load_json(body, "the list of referrers"), "the list of referrers")
    except Malformed:
        return None
    own = index.get("mediaType")
    kind = mediatype.essence(own if isinstance(own, str) and own else media_type)
    listed = index.get("manifests")
    if "errors" in index or "manifests" not in index or not isinstance(listed, list | None):
        return None
    if kind in mediatype.MANIFESTS and kind != mediatype.OCI_INDEX:
        return None
    found = []
    for value in listed or ():
        with suppress(Malformed):
            found.append(parse_descriptor(value, "a referrer"))
    return tuple(found)


def read_fallback(body: bytes, media_type: str, subject: Digest) -> tuple[Descriptor, ...] | None:
    """What the referrers tag of a subject lists (distribution-spec "Referrers Tag Schema"), or None
    if it is not a list.

    Some registries serve the subject itself under that tag, whose manifests are its platforms
    (seen: GitLab).
    """
    if subject.verifiable and subject.matches(body):
        return None
    return read_referrers(body, media_type)
