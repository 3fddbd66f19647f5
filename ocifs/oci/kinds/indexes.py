"""The kind of an index: by its type, tag, annotations or children.

Called by `artifact.classify`. Pure.
"""

from __future__ import annotations

import re

from ocifs.oci.kinds.children import child_role
from ocifs.oci.kinds.classification import Classification
from ocifs.oci.kinds.kind import is_informative, matches_any
from ocifs.oci.kinds.rules import KindRules
from ocifs.oci.manifest import Manifest

_CNAB_TYPE = "org.opencontainers.artifactType"
_BUILD_CACHE = ("application/vnd.buildkit.cacheconfig.*",)
_REFERRERS_TAG = re.compile(r"sha256-[0-9a-f]{64}|sha512-[0-9a-f]{64}(?:[0-9a-f]{64})?")


def classify_index(manifest: Manifest, tag: str, rules: KindRules) -> Classification:
    """Classify an index without a package annotation."""
    own = manifest.media_type
    # A build cache is recognized by its children, even if the index declares a type.
    decided = _cache_index(manifest) or _typed_index(manifest, rules)
    if decided is not None:
        return decided
    # An index of platforms can have such a tag as well.
    if _REFERRERS_TAG.fullmatch(tag) and all(
        child.platform is None for child in manifest.manifests
    ):
        return Classification("referrers-index", own, "tag", tag, "referrers-tag")
    decided = rules.by_index_annotation(manifest) or _annotated_index(manifest)
    if decided is not None:
        return decided
    if manifest.manifests and all(child_role(child) == "artifact" for child in manifest.manifests):
        value = next(
            (child.artifact_type for child in manifest.manifests if child.artifact_type), own
        )
        return Classification(
            "artifact-index", value, "manifests[].artifactType", value, "artifact-children"
        )
    return Classification("image-index", own, "form", manifest.form_reason, "image-index")


def _cache_index(manifest: Manifest) -> Classification | None:
    """BuildKit's older cache format: an index of blobs, one of which is the cache's config."""
    for n, child in enumerate(manifest.manifests):
        if matches_any(_BUILD_CACHE, child.media_type):
            where = f"manifests[{n}].mediaType"
            return Classification(
                "build-cache", child.media_type, where, child.media_type, "cache-index"
            )
    return None


def _typed_index(manifest: Manifest, rules: KindRules) -> Classification | None:
    value = manifest.artifact_type
    if not is_informative(value):
        return None
    return rules.by_index_type(manifest) or Classification(
        "artifact-index", value, "artifactType", value, "artifact-type"
    )


def _annotated_index(manifest: Manifest) -> Classification | None:
    value = manifest.annotations.get(_CNAB_TYPE, "")
    if not is_informative(value):
        return None
    return Classification(
        "artifact-index", value, f"annotations[{_CNAB_TYPE}]", value, "index-annotation"
    )
