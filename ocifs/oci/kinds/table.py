"""The table of the kinds of artifact: attachments of images, packages, programs and models.

docs/reference/artifact-kinds.md is generated from this table by scripts/generate_kinds.py, and
docs/how-to/extend.md shows how to add a row.

Rules that hold here:

- Data only, no code.
- The strings are copied from the tools and specifications of the publishers.
- Of two rows that share a type, the one with more conditions comes first.
"""

from __future__ import annotations

from ocifs.oci.kinds.agents import AGENTS
from ocifs.oci.kinds.kind import ArtifactKind
from ocifs.oci.kinds.machines import MACHINES
from ocifs.oci.kinds.models import MODELS
from ocifs.oci.kinds.packages import PACKAGES
from ocifs.oci.kinds.platforms import PLATFORMS
from ocifs.oci.kinds.programs import PROGRAMS

_COSIGN = "application/vnd.dev.cosign."
_SBOM_NAMES = (
    ("application/spdx+json", "sbom.spdx.json"),
    ("application/vnd.spdx+json", "sbom.spdx.json"),
    ("text/spdx+json", "sbom.spdx.json"),
    ("text/spdx+xml", "sbom.spdx.xml"),
    ("text/spdx", "sbom.spdx"),
    ("application/vnd.cyclonedx+json", "sbom.cdx.json"),
    ("application/vnd.cyclonedx+xml", "sbom.cdx.xml"),
    ("application/vnd.cyclonedx", "sbom.cdx"),
    ("application/vnd.syft+json", "sbom.syft.json"),
)
_SBOM_TYPES = tuple(pattern for pattern, _ in _SBOM_NAMES)
_REPORT_NAMES = (("application/sarif+json", "report.sarif.json"),)
_VEX_NAMES = (
    ("application/openvex+json", "vex.openvex.json"),
    ("application/vnd.openvex+json", "vex.openvex.json"),
    ("application/vex+json", "vex.json"),
    ("application/csaf+json", "csaf.json"),
)
_VEX_TYPES = tuple(pattern for pattern, _ in _VEX_NAMES)
_BUNDLE_NAMES = (("application/vnd.dev.sigstore.bundle*", "bundle.sigstore.json"),)
_NOTATION_NAMES = (
    ("application/jose+json", "signature.jws"),
    ("application/cose", "signature.cose"),
)

COMMON_NAMES: tuple[tuple[str, str], ...] = (
    *_SBOM_NAMES,
    *_REPORT_NAMES,
    *_VEX_NAMES,
    *_BUNDLE_NAMES,
    *_NOTATION_NAMES,
    ("application/vnd.in-toto*", "attestation{shard}.intoto.json"),
    ("application/vnd.dsse.envelope*", "attestation{shard}.dsse.json"),
    ("application/vnd.dev.cosign.simplesigning.*", "payload{shard}.json"),
    ("application/vnd.oci.image.layer.nydus.blob.*", "nydus-blob-{n}"),
    ("application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip", "bundle.tar.gz"),
)
"""Names of files by types that occur in artifacts of many kinds."""

SUPPLY_CHAIN = (
    ArtifactKind(
        "attestation",
        "Attestation in the in-toto format (by BuildKit, or attached)",
        types=("application/vnd.docker.attestation.manifest.v1+json", "application/vnd.in-toto*"),
        layer_types=("application/vnd.in-toto*",),
        all_layers=True,
        is_claim=True,
    ),
    ArtifactKind(
        "cosign-signature",
        "Cosign signature",
        types=(_COSIGN + "artifact.sig.v1+json", _COSIGN + "simplesigning.v1+json"),
        layer_types=(_COSIGN + "simplesigning.v1+json",),
        file_names=((_COSIGN + "simplesigning.v1+json", "payload.json"),),
        layer_annotation_files=(
            ("dev.cosignproject.cosign/signature", "signature.b64"),
            ("dev.sigstore.cosign/certificate", "certificate.pem"),
            ("dev.sigstore.cosign/chain", "chain.pem"),
            ("dev.sigstore.cosign/bundle", "bundle.json"),
            ("dev.sigstore.cosign/rfc3161timestamp", "rfc3161timestamp.json"),
        ),
        is_claim=True,
    ),
    ArtifactKind(
        "cosign-attestation",
        "Attestations at a cosign tag (DSSE envelopes)",
        types=(_COSIGN + "artifact.att.v1+json", "application/vnd.dsse.envelope.v1+json"),
        layer_types=("application/vnd.dsse.envelope.v1+json",),
        is_claim=True,
    ),
    ArtifactKind(
        "cosign-sbom",
        "SBOM at a cosign tag (cosign attach sbom)",
        types=(_COSIGN + "artifact.sbom.v1+json",),
        layer_types=("text/spdx*", "application/vnd.cyclonedx*", "application/vnd.syft+json"),
        file_names=_SBOM_NAMES,
    ),
    ArtifactKind(
        "sigstore-bundle",
        "Sigstore bundle (signature or attestation, cosign 3)",
        types=("application/vnd.dev.sigstore.bundle*",),
        layer_types=("application/vnd.dev.sigstore.bundle*",),
        file_names=_BUNDLE_NAMES,
        is_claim=True,
    ),
    ArtifactKind(
        "notation-signature",
        "Notary Project signature",
        types=("application/vnd.cncf.notary.signature", "application/vnd.cncf.notary.v2.signature"),
        file_names=_NOTATION_NAMES,
        is_claim=True,
    ),
    ArtifactKind(
        "sbom",
        "Software bill of materials",
        # Harbor has a type of its own for the documents that its scanners write.
        types=(
            *_SBOM_TYPES,
            "application/vnd.goharbor.harbor.sbom.*",
            "application/vnd.ratify.spdx.*",
        ),
        layer_types=("application/spdx+json", "application/vnd.spdx+json"),
        all_layers=True,
        file_names=(*_SBOM_NAMES, ("application/vnd.goharbor.harbor.sbom.*", "sbom.spdx.json")),
    ),
    ArtifactKind(
        "vulnerability-report",
        "Report of a vulnerability scanner",
        types=(
            "application/sarif+json",
            "application/vnd.aquasec.trivy.report.*",
            "application/vnd.security.vulnerability.report*",
            "application/vnd.scanner.adapter.vuln.report.*",
            # Konflux attaches the reports of three scanners.
            "application/vnd.redhat.clair-report*",
            "application/vnd.redhat.tpa-report*",
            "application/vnd.trivy.report*",
        ),
        layer_types=("application/sarif+json",),
        all_layers=True,
        file_names=(
            *_REPORT_NAMES,
            ("application/json", "report{shard}.json"),
            ("application/vnd.aquasec.trivy.report.*", "report{shard}.json"),
        ),
    ),
    ArtifactKind(
        "lifecycle",
        "End-of-life date of an image",
        types=("application/vnd.microsoft.artifact.lifecycle*",),
        annotation_files=(
            ("vnd.microsoft.artifact.lifecycle.end-of-life.date", "end-of-life.date"),
        ),
    ),
    ArtifactKind(
        "vex",
        "VEX document: which vulnerabilities affect an image",
        types=_VEX_TYPES,
        layer_types=_VEX_TYPES,
        all_layers=True,
        file_names=_VEX_NAMES,
    ),
)

