"""`referrers/`: links to the manifests about this one, by kind.

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
from typing import NamedTuple

import trio

from ocifs.concurrency import ungrouped
from ocifs.errors import NotFound, OcifsError
from ocifs.filenames import unique
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution.endpoints import referrers_tag
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.kinds.children import child_role
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


class ReferrersDirectory(SimpleNode):
    """`referrers/<kind>/<short digest>`, links to manifests."""

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
        kinds: dict[str, list[Digest]] = {}
        found = await find_referrers(self._location, self._digest)
        for kind, digest in found.referrers:
            listed = kinds.setdefault(kind, [])
            # Two systems may report the same referrer.
            if digest not in listed:
                listed.append(digest)
        entries = [
            DirectoryEntry(kind.encode(), self._links(kind, digests))
            for kind, digests in sorted(kinds.items())
        ]
        if found.error is not None:
            raise partial_listing_error(found.error, entries) from found.error
        return entries

    def _links(self, kind: str, digests: Sequence[Digest]) -> StaticDirectory:
        key = (self.key, kind)
        names = unique([digest.short.encode() for digest in digests])
        up = b"../../" + self._location.siblings + b"/"
        links = (
            (name, SymlinkNode((key, name), up + str(digest).encode()))
            for name, digest in zip(names, digests, strict=True)
        )
        return StaticDirectory(key, links)


class FoundReferrers(NamedTuple):
    """The kinds and digests of referrers, and the first error if the list may be incomplete."""

    referrers: list[tuple[str, Digest]]
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
    found = [(kind_of(descriptor), descriptor.digest) for descriptor in listed]
    # The order is that of the table, since the requests end in any order.
    found += [(COSIGN[suffix], signed[suffix]) for suffix in COSIGN if suffix in signed]
    return FoundReferrers(found, errors[0] if errors else None)


def kind_of(descriptor: Descriptor) -> str:
    """The kind of a referrer, from its descriptor."""
    if child_role(descriptor) == "attestation":
        return "attestation"
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
    return classify(shown).kind
