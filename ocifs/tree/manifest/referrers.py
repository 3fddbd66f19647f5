"""`referrers/`: what says of itself that it is about this manifest, by kind.

Three systems are looked at: the referrers API, or the tag that stands in for it (distribution-spec
"Listing Referrers"); the tags that cosign makes (`sha256-<hex>.sig`, `.att`, `.sbom`); and siblings
in an index (BuildKit's attestations, SOCI's second index), where such an index was looked at
before.

Rules that hold here: nothing is asked before somebody looks inside; a referrer's kind comes from
its descriptor, so that no manifest is fetched to list; a link leads to the manifest's own
directory, so what refers in a circle is a circle of links and nothing is endless.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress

import trio

from ocifs.concurrency import ungrouped
from ocifs.errors import NotFound
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution.endpoints import referrers_tag
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.kinds.children import child_role
from ocifs.oci.manifest import Form, Manifest
from ocifs.tree.manifest.load import Whereabouts
from ocifs.tree.names import unique
from ocifs.tree.node import DIRECTORY, Attributes, Entry, Link, Node, Plain
from ocifs.tree.static import StaticDirectory

COSIGN = {"sig": "cosign-signature", "att": "cosign-attestation", "sbom": "cosign-sbom"}


class ReferrersDirectory(Plain):
    """`referrers/<kind>/<short digest>`, links to manifests."""

    __slots__ = ("_digest", "_where", "lifetime")

    def __init__(self, where: Whereabouts, digest: Digest, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        self.lifetime = 1.0  # what refers to a digest may change, though the digest does not
        self._where = where
        self._digest = digest

    async def lookup(self, name: bytes) -> Node:
        for entry in await self.entries():
            if entry.name == name:
                return entry.node
        raise NotFound(
            f"nothing of the kind {name.decode(errors='replace')!r} refers to this manifest"
        )

    async def entries(self) -> Sequence[Entry]:
        kinds: dict[str, list[Digest]] = {}
        for kind, digest in await find_referrers(self._where, self._digest):
            listed = kinds.setdefault(kind, [])
            if digest not in listed:
                listed.append(digest)
        return [
            Entry(kind.encode(), self._links(kind, digests))
            for kind, digests in sorted(kinds.items())
        ]

    def _links(self, kind: str, digests: Sequence[Digest]) -> StaticDirectory:
        key = (self.key, kind)
        names = unique([digest.short.encode() for digest in digests])
        up = b"../../" + self._where.siblings + b"/"
        links = (
            (name, Link((key, name), up + str(digest).encode()))
            for name, digest in zip(names, digests, strict=True)
        )
        return StaticDirectory(key, links)


async def find_referrers(where: Whereabouts, digest: Digest) -> list[tuple[str, Digest]]:
    """What refers to a manifest, as kinds and digests; four questions at most, asked at once."""
    catalog, repository = where.context.origin.catalog, where.repository
    listed: list[Descriptor] = []
    signed: dict[str, Digest] = {}

    async def ask_api() -> None:
        listed.extend(await catalog.referrers(repository, digest))

    async def ask_tag(suffix: str) -> None:
        with suppress(NotFound):
            signed[suffix] = (
                await catalog.resolve(repository, f"{referrers_tag(digest)}.{suffix}")
            ).digest

    with ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_api)
            for suffix in COSIGN:
                nursery.start_soon(ask_tag, suffix)
    listed += where.context.siblings(repository, digest)
    found = [(kind_of(descriptor), descriptor.digest) for descriptor in listed]
    return [*found, *((COSIGN[suffix], signed[suffix]) for suffix in COSIGN if suffix in signed)]


def kind_of(descriptor: Descriptor) -> str:
    """The kind of a referrer, from what its descriptor says."""
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
