"""The table of the kinds of artifact that ocifs knows by name: what hangs on images, then packages,
then programs and models.

Rules that hold here: data only, no code; the strings are those that the publishers' tools write;
where two rows share a type, the one that demands more stands first.
docs/reference/artifact-kinds.md is generated from this table by scripts/generate_kinds.py.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind
from ocifs.oci.kinds.packages import PACKAGES
from ocifs.oci.kinds.programs import PROGRAMS

_COSIGN = "application/vnd.dev.cosign."
_SBOM_NAMES = (
    ("application/spdx+json", "sbom.spdx.json"),
    ("text/spdx+json", "sbom.spdx.json"),
    ("text/spdx+xml", "sbom.spdx.xml"),
    ("text/spdx", "sbom.spdx"),
    ("application/vnd.cyclonedx+json", "sbom.cdx.json"),
    ("application/vnd.cyclonedx+xml", "sbom.cdx.xml"),
    ("application/vnd.cyclonedx", "sbom.cdx"),
    ("application/vnd.syft+json", "sbom.syft.json"),
)
_SBOM_TYPES = tuple(pattern for pattern, _ in _SBOM_NAMES)

SUPPLY_CHAIN = (
    ArtifactKind(
        "attestation",
        "Attestation in in-toto's format (BuildKit's, or attached)",
        types=("application/vnd.docker.attestation.manifest.v1+json", "application/vnd.in-toto*"),
        layer_types=("application/vnd.in-toto*",),
        all_layers=True,
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
    ),
    ArtifactKind(
        "cosign-attestation",
        "Attestations by cosign's tags (DSSE envelopes)",
        types=(_COSIGN + "artifact.att.v1+json", "application/vnd.dsse.envelope.v1+json"),
        layer_types=("application/vnd.dsse.envelope.v1+json",),
    ),
    ArtifactKind(
        "cosign-sbom",
        "SBOM by cosign's tags (cosign attach sbom)",
        types=(_COSIGN + "artifact.sbom.v1+json",),
        layer_types=("text/spdx*", "application/vnd.cyclonedx*", "application/vnd.syft+json"),
        file_names=_SBOM_NAMES,
    ),
    ArtifactKind(
        "sigstore-bundle",
        "Sigstore bundle (signature or attestation, cosign 3)",
        types=("application/vnd.dev.sigstore.bundle*",),
        layer_types=("application/vnd.dev.sigstore.bundle*",),
        file_names=(("application/vnd.dev.sigstore.bundle*", "bundle.sigstore.json"),),
    ),
    ArtifactKind(
        "notation-signature",
        "Notary Project signature",
        types=("application/vnd.cncf.notary.signature", "application/vnd.cncf.notary.v2.signature"),
        file_names=(
            ("application/jose+json", "signature.jws"),
            ("application/cose", "signature.cose"),
        ),
    ),
    ArtifactKind("sbom", "Software bill of materials", types=_SBOM_TYPES, file_names=_SBOM_NAMES),
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
    ),
    ArtifactKind(
        "soci-index",
        "SOCI index (tables of contents for lazy loading)",
        types=("application/vnd.amazon.soci.index.*",),
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
        "sif-image",
        "Singularity or Apptainer image",
        types=("application/vnd.sylabs.sif.*",),
        layer_types=("application/vnd.sylabs.sif.layer.*", "appliciation/vnd.sylabs.sif.layer.*"),
        file_names=(("*", "container.sif"),),
    ),
    ArtifactKind(
        "tart-vm",
        "Tart virtual machine",
        types=("application/vnd.cirruslabs.tart.*",),
        layer_types=("application/vnd.cirruslabs.tart.*",),
        file_names=(
            ("application/vnd.cirruslabs.tart.config.v1", "config.json"),
            # Apple's framing of LZ4, both: one stream that was cut into layers, and streams for 512
            # MiB of the disk each.
            ("application/vnd.cirruslabs.tart.disk.v1", "disk.img.lz4"),
            ("application/vnd.cirruslabs.tart.disk.v2", "disk.img.{n}.lz4"),
            ("application/vnd.cirruslabs.tart.nvram.v1", "nvram.bin"),
        ),
        joined_types=("application/vnd.cirruslabs.tart.disk.v1",),
    ),
)

# Decided by the form of the manifest and what is left over, in artifact.py; here for their names
# and for the generated page.
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
    ArtifactKind("docker-schema1", "Docker image of the first schema"),
    ArtifactKind(
        "referrers-index", "What refers to a digest, at the tag that is named after it", index=True
    ),
    ArtifactKind("artifact", "Artifact of a type that has no row here"),
    ArtifactKind("artifact-index", "Index of artifacts", index=True),
    ArtifactKind("files", "Files, of which nothing says what they are"),
    ArtifactKind("unknown", "Manifest of a form that ocifs does not interpret"),
)

KINDS: tuple[ArtifactKind, ...] = (*SUPPLY_CHAIN, *IMAGE_HELPERS, *PACKAGES, *PROGRAMS, *GENERAL)
KINDS_BY_NAME = {kind.name: kind for kind in KINDS}
