"""The roles of an index's children: platform, attachment of a sibling, artifact, or blob.

Rules that hold here:

- Pure. Only descriptors are used, and no child is read.
- An attachment of a sibling is not a platform, even if its descriptor has one.
- A name is the publisher's text and is not safe as a path.
"""

from __future__ import annotations

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.kind import TITLE, is_informative, matches_any
from ocifs.oci.manifest import Manifest

_ATTESTATION_TYPES = ("application/vnd.docker.attestation.manifest.*", "application/vnd.in-toto*")
# SOCI's second index has the platform of its image, beside which it is listed (decision 0042).
_NOT_PLATFORMS = ("application/vnd.amazon.soci.index.*",)
_MANIFEST_TYPES = frozenset(mediatype.MANIFESTS) | {""}
# BuildKit lists attestations under unknown/unknown.
_NO_PLATFORM = (("unknown", "unknown"), ("", ""))
# BuildKit's attestations (docs/attestations/attestation-storage.md) and SOCI's second index
# (docs/soci-index-manifest-v2.md).
_SIBLINGS = ("vnd.docker.reference.digest", "com.amazon.soci.image-manifest-digest")
_REF_NAME = "org.opencontainers.image.ref.name"
_VERSION = "org.opencontainers.image.version"
_CNAB = "io.cnab.manifest.type"
_NAMES = (TITLE, "io.cnab.component.name", _CNAB, _REF_NAME, "type")


def child_role(descriptor: Descriptor) -> str:
    """`platform`, `attestation`, `artifact`, `manifest` (undecided), `blob`, or `unknown` (a
    manifest of an unknown type for a platform).
    """
    if mediatype.essence(descriptor.media_type) not in _MANIFEST_TYPES:
        # No blob in an index has a platform.
        return "blob" if descriptor.platform is None else "unknown"
    if descriptor.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return "attestation"
    if matches_any(_ATTESTATION_TYPES, descriptor.artifact_type):
        return "attestation"
    if matches_any(_NOT_PLATFORMS, descriptor.artifact_type):
        return "artifact"
    platform = descriptor.platform
    if platform is not None and (platform.os, platform.architecture) not in _NO_PLATFORM:
        return "platform"
    return (
        "artifact"
        if is_informative(descriptor.artifact_type) or platform is not None
        else "manifest"
    )


def blob_children(index: Manifest) -> tuple[Descriptor, ...]:
    """The children of an index if all of them are blobs, as in BuildKit's older cache; else ().

    Among manifests, a child that looks like a blob has an unknown type. It must not change the role
    of the others (image-index.md).
    """
    blobs = all(child_role(child) == "blob" for child in index.manifests)
    return index.manifests if blobs else ()


def attached_to(descriptor: Descriptor) -> Digest | None:
    """The digest of the sibling that a child is attached to, or None."""
    for key in _SIBLINGS:
        try:
            return Digest.parse(descriptor.annotations[key])
        except (KeyError, Malformed):
            continue
    return None


def child_name(descriptor: Descriptor) -> str:
    """The name of a child that is not a platform: from its annotations, else its short digest."""
    return next(
        (descriptor.annotations[key] for key in _NAMES if descriptor.annotations.get(key)), ""
    ) or (descriptor.digest.short)


def platform_name(index: Manifest, descriptor: Descriptor) -> str:
    """The name of a child that is a platform.

    Homebrew lists darwin/amd64 once for each release of macOS. The name of the bottle contains the
    release.
    """
    version = index.annotations.get(_VERSION) or index.annotations.get(_REF_NAME, "")
    bottle = descriptor.annotations.get(_REF_NAME, "")
    if index.annotations.get("com.github.package.type") == "homebrew_bottle" and bottle.startswith(
        f"{version}."
    ):
        return bottle.removeprefix(f"{version}.")
    return str(descriptor.platform)


def main_child(index: Manifest) -> int | None:
    """The number of the child that provides the files of an index without platforms.

    It is a CNAB bundle's config, or the only child.
    """
    candidates = [
        n
        for n, child in enumerate(index.manifests)
        if child_role(child) in ("artifact", "manifest") and attached_to(child) is None
    ]
    configs = [n for n in candidates if index.manifests[n].annotations.get(_CNAB) == "config"]
    chosen = configs or candidates
    return chosen[0] if len(chosen) == 1 else None
