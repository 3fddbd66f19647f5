"""What a reference stands for as a whole: its manifest, its config and layers, and of an index the
child that would be used.

Rules that hold here: manifests are read, nothing else is; a child that is for no platform (an index
of charts, say) belongs to the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ocifs.errors import LimitExceeded
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import blob_children, child_role
from ocifs.oci.manifest import Manifest
from ocifs.oci.platform import first_match
from ocifs.settings import Limits
from ocifs.tree.manifest.load import ManifestLocation, identify


@dataclass(slots=True)
class ReachableSet:
    """Digests: `manifests`, indices included, and `blobs`, with the sizes that their descriptors
    say.
    """

    manifests: list[Digest] = field(default_factory=list)
    blobs: dict[Digest, int] = field(default_factory=dict)


async def reachable(location: ManifestLocation) -> ReachableSet:
    """Read a manifest and the children that belong to it.

    Raises NotFound, Unreachable and the like.
    """
    found = ReachableSet()
    await _add(location, found, 0)
    return found


async def _add(location: ManifestLocation, found: ReachableSet, depth: int) -> None:
    check_depth(depth, location.context.limits)
    manifest, _ = await identify(location)
    if manifest.digest in found.manifests:
        return
    found.manifests.append(manifest.digest)
    for part in (manifest.config, *manifest.layers):
        if part is not None:
            found.blobs[part.digest] = part.size
    children, blobs = _children(location, manifest)
    found.blobs.update(blobs)
    for child in children:
        await _add(replace(location, version=child), found, depth + 1)


def check_depth(depth: int, limits: Limits) -> None:
    """Raise LimitExceeded where an index stands within more indices than there may be."""
    if depth > limits.index_depth:
        raise LimitExceeded(
            f"indices within indices, more than limits.index_depth allows ({limits.index_depth})"
        )


def _children(
    location: ManifestLocation, manifest: Manifest
) -> tuple[list[Digest], dict[Digest, int]]:
    """The children that are manifests and belong to the whole, and those that are blobs."""
    platform_children = [
        each for each in manifest.manifests if child_role(each) == "platform" and each.platform
    ]
    blobs = {each.digest: each.size for each in blob_children(manifest)}
    chosen = first_match([each.platform for each in platform_children], location.context.platform)
    if chosen is not None:
        return [platform_children[chosen].digest], blobs
    return [each.digest for each in manifest.manifests if each.digest not in blobs], blobs
