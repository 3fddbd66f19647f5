"""Signatures and attestations: claims about another manifest, which ocifs displays and does not
verify.

Rules that hold here: pure; only the manifest, or a descriptor of it, and its tag are used.
"""

from __future__ import annotations

import re

from ocifs.errors import Malformed
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.classification import Classification
from ocifs.oci.manifest import Manifest

_COSIGN_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})\.(?:sig|att|sbom)")
_CLAIM = re.compile(r"(?:^|[/.+-])(?:signature|attestation|sig|att)(?:[.+;-]|$)", re.IGNORECASE)


def is_claim(classification: Classification) -> bool:
    """Whether an artifact is a signature or an attestation, by its kind or an unknown type."""
    row = classification.row
    unknown = classification.kind == "artifact"
    return row.is_claim or (unknown and _CLAIM.search(classification.artifact_type) is not None)


def subject_of(manifest: Manifest, tag: str = "") -> Digest | None:
    """The digest that a manifest refers to: its subject, else the one in cosign's tag."""
    if manifest.subject is not None:
        return manifest.subject.digest
    match = _COSIGN_TAG.fullmatch(tag)
    if match is None:
        return None
    try:
        return Digest.parse(f"{match[1]}:{match[2]}")
    except Malformed:
        return None
