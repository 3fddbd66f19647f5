"""The content reachable from a reference: its manifest, config and layers, and of an index the
child for the selected platform.

Pinning uses it, in the event loop.

Rules that hold here:

- Only manifests are read.
- A child without a platform, for example in an index of charts, is always reachable.
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
    """The digests of manifests, including indexes, and of blobs with the sizes in their
    descriptors.
    """

    manifests: list[Digest] = field(default_factory=list)
    blobs: dict[Digest, int] = field(default_factory=dict)


async def reachable(location: ManifestLocation) -> ReachableSet:
    """Read a manifest and its reachable children. Raises NotFound, Unreachable and the like."""
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
    """Raise LimitExceeded if indexes are nested too deeply."""
    if depth > limits.index_depth:
        raise LimitExceeded(
            f"indexes are nested more than {limits.index_depth} deep (limits.index_depth)"
        )


def _children(
    location: ManifestLocation, manifest: Manifest
) -> tuple[list[Digest], dict[Digest, int]]:
    """The reachable manifests of an index, and the blobs that it lists as if they were
    manifests.
    """
    platform_children = [
        each for each in manifest.manifests if child_role(each) == "platform" and each.platform
    ]
    blobs = {each.digest: each.size for each in blob_children(manifest)}
    chosen = first_match([each.platform for each in platform_children], location.context.platform)
    if chosen is not None:
        return [platform_children[chosen].digest], blobs
    return [each.digest for each in manifest.manifests if each.digest not in blobs], blobs