IMAGE_HELPERS = (
    ArtifactKind(
        "docker-plugin",
        "Docker Engine plugin",
        types=("application/vnd.docker.plugin.v1+json",),
        file_names=(("application/vnd.docker.image.rootfs.diff.tar.gzip", "rootfs/"),),
        config_file="config.json",
    ),
    ArtifactKind(
        "puzzlefs-image",
        "PuzzleFS image",
        types=("application/vnd.puzzlefs.*",),
        layer_types=("application/vnd.puzzlefs.*",),
        file_names=(
            ("application/vnd.puzzlefs.image.rootfs*", "rootfs.capnp"),
            ("application/vnd.puzzlefs.image.filedata*", "data-{n}"),
        ),
    ),
    ArtifactKind(
        "stargz-toc",
        "External tables of contents of an eStargz image",
        layer_annotations=("containerd.io/snapshot/stargz/layer.digest",),
        file_names=(
            (
                "containerd.io/snapshot/stargz/layer.digest",
                "{containerd.io/snapshot/stargz/layer.digest}/",
            ),
        ),
    ),
    ArtifactKind(
        "soci-index",
        "SOCI index (tables of contents for lazy loading)",
        types=("application/vnd.amazon.soci.index.*",),
        file_names=(
            (
                "com.amazon.soci.image-layer-digest",
                "{com.amazon.soci.image-layer-digest}.ztoc",
            ),
        ),
    ),
    ArtifactKind(
        "build-cache",
        "Build cache (BuildKit, nydusify)",
        types=("application/vnd.buildkit.cacheconfig.*",),
        annotations=("containerd.io/snapshot/nydus-cache",),
        file_names=(("application/vnd.buildkit.cacheconfig.*", "cacheconfig.json"),),
        config_file="cacheconfig.json",
    ),
    ArtifactKind(
        "build-record",
        "Record of a build (docker buildx history export)",
        types=("application/vnd.buildkit.historyrecord.*",),
        file_names=(
            ("application/vnd.buildkit.otlp.json.*", "trace.json"),
            ("application/vnd.buildkit.status.*", "logs"),
        ),
        config_file="record.json",
    ),
    ArtifactKind(
        # With these types, the image is a referrer of the original.
        "overlaybd-image",
        "Image in overlaybd format (accelerated container image, Azure artifact streaming)",
        types=(
            "application/vnd.containerd.overlaybd.*",
            "application/vnd.azure.artifact.streaming.*",
        ),
        is_image=True,
    ),
    ArtifactKind(
        "sif-image",
        "Singularity or Apptainer image",
        types=("application/vnd.sylabs.sif.*",),
        # Singularity before 3.7 wrote the misspelled type.
        layer_types=("application/vnd.sylabs.sif.layer.*", "appliciation/vnd.sylabs.sif.layer.*"),
        file_names=(("*", "container.sif"),),
    ),
)

# These are decided in artifact.py, by the form of the manifest or because no row matches. The rows
# are used for their names and descriptions only.
GENERAL = (
    ArtifactKind(
        "image",
        "Container image for one platform",
        file_names=(
            ("containerd.io/snapshot/nydus-bootstrap", "bootstrap/"),
            ("application/vnd.oci.image.layer.nydus.blob.*", "nydus-blob-{n}"),
        ),
    ),
    ArtifactKind("image-index", "Container image for several platforms", index=True),
    ArtifactKind("docker-schema1", "Docker image manifest, schema 1"),
    ArtifactKind("referrers-index", "Referrers of a digest (referrers tag schema)", index=True),
    ArtifactKind("artifact", "Artifact of a type that ocifs has no kind for"),
    ArtifactKind("artifact-index", "Index of artifacts", index=True),
    ArtifactKind("files", "Files without a type"),
    ArtifactKind("unknown", "Manifest of a form that ocifs does not interpret"),
)

KINDS: tuple[ArtifactKind, ...] = (
    *SUPPLY_CHAIN,
    *IMAGE_HELPERS,
    *MACHINES,
    *PACKAGES,
    *PROGRAMS,
    *PLATFORMS,
    *MODELS,
    *AGENTS,
    *GENERAL,
)
KINDS_BY_NAME = {kind.name: kind for kind in KINDS}
