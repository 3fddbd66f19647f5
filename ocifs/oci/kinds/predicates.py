"""Predicate types of in-toto statements: their short forms, and the kinds that they contain.

Publishers repeat the type in annotations, since the statement itself is in a blob.

Rules that hold here: pure; only annotations are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ocifs.oci import mediatype
from ocifs.oci.manifest import Manifest

_VERSION = re.compile(r"v?\d+(?:alpha\d*|beta\d*)?")
# BuildKit, cosign's tags, and Sigstore bundles (also those of GitHub).
_KEYS = ("in-toto.io/predicate-type", "predicateType", "dev.sigstore.bundle.predicateType")
_WORDS = (
    ("spdx.dev/Document", "spdx"),
    ("cyclonedx.org/", "cyclonedx"),
    ("openvex.dev/ns", "openvex"),
    ("cosign.sigstore.dev/attestation/vuln/", "vulnerabilities"),
    ("cosign.sigstore.dev/attestation/", "custom"),
)
_CONTAINERS = frozenset({"attestation", "cosign-attestation", "sigstore-bundle"})
_CONTAINED = (
    ("spdx.dev/Document", "sbom"),
    ("cyclonedx.org/bom", "sbom"),
    ("syft.dev/bom", "sbom"),
    ("openvex.dev/ns", "vex"),
    ("cosign.sigstore.dev/attestation/vuln/", "vulnerability-report"),
    ("in-toto.io/attestation/vulns/", "vulnerability-report"),
    ("scout.docker.com/vulnerabilities/", "vulnerability-report"),
)


def predicate_type(annotations: Mapping[str, str]) -> str:
    """The predicate type that annotations of a manifest, layer or descriptor record, or ""."""
    return next((annotations[key] for key in _KEYS if annotations.get(key)), "")


def predicate_word(predicate: str) -> str:
    """A short form of a predicate type.

    `https://slsa.dev/provenance/v0.2` becomes `slsa-provenance-v0.2`.
    """
    text = _without_scheme(predicate)
    for prefix, word in _WORDS:
        if text.startswith(prefix):
            return word
    host, _, path = text.rstrip("/").partition("/")
    labels = host.removeprefix("www.").split(".")
    return "-".join(part for part in (labels[0], *path.split("/")) if part)


def type_word(artifact_type: str) -> str:
    """A short form of an artifact's type.

    `application/vnd.acme.signature.v1+json` becomes `acme.signature`.
    """
    text = mediatype.essence(artifact_type).removeprefix("application/").partition("+")[0]
    words = text.replace("/", ".").split(".")
    while len(words) > 1 and _VERSION.fullmatch(words[-1]):
        words.pop()
    return ".".join(words[1:] if words[0] in ("vnd", "prs", "x") and len(words) > 1 else words)


def contained_kinds(kind: str, manifest: Manifest) -> tuple[str, ...]:
    """The kinds of the predicates in an attestation or bundle: `sbom` for an SPDX document."""
    if kind not in _CONTAINERS:
        return ()
    found = (_contained_kind(predicate) for predicate in _predicates(manifest))
    return tuple(dict.fromkeys(word for word in found if word))


def _predicates(manifest: Manifest) -> Iterator[str]:
    yield predicate_type(manifest.annotations)
    for layer in manifest.layers:
        yield predicate_type(layer.annotations)


def _contained_kind(predicate: str) -> str:
    text = _without_scheme(predicate)
    return next((kind for prefix, kind in _CONTAINED if text.startswith(prefix)), "")


def _without_scheme(predicate: str) -> str:
    return predicate.partition("://")[2] or predicate
