"""`referrers/`: what says of itself that it is about this manifest, by kind.

Two systems are looked at: the referrers API, or the tag that stands in for it (distribution-spec "Listing Referrers"), and the tags that
cosign makes (`sha256-<hex>.sig`, `.att`, `.sbom`).

Rules that hold here: nothing is asked before somebody looks inside; a referrer's kind comes from its descriptor, so that no manifest is
fetched to list; a link leads to the manifest's own directory.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ocifs.content import Catalog
from ocifs.errors import NotFound
from ocifs.oci import mediatype
from ocifs.oci.artifact import classify
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.endpoints import referrers_tag
from ocifs.oci.manifest import Form, Manifest
from ocifs.tree.names import unique
from ocifs.tree.node import DIRECTORY, Attributes, Entry, Link, Node, Plain
from ocifs.tree.static import StaticDirectory

COSIGN = {"sig": "cosign-signature", "att": "cosign-attestation", "sbom": "cosign-sbom"}


class ReferrersDirectory(Plain):
    """`referrers/<kind>/<short digest>`, links to manifests."""

    __slots__ = ("_catalog", "_digest", "_repository", "_siblings", "lifetime")

    def __init__(self, catalog: Catalog, repository: str, digest: Digest, siblings: bytes, key: Hashable) -> None:
        super().__init__(key, Attributes(DIRECTORY, nlink=2))
        self.lifetime = 1.0  # what refers to a digest may change, though the digest does not
        self._catalog = catalog
        self._repository = repository
        self._digest = digest
        self._siblings = siblings

    async def lookup(self, name: bytes) -> Node:
        for entry in await self.entries():
            if entry.name == name:
                return entry.node
        raise NotFound(f"nothing of the kind {name.decode(errors='replace')!r} refers to this manifest")

    async def entries(self) -> Sequence[Entry]:
        kinds: dict[str, list[Digest]] = {}
        for kind, digest in await self._found():
            listed = kinds.setdefault(kind, [])
            if digest not in listed:
                listed.append(digest)
        return [Entry(kind.encode(), self._links(kind, digests)) for kind, digests in sorted(kinds.items())]

    async def _found(self) -> list[tuple[str, Digest]]:
        listed = await self._catalog.referrers(self._repository, self._digest)
        found = [(kind_of(descriptor), descriptor.digest) for descriptor in listed]
        for suffix, kind in COSIGN.items():
            try:
                resolved = await self._catalog.resolve(self._repository, f"{referrers_tag(self._digest)}.{suffix}")
            except NotFound:
                continue
            found.append((kind, resolved.digest))
        return found

    def _links(self, kind: str, digests: Sequence[Digest]) -> StaticDirectory:
        key = (self.key, kind)
        names = unique([digest.short.encode() for digest in digests])
        up = b"../../" + self._siblings + b"/"
        links = (
            (name, Link((key, name), up + str(digest).encode())) for name, digest in zip(names, digests, strict=True)
        )
        return StaticDirectory(key, links)


def kind_of(descriptor: Descriptor) -> str:
    """The kind of a referrer, from what its descriptor says."""
    is_index = mediatype.essence(descriptor.media_type) in (mediatype.OCI_INDEX, mediatype.DOCKER_LIST)
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
