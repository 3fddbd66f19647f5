"""`referrers/`: links to the manifests about this one, by kind, predicate and type.

They come from three systems:

- the referrers API, or the tag that replaces it (distribution-spec "Listing Referrers")
- cosign's tags (`sha256-<hex>.sig`, `.att`, `.sbom`)
- siblings in an index that was loaded before: BuildKit's attestations, SOCI's second index

Rules that hold here:

- No request before the directory is listed or searched.
- A referrer's kind comes from its descriptor, so that no manifest is fetched to list.
- A referrer is a link to its own directory, so circular references are not an endless tree.
- A system that fails does not hide the others: their referrers are listed, and then the error.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import trio

from ocifs.concurrency import ungrouped
from ocifs.errors import NotFound, OcifsError
from ocifs.filenames import mangle, to_bytes, unique
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution.endpoints import referrers_tag
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.kinds.children import child_role
from ocifs.oci.kinds.claims import is_claim
from ocifs.oci.kinds.classification import UNKNOWN_KINDS, Classification
from ocifs.oci.kinds.predicates import predicate_type, predicate_word, type_word
from ocifs.oci.kinds.rules import KindRules
from ocifs.oci.manifest import Form, Manifest
from ocifs.tree.base import SimpleNode, SymlinkNode
from ocifs.tree.manifest.load import ManifestLocation
from ocifs.tree.node import (
    DIRECTORY,
    Attributes,
    DirectoryEntry,
    Node,
    partial_entries,
    partial_listing_error,
)
from ocifs.tree.static import StaticDirectory

COSIGN = {"sig": "cosign-signature", "att": "cosign-attestation", "sbom": "cosign-sbom"}


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest about another one.

    `word`: a short form of its predicate, or of a type without a row in the table. `also`: the
    other kinds under which it is listed. `is_claim`: a signature or attestation.
    """

    kind: str
    digest: Digest
    word: str = ""
    predicate: str = ""
    artifact_type: str = ""
    also: tuple[str, ...] = ()
    is_claim: bool = False

    @property
    def name(self) -> str:
        """The name of its link."""
        return f"{self.word}-{self.digest.short}" if self.word else self.digest.short


class ReferrersDirectory(SimpleNode):
    """`referrers/<kind>/[<word>-]<short digest>`, links to manifests."""

    __slots__ = ("_digest", "_location", "lifetime")

    def __init__(self, location: ManifestLocation, digest: Digest, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        # The referrers of a digest may change.
        self.lifetime = 1.0
        self._location = location
        self._digest = digest

    async def lookup(self, name: bytes) -> Node:
        cut: OcifsError | None = None
        try:
            entries = await self.entries()
        except OcifsError as error:
            cut, entries = error, partial_entries(error)
        for entry in entries:
            if entry.name == name:
                return entry.node
        # An incomplete list does not prove that the name is absent.
        if cut is not None:
            raise cut
        raise NotFound(f"no referrers of the kind {name.decode(errors='replace')!r}")

    async def entries(self) -> Sequence[DirectoryEntry]:
        kinds: dict[str, dict[Digest, Referrer]] = {}
        found = await find_referrers(self._location, self._digest)
        for referrer in found.referrers:
            for kind in (referrer.kind, *referrer.also):
                # Two systems may report the same referrer.
                kinds.setdefault(kind, {}).setdefault(referrer.digest, referrer)
        entries = [
            DirectoryEntry(kind.encode(), self._links(kind, list(listed.values())))
            for kind, listed in sorted(kinds.items())
        ]
        if found.error is not None:
            raise partial_listing_error(found.error, entries) from found.error
        return entries

    def _links(self, kind: str, referrers: Sequence[Referrer]) -> StaticDirectory:
        key = (self.key, kind)
        names = unique([mangle(to_bytes(referrer.name)) for referrer in referrers])
        up = b"../../" + self._location.siblings + b"/"
        links = (
            (name, SymlinkNode((key, name), up + str(referrer.digest).encode()))
            for name, referrer in zip(names, referrers, strict=True)
        )
        return StaticDirectory(key, links)


class FoundReferrers(NamedTuple):
    """Referrers, and the first error if the list may be incomplete."""

    referrers: list[Referrer]
    error: OcifsError | None


async def find_referrers(location: ManifestLocation, digest: Digest) -> FoundReferrers:
    """Find the referrers of a manifest, with at most four requests at the same time."""
    catalog, repository = location.context.origin.catalog, location.repository
    listed: list[Descriptor] = []
    signed: dict[str, Digest] = {}
    errors: list[OcifsError] = []

    async def ask_api() -> None:
        try:
            listed.extend(await catalog.referrers(repository, digest))
        except OcifsError as error:
            listed.extend(each for each in error.listed if isinstance(each, Descriptor))
            errors.append(error)

    async def ask_tag(suffix: str) -> None:
        try:
            with suppress(NotFound):
                signed[suffix] = (
                    await catalog.resolve(repository, f"{referrers_tag(digest)}.{suffix}")
                ).digest
        except OcifsError as error:
            errors.append(error)

    with ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_api)
            for suffix in COSIGN:
                nursery.start_soon(ask_tag, suffix)
    listed += location.context.siblings(repository, digest)
    own = location.context.own_kinds
    found = [referrer_of(descriptor, own) for descriptor in listed]
    # The order is that of the table, since the requests end in any order.
    found += [
        Referrer(COSIGN[suffix], signed[suffix], is_claim=COSIGN[suffix] != "cosign-sbom")
        for suffix in COSIGN
        if suffix in signed
    ]
    return FoundReferrers(found, errors[0] if errors else None)


def referrer_of(descriptor: Descriptor, own: KindRules | None) -> Referrer:
    """A referrer, from its descriptor. `own`: the kinds that the user declared."""
    found = _classified(descriptor, own)
    predicate = predicate_type(descriptor.annotations)
    word = predicate_word(predicate)
    if not word and found.kind in UNKNOWN_KINDS:
        word = type_word(descriptor.artifact_type)
    if child_role(descriptor) == "attestation":
        return Referrer("attestation", descriptor.digest, word, is_claim=True)
    return Referrer(
        found.kind,
        descriptor.digest,
        word,
        predicate,
        descriptor.artifact_type,
        found.also,
        is_claim(found),
    )


def _classified(descriptor: Descriptor, own: KindRules | None) -> Classification:
    """The classification of a referrer, as far as its descriptor allows."""
    is_index = mediatype.essence(descriptor.media_type) in (
        mediatype.OCI_INDEX,
        mediatype.DOCKER_LIST,
    )
    form = Form.INDEX if is_index else Form.MANIFEST
    shown = Manifest(
        raw=b"",
        digest=descriptor.digest,
        media_type=descriptor.media_type,
        form=form,
        form_reason="its descriptor",
        artifact_type=descriptor.artifact_type,
        annotations=descriptor.annotations,
    )
    return classify(shown, own=own)
