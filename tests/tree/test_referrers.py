"""The names of referrers, and the claims that they make."""

from __future__ import annotations

import json

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.kinds.claims import is_claim, subject_of
from ocifs.oci.kinds.predicates import type_word
from ocifs.tree.manifest.summary import summarise
from tests.oci.manifests import COSIGN, EMPTY, IMAGE, SUBJECT, V, d, m, parse
from tests.tree.memory import MemoryRegistry
from tests.tree.test_artifacts import artifact
from tests.tree.test_layertree import names
from tests.tree.test_semantics import read, root_of

BUNDLE = V + "dev.sigstore.bundle.v0.3+json"
PREDICATE = "dev.sigstore.bundle.predicateType"


def refer(
    registry: MemoryRegistry, subject: dict[str, object], artifact_type: str, predicate: str = ""
) -> bytes:
    """Push a referrer. The result is the short form of its digest."""
    notes = {PREDICATE: predicate} if predicate else {}
    body = artifact(registry, artifactType=artifact_type, subject=subject, annotations=notes)
    descriptor = registry.put_manifest("app", "", body)
    return Digest.parse(str(descriptor["digest"])).short.encode()


async def test_referrers_are_named_by_their_predicates_and_types() -> None:
    registry = MemoryRegistry()
    subject = registry.put_manifest("app", "v1", artifact(registry))
    provenance = refer(registry, subject, BUNDLE, "https://slsa.dev/provenance/v1")
    signature = refer(registry, subject, BUNDLE, "https://sigstore.dev/cosign/sign/v1")
    spdx = refer(registry, subject, BUNDLE, "https://spdx.dev/Document/v2.3")
    plain = refer(registry, subject, BUNDLE)
    hostile = refer(registry, subject, BUNDLE, "https://x.example/../../a/b")
    unknown = refer(registry, subject, V + "acme.dir.signature.v1+json")
    root = root_of(registry)
    base = b"app:v1/referrers"
    assert await names(root, base) == [b"artifact", b"sbom", b"sigstore-bundle"]
    listed = await names(root, base + b"/sigstore-bundle")
    assert {
        b"slsa-provenance-v1-" + provenance,
        b"sigstore-cosign-sign-v1-" + signature,
        b"spdx-" + spdx,
        plain,
    } <= set(listed)
    [odd] = [name for name in listed if name.endswith(hostile)]
    assert b"/" not in odd
    # A bundle with an SBOM in it is listed as one.
    assert await names(root, base + b"/sbom") == [b"spdx-" + spdx]
    assert await read(root, base + b"/sbom/spdx-" + spdx + b"/kind") == b"sigstore-bundle\n"
    assert await names(root, base + b"/artifact") == [b"acme.dir.signature-" + unknown]


def test_short_forms_of_types() -> None:
    assert type_word(V + "acme.signature.v1+json") == "acme.signature"
    assert type_word("application/spdx+json") == "spdx"
    assert type_word("text/spdx; charset=utf-8") == "text.spdx"
    assert type_word(V + "acme.v1.2") == "acme"
    assert type_word("application/vnd") == "vnd"
    assert type_word("") == ""


def test_signatures_and_attestations_are_claims_about_their_subject() -> None:
    signed = V + "dev.cosign.simplesigning.v1+json"
    rows = (
        (m(EMPTY, BUNDLE, artifactType=BUNDLE, subject=SUBJECT), True),
        (m(IMAGE, signed), True),
        (m(EMPTY, "a/b", artifactType=V + "acme.sign.signature.v1+json", subject=SUBJECT), True),
        (m(EMPTY, "a/b", artifactType="application/spdx+json", subject=SUBJECT), False),
        (m(EMPTY, "a/b", artifactType=V + "acme.designature", subject=SUBJECT), False),
    )
    for body, expected in rows:
        assert is_claim(classify(parse(body))) is expected
    tagged = parse(m(IMAGE, signed))
    digest = "sha256:" + "ab" * 32
    assert str(subject_of(tagged, "sha256-" + "ab" * 32 + ".sig")) == digest
    assert subject_of(tagged, "v1") is None and subject_of(tagged, "sha256-ab.sig") is None
    about = parse(m(EMPTY, BUNDLE, artifactType=BUNDLE, subject=SUBJECT))
    assert str(subject_of(about, "v1")) == SUBJECT["digest"]


def test_the_summary_of_a_claim_shows_its_subject_and_that_it_is_not_verified() -> None:
    about = parse(m(EMPTY, BUNDLE, artifactType=BUNDLE, subject=SUBJECT))
    page = summarise(about, classify(about), None)
    assert f"Trust:         not verified, about {SUBJECT['digest']}\n" in page
    tagged = parse(m(IMAGE, d(COSIGN + "simplesigning.v1+json")))
    page = summarise(tagged, classify(tagged), None, tag="sha256-" + "ab" * 32 + ".sig")
    assert f"not verified, about sha256:{'ab' * 32}\n" in page
    assert "its payload names its subject" in summarise(tagged, classify(tagged), None)
    chart = parse(m(mediatype.OCI_EMPTY, "a/b"))
    assert "Trust" not in summarise(chart, classify(chart), json.dumps({}).encode())
