"""One row for each convention: kind, type, deciding field, and names of files.

The manifests follow the publishers' documented layouts, with made-up digests. `trap` describes the
simple heuristic that a row refutes. The conventions of 2025 and later are in rows_2026.py.
"""

from __future__ import annotations

import re

import pytest

from ocifs.oci import mediatype
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.kinds.payload import payload_files
from ocifs.oci.kinds.table import KINDS, KINDS_BY_NAME
from ocifs.tree.manifest.summary import summarise
from tests.oci.manifests import (
    BLANK,
    COMMON,
    COSIGN,
    DOCKER,
    DTAR,
    EMPTY,
    IMAGE,
    L0,
    OPA,
    SUBJECT,
    TAR,
    UNKNOWN,
    A,
    C,
    Row,
    T,
    V,
    child,
    d,
    m,
    parse,
    x,
)
from tests.oci.rows_2026 import ROWS_2026
from tests.oci.rows_platforms import ROWS_PLATFORMS

CHART = b'{"name": "web", "version": "1.2.0"}'
HELM, CHART_TAR = V + "cncf.helm.config.v1+json", V + "cncf.helm.chart.content.v1.tar+gzip"
PROV = V + "cncf.helm.chart.provenance.v1.prov"
PACKAGE = "com.github.package.type"
DEV, DEV_TAR = V + "devcontainers", V + "devcontainers.layer.v1+tar"
SPIN = b'{"components": [{"id": "hi", "source": {"digest": "%s"}}]}'
SPIN_LAYER = d(V + "wasm.content.layer.v1+wasm", 7)
MOD = V + "module.wasm.content.layer.v1+wasm"
AI, OLLAMA, MODEL, FALCO = (
    V + "docker.ai.",
    V + "ollama.image.",
    V + "cncf.model.",
    V + "cncf.falco.",
)
HEX = "ab" * 32

ROWS = [
    # Images and indexes
    Row("oci image", m(IMAGE, TAR, TAR), "image", IMAGE, C, ("layer-0.tar.gz", "layer-1.tar.gz")),
    Row("docker image", m(DOCKER, DTAR, mediaType=mediatype.DOCKER_MANIFEST), "image", DOCKER, C, ("layer-0.tar.gz",)),
    Row("zstd image", m(IMAGE, mediatype.OCI_LAYER_ZSTD), "image", IMAGE, C, ("layer-0.tar.zst",)),
    Row("image from scratch without layers", m(IMAGE), "image", IMAGE, C, (), "no layers, so no image"),
    Row("docker image with an octet-stream config", m(mediatype.OCTET_STREAM, DTAR, mediaType=mediatype.DOCKER_MANIFEST),
        "image", DOCKER, "mediaType", ("layer-0.tar.gz",), "the config's type names the kind"),
    Row("octet-stream config in an OCI manifest", m(mediatype.OCTET_STREAM, TAR), "files", mediatype.OCTET_STREAM, "",
        ("layer-0.tar.gz",), "octet-stream over tars is an image"),
    Row("image whose artifactType says image", m(IMAGE, TAR, artifactType=IMAGE), "image", IMAGE, C, ("layer-0.tar.gz",),
        "an artifactType makes an artifact"),
    Row("nydus image with its bootstrap", m(DOCKER, V + "oci.image.layer.nydus.blob.v1",
        d(V + "oci.image.layer.v1.tar.gz", note="containerd.io/snapshot/nydus-bootstrap=true"), mediaType=""), "image", DOCKER, C,
        ("nydus-blob-000", "bootstrap"), "all layers of an image are tars"),
    Row("image volume of Kubernetes, made from scratch", m(IMAGE, TAR, annotations={COMMON + "title": "models"}), "image", IMAGE, C,
        ("layer-0.tar.gz",), "what holds only data is no image"),
    Row("image volume of Kubernetes, an artifact", m(EMPTY, d(A + "octet-stream", note="t=m/a.bin"), artifactType=V + "acme.model.v1"),
        "artifact", V + "acme.model.v1", T, ("m/a.bin",)),
    Row("Backstage's plugins", m(IMAGE, TAR, annotations={"io.backstage.dynamic-packages": "W10="}), "image", IMAGE, C,
        ("layer-0.tar.gz",)),
    Row("nydus image", m(IMAGE, V + "oci.image.layer.nydus.blob.v1", TAR), "image", IMAGE, C, ("nydus-blob-000", "layer-1.tar.gz")),
    Row("index of platforms", x(child("linux/amd64"), child("linux/arm/v7")), "image-index", mediatype.OCI_INDEX, "form"),
    Row("index with attestations", x(child("linux/amd64"), child("unknown/unknown", note="vnd.docker.reference.type=attestation-manifest")),
        "image-index", mediatype.OCI_INDEX, "form"),
    Row("index with nothing in it", x(), "image-index", mediatype.OCI_INDEX, "form"),
    Row("schema 1", {"schemaVersion": 1, "name": "a/b", "fsLayers": [{"blobSum": f"sha256:{HEX}"}, {"blobSum": BLANK}],
        "history": []}, "docker-schema1", mediatype.DOCKER_SCHEMA1, "form", ("layer-1.tar.gz",)),
    Row("manifest and index at once", m(IMAGE, TAR) | {"manifests": []}, "unknown", mediatype.OCI_MANIFEST, "form", (),
        "mediaType decides the form"),
    Row("docker plugin", m(V + "docker.plugin.v1+json", DTAR), "docker-plugin", V + "docker.plugin.v1+json", C,
        ("rootfs", "config.json"), "a Docker rootfs layer makes an image"),
    # What hangs on images
    Row("buildkit attestation, new", m(EMPTY, d(V + "in-toto+json", note="in-toto.io/predicate-type=https://spdx.dev/Document"),
        artifactType=V + "docker.attestation.manifest.v1+json", subject=SUBJECT), "attestation",
        V + "docker.attestation.manifest.v1+json", T, ("spdx.intoto.json",)),
    Row("buildkit attestation, old", m(IMAGE, d(V + "in-toto+json", note="in-toto.io/predicate-type=https://slsa.dev/provenance/v1")),
        "attestation", V + "in-toto+json", L0, ("slsa-provenance-v1.intoto.json",), "the config says image"),
    Row("cosign signature", m(IMAGE, COSIGN + "simplesigning.v1+json"), "cosign-signature", COSIGN + "simplesigning.v1+json", L0,
        ("payload.json",), "the config says image"),
    Row("cosign signature as a referrer", m(COSIGN + "artifact.sig.v1+json", COSIGN + "simplesigning.v1+json", subject=SUBJECT),
        "cosign-signature", COSIGN + "artifact.sig.v1+json", C, ("payload.json",)),
    Row("cosign attestation", m(IMAGE, d(V + "dsse.envelope.v1+json", note="predicateType=https://cyclonedx.org/bom")),
        "cosign-attestation", V + "dsse.envelope.v1+json", L0, ("cyclonedx.dsse.json",), "the config says image"),
    Row("cosign sbom", m(IMAGE, "text/spdx+json"), "cosign-sbom", "text/spdx+json", L0, ("sbom.spdx.json",), "the config says image"),
    Row("sigstore bundle", m(EMPTY, V + "dev.sigstore.bundle.v0.3+json", artifactType=V + "dev.sigstore.bundle.v0.3+json"),
        "sigstore-bundle", V + "dev.sigstore.bundle.v0.3+json", T, ("bundle.sigstore.json",)),
    Row("sigstore bundle with a parameter", m(EMPTY, V + "dev.sigstore.bundle+json;version=0.1",
        artifactType=V + "dev.sigstore.bundle+json;version=0.1"), "sigstore-bundle", V + "dev.sigstore.bundle+json;version=0.1", T,
        ("bundle.sigstore.json",), "types are equal as strings"),
    Row("notation by artifactType", m(EMPTY, A + "jose+json", artifactType=V + "cncf.notary.signature", subject=SUBJECT),
        "notation-signature", V + "cncf.notary.signature", T, ("signature.jws",)),
    Row("notation by config, cose", m(d(V + "cncf.notary.signature", 2), A + "cose"), "notation-signature",
        V + "cncf.notary.signature", C, ("signature.cose",), "an empty config says nothing"),
    Row("cyclonedx referrer", m(EMPTY, V + "cyclonedx+xml", artifactType=V + "cyclonedx+xml"), "sbom", V + "cyclonedx+xml", T,
        ("sbom.cdx.xml",)),
    Row("sbom in the withdrawn artifact manifest", {"mediaType": mediatype.OCI_ARTIFACT_MANIFEST, "artifactType": A + "spdx+json",
        "blobs": [d(A + "spdx+json")], "subject": SUBJECT}, "sbom", A + "spdx+json", T, ("sbom.spdx.json",)),
    Row("referrers tag", x(child("", V + "cncf.notary.signature")), "referrers-index", mediatype.OCI_INDEX, "tag",
        tag=f"sha256-{HEX}", trap="an index is for platforms"),
    Row("platforms at a tag like a digest", x(child("linux/amd64")), "image-index", mediatype.OCI_INDEX, "form", tag=f"sha256-{HEX}",
        trap="such a tag holds referrers"),
    Row("soci index", m(d(V + "amazon.soci.index.v1+json", 2),
        d(mediatype.OCTET_STREAM, note="com.amazon.soci.image-layer-digest=sha256:1a")),
        "soci-index", V + "amazon.soci.index.v1+json", C, ("sha256:1a.ztoc",)),
    Row("external estargz toc", m(IMAGE, d(TAR, note="containerd.io/snapshot/stargz/layer.digest=sha256:2b")), "stargz-toc", IMAGE,
        "layers[0].annotations[containerd.io/snapshot/stargz/layer.digest]", ("sha256:2b",), "image config and tar layers"),
    Row("build cache", m(V + "buildkit.cacheconfig.v0", TAR), "build-cache", V + "buildkit.cacheconfig.v0", C,
        ("layer-0.tar.gz", "cacheconfig.json"), "layers of a root filesystem"),
    Row("build cache as index", x(d(TAR), d(V + "buildkit.cacheconfig.v0"), artifactType="a/b"), "build-cache",
        V + "buildkit.cacheconfig.v0", "manifests[1].mediaType", ("layer-0.tar.gz", "cacheconfig.json"), "artifactType comes first"),
    Row("nydus cache", m(IMAGE, TAR, annotations={"containerd.io/snapshot/nydus-cache": "v1"}), "build-cache", IMAGE,
        "annotations[containerd.io/snapshot/nydus-cache]", ("layer-0.tar.gz",), "image config and tar layers"),
    Row("puzzlefs", m(EMPTY, V + "puzzlefs.image.filedata.v1"), "puzzlefs-image", V + "puzzlefs.image.filedata.v1", L0, ("data-000",)),
    Row("sif with the typo", m(d(IMAGE, 2), d("appliciation/vnd.sylabs.sif.layer.tar", note="t=a.sif")), "sif-image",
        "appliciation/vnd.sylabs.sif.layer.tar", L0, ("a.sif",)),
    Row("tart", m(IMAGE, V + "cirruslabs.tart.config.v1", V + "cirruslabs.tart.disk.v2"), "tart-vm", V + "cirruslabs.tart.config.v1",
        L0, ("config.json", "disk.img.000.lz4"), "the config says image"),
    # Packages
    Row("helm chart, provenance first", m(HELM, PROV, CHART_TAR), "helm-chart", HELM, C,
        ("web-1.2.0.tgz.prov", "web-1.2.0.tgz", "Chart.json"), "the first layer is the chart", config=CHART),
    Row("helm chart with an attestation layer", m(HELM, V + "in-toto+json", CHART_TAR), "helm-chart", HELM, C,
        ("attestation.intoto.json", "web-1.2.0.tgz", "Chart.json"), "an in-toto layer makes an attestation", config=CHART),
    Row("helm plugin", m(EMPTY, d(TAR, note="t=p-1.tgz"), artifactType=V + "helm.plugin.v1+json"), "helm-plugin",
        V + "helm.plugin.v1+json", T, ("p-1.tgz",)),
    Row("tekton", m(IMAGE, d(TAR, note="dev.tekton.image.kind=task;dev.tekton.image.name=lint")), "tekton-bundle", IMAGE,
        "layers[0].annotations[dev.tekton.image.kind]", ("task/lint",), "image config and tar layers"),
    Row("crossplane", m(IMAGE, TAR, d(TAR, note="io.crossplane.xpkg=base")), "crossplane-package", IMAGE,
        "layers[1].annotations[io.crossplane.xpkg]", ("layer-0.tar.gz", "package"), "image config and tar layers"),
    Row("conftest", m(UNKNOWN, d(OPA + "policy.layer.v1+rego", note="t=policy/a.rego")), "conftest-bundle", OPA + "policy.layer.v1+rego",
        L0, ("policy/a.rego",)),
    Row("conftest with OPA's config", m(d(OPA + "config.v1+json", 2), OPA + "policy.layer.v1+rego"), "conftest-bundle",
        OPA + "config.v1+json", C, ("policy.rego",), "the config's type names the kind"),
    Row("opa bundle", m(d(OPA + "config.v1+json", 2), OPA + "layer.v1.tar+gzip"), "opa-bundle", OPA + "config.v1+json", C,
        ("bundle.tar.gz",)),
    Row("kyverno", m(V + "cncf.kyverno.config.v1+json", V + "cncf.kyverno.policy.layer.v1+yaml",
        d(V + "cncf.kyverno.policy.layer.v1+yaml", note="io.kyverno.image.name=labels")), "kyverno-policy",
        V + "cncf.kyverno.config.v1+json", C, ("policy.yaml", "labels.yaml")),
    Row("gatekeeper policies", m(EMPTY, d(TAR, note="t=constraints;io.deis.oras.content.unpack=true"),
        artifactType=V + "unknown.artifact.v1"),
        "files", V + "unknown.artifact.v1", "", ("constraints",), "an artifactType makes an artifact"),
    Row("flux", m(V + "cncf.flux.config.v1+json", V + "cncf.flux.content.v1.tar+gzip"), "flux-artifact",
        V + "cncf.flux.config.v1+json", C, ("manifests",)),
    Row("timoni", m(V + "timoni.config.v1+json", d(V + "timoni.content.v1.tar+gzip", note="sh.timoni.content.type=module/vendor"),
        d(V + "timoni.content.v1.tar+gzip", note="sh.timoni.content.type=module")), "timoni-module", V + "timoni.config.v1+json", C,
        ("vendor", "module")),
    Row("cnab", x(child(), annotations={"org.opencontainers.artifactType": V + "cnab.manifest.v1"}), "cnab-bundle",
        V + "cnab.manifest.v1", "annotations[org.opencontainers.artifactType]", (), "an index is for platforms"),
    Row("cnab config", m(V + "cnab.config.v1+json"), "cnab-config", V + "cnab.config.v1+json", C, ("bundle.json",), "no layers, no files"),
    Row("zarf", m(V + "zarf.config.v1+json", d(V + "zarf.layer.v1.blob", note="t=images/index.json")), "zarf-package",
        V + "zarf.config.v1+json", C, ("images/index.json",)),
    Row("artifact hub, zero-byte config", m(d(V + "cncf.artifacthub.config.v1+yaml", 0),
        V + "cncf.artifacthub.repository-metadata.layer.v1.yaml"), "artifacthub-metadata", V + "cncf.artifacthub.config.v1+yaml", C,
        ("artifacthub-repo.yml",)),
    Row("homebrew index", x(child("darwin/arm64"), annotations={PACKAGE: "homebrew_bottle"}), "homebrew-bottle-index",
        "homebrew_bottle", f"annotations[{PACKAGE}]", (), "platforms make an image"),
    Row("homebrew bottle", m(IMAGE, d(TAR, note="t=a--1.bottle.tar.gz"), annotations={PACKAGE: "homebrew_bottle"}), "homebrew-bottle",
        "homebrew_bottle", f"annotations[{PACKAGE}]", ("a--1.bottle.tar.gz",), "image config and tar layers"),
    Row("conda", m(None, V + "conda.package.v2", V + "conda.info.v1.tar+gzip"), "conda-package", V + "conda.package.v2", L0,
        ("package.conda", "info.tar.gz")),
    Row("cue", m(V + "cue.module.v1+json", A + "zip", V + "cue.modulefile.v1"), "cue-module", V + "cue.module.v1+json", C,
        ("module.zip", "cue.mod/module.cue")),
    Row("bicep module", m(EMPTY, V + "ms.bicep.module.layer.v1+json", artifactType=V + "ms.bicep.module.artifact"), "bicep-module",
        V + "ms.bicep.module.artifact", T, ("main.json",)),
    Row("bicep extension", m(EMPTY, V + "ms.bicep.provider.layer.v1.tar+gzip", artifactType=V + "ms.bicep.provider.artifact"),
        "bicep-extension", V + "ms.bicep.provider.artifact", T, ("types.tgz",)),
    Row("opentofu provider", x(child("linux/amd64", V + "opentofu.provider-target"), artifactType=V + "opentofu.provider"),
        "opentofu-provider", V + "opentofu.provider", T, (), "platforms make an image"),
    Row("opentofu checksums", m("text/plain+SHA256SUMS", artifactType=V + "opentofu.provider"), "opentofu-provider",
        V + "opentofu.provider", T, ("SHA256SUMS",), "the payload is in layers"),
    Row("opentofu target", m(EMPTY, "archive/zip", artifactType=V + "opentofu.provider-target"), "opentofu-provider-target",
        V + "opentofu.provider-target", T, ("provider.zip",)),
    Row("opentofu module", m(EMPTY, "archive/zip", artifactType=V + "opentofu.modulepkg"), "opentofu-module",
        V + "opentofu.modulepkg", T, ("module.zip",)),
    Row("github action", m(EMPTY, V + "github.actions.package.layer.v1.zip", artifactType=V + "github.actions.package.v1+json"),
        "github-action", V + "github.actions.package.v1+json", T, ("action.zip",)),
    Row("compose", m(EMPTY, V + "docker.compose.file+yaml", d(V + "docker.compose.envfile", note="com.docker.compose.envfile=a.env"),
        artifactType=V + "docker.compose.project"), "compose-project", V + "docker.compose.project", T, ("compose.yaml", "a.env")),
    Row("compose, old", m(d(IMAGE, 2), V + "docker.compose.file+yaml"), "compose-project", V + "docker.compose.file+yaml", L0,
        ("compose.yaml",), "the config says image"),
    Row("devcontainer feature", m(d(DEV, 0), d(DEV_TAR, note="t=devcontainer-feature-go.tgz")), "devcontainer-feature", DEV, C,
        ("devcontainer-feature-go.tgz",)),
    Row("devcontainer template", m(d(DEV, 2), d(DEV_TAR, note="t=devcontainer-template-go.tgz")), "devcontainer-template", DEV, C,
        ("devcontainer-template-go.tgz",), "the config's type names the kind"),
    Row("devcontainer template by package", m(d(DEV, 2), DEV_TAR, annotations={PACKAGE: "devcontainer_template"}),
        "devcontainer-template", DEV, f"annotations[{PACKAGE}]", ("layer-0.tar",)),
    Row("devcontainer collection", m(d(DEV, 2), V + "devcontainers.collection.layer.v1+json"), "devcontainer-collection", DEV, C,
        ("devcontainer-collection.json",), "the config's type names the kind"),
    Row("ocm", m(V + "ocm.software.component.config.v1+json", V + "ocm.software.component-descriptor.v2+yaml+tar"), "ocm-component",
        V + "ocm.software.component.config.v1+json", C, ("component-descriptor",)),
    # Programs, models, data
    Row("wasm to oci", m(V + "wasm.config.v1+json", V + "wasm.content.layer.v1+wasm"), "wasm-module", V + "wasm.config.v1+json", C,
        ("module.wasm",)),
    Row("wasm of the CNCF", m(V + "wasm.config.v0+json", A + "wasm"), "wasm-component", V + "wasm.config.v0+json", C,
        ("component.wasm",), "v0 is older than v1"),
    Row("wasm filter", m(UNKNOWN, V + "module.wasm.config.v1+json", MOD), "wasm-module", MOD, "layers[1].mediaType",
        ("runtime-config.json", "module.wasm")),
    Row("wasm compat image", m(IMAGE, TAR, annotations={"module.wasm.image/variant": "compat"}), "wasm-module", IMAGE,
        "annotations[module.wasm.image/variant]", ("layer-0.tar.gz",), "image config and tar layers"),
    Row("wasmcloud provider", m(V + "wasmcloud.provider.archive.config", V + "wasmcloud.provider.archive.layer.v1+par"),
        "wasmcloud-provider", V + "wasmcloud.provider.archive.config", C, ("provider.par",)),
    Row("wasmcloud component, old", m(V + "wasmcloud.actor.archive.config", MOD), "wasm-module", V + "wasmcloud.actor.archive.config", C,
        ("module.wasm",)),
    Row("spin", m(V + "fermyon.spin.application.v1+config", SPIN_LAYER), "spin-app", V + "fermyon.spin.application.v1+config", C,
        ("hi.wasm", "spin.lock.json"), config=SPIN % str(SPIN_LAYER["digest"]).encode()),
    Row("ollama", m(DOCKER, OLLAMA + "model", OLLAMA + "license", OLLAMA + "license", OLLAMA + "params"), "ollama-model",
        OLLAMA + "model", L0, ("model.gguf", "LICENSE", "LICENSE", "params.json"), "the config says image"),
    Row("modelpack", m(MODEL + "config.v1+json", d(MODEL + "weight.v1.raw", note="org.cncf.model.filepath=w/a.safetensors"),
        MODEL + "doc.v1.tar", artifactType=MODEL + "manifest.v1+json"), "modelpack-model", MODEL + "manifest.v1+json", T,
        ("w/a.safetensors", "doc.tar"), "names are titles"),
    Row("kitops", m(V + "kitops.modelkit.config.v1+json", V + "kitops.modelkit.model.v1.tar+gzip"), "kitops-modelkit",
        V + "kitops.modelkit.config.v1+json", C, ("model", "Kitfile.json")),
    Row("docker model", m(AI + "model.config.v0.1+json", AI + "gguf.v3", AI + "gguf.v3.mmproj", AI + "license"), "docker-model",
        AI + "model.config.v0.1+json", C, ("model.gguf", "projector.gguf", "LICENSE")),
    Row("falco rules", m(FALCO + "rulesfile.config.v1+json", FALCO + "rulesfile.layer.v1+tar.gz"), "falco-rulesfile",
        FALCO + "rulesfile.config.v1+json", C, ("rules.tar.gz",)),
    Row("falco plugin", m(FALCO + "plugin.config.v1+json", FALCO + "plugin.layer.v1+tar.gz"), "falco-plugin",
        FALCO + "plugin.config.v1+json", C, ("plugin.tar.gz",)),
    Row("falco asset", m(FALCO + "asset.config.v1+json", FALCO + "asset.layer.v1+tar.gz"), "falco-asset",
        FALCO + "asset.config.v1+json", C, ("asset.tar.gz",)),
    Row("trivy db", m(EMPTY, V + "aquasec.trivy.db.layer.v1.tar+gzip", artifactType=V + "aquasec.trivy.config.v1+json"), "trivy-db",
        V + "aquasec.trivy.config.v1+json", T, ("db.tar.gz",), "a type with .config. is the config's"),
    Row("gadget", m(V + "gadget.config.v1+yaml", V + "gadget.ebpf.program.v1+binary"), "gadget", V + "gadget.config.v1+yaml", C,
        ("program.o", "config.yaml"), "configs are JSON"),
    # What the table does not know
    Row("unknown artifactType over an image config", m(IMAGE, TAR, artifactType="a/x-b"), "artifact", "a/x-b", T, ("layer-0.tar.gz",),
        "the config says image"),
    Row("artifactType in a Docker manifest", m(EMPTY, DTAR, mediaType=mediatype.DOCKER_MANIFEST, artifactType="a/b"), "artifact", "a/b", T,
        ("layer-0.tar.gz",), "a Docker manifest is an image"),
    Row("unknown config type", m(d("test/sig", 2), subject=SUBJECT), "artifact", "test/sig", C),
    Row("only the config", m(A + "x-auth+json", EMPTY, artifactType=A + "x-auth+json"), "artifact", A + "x-auth+json", T,
        ("config.json",), "the payload is in layers"),
    Row("unknown layer type", m(EMPTY, V + "acme.thing.v1"), "artifact", V + "acme.thing.v1", L0, ("thing",)),
    Row("two unknown layer types", m(EMPTY, V + "acme.a", V + "acme.b"), "artifact", V + "acme.a", L0, ("a", "b")),
    Row("an unknown layer type among files", m(EMPTY, V + "acme.a", V + "acme.b", "text/plain"), "files", "", "", ("a", "b", "layer-2.txt")),
    Row("devcontainer of no kind", m(d(DEV, 2), DEV_TAR), "artifact", DEV, C, ("layer-0.tar",)),
    Row("cache of Grype's providers", m(EMPTY, d(V + "oci.image.layer.v1.tar", note="t=.cache/vunnel/nvd/grype-db-cache.tar.gz"),
        artifactType=V + "unknown.artifact.v1"), "files", V + "unknown.artifact.v1", "", (".cache/vunnel/nvd/grype-db-cache.tar.gz",),
        "a database has a type of its own"),
    Row("plain text", m(EMPTY, d("text/plain", note="t=a/b.txt")), "files", "text/plain", "", ("a/b.txt",)),
    Row("oras before 1.0", m(d(UNKNOWN, 2), d(mediatype.OCI_LAYER, note="t=x")), "files", UNKNOWN, "", ("x",), "tar layers make an image"),
    Row("an image config of two bytes", m(d(IMAGE, 2), d(TAR, note="t=bundle.tar.gz")), "files", IMAGE, "", ("bundle.tar.gz",),
        "the config says image"),
    Row("no config and no layers", m(None), "files", "", "", ()),
    Row("index of artifacts", x(child("", A + "spdx+json"), artifactType="a/c"), "artifact-index", "a/c", T, (),
        "an index is for platforms"),
]  # fmt: skip


ALL_ROWS = (*ROWS, *ROWS_2026, *ROWS_PLATFORMS)


@pytest.mark.parametrize("row", ALL_ROWS, ids=[row.name for row in ALL_ROWS])
def test_a_manifest_is_classified_and_its_files_are_named(row: Row) -> None:
    manifest = parse(row.manifest)
    result = classify(manifest, tag=row.tag)
    assert (result.kind, result.artifact_type, result.decided_by) == (
        row.kind,
        row.artifact_type,
        row.decided_by,
    )
    assert result.kind in KINDS_BY_NAME
    assert set(row.flavours) <= set(result.flavours)
    assert bool(result.rule)
    assert bool(result.value) == bool(result.decided_by)
    assert tuple(file.path for file in payload_files(manifest, result, row.config)) == row.files


# Fields of the specification, and words for the rest. Not the names of rules.
DECIDED = re.compile(
    r"Decided by: +(?:(?:artifactType|mediaType|config\.mediaType|layers\[\d+\]\.(?:mediaType|"
    r"annotations\[.+?\])|annotations\[.+?\]|manifests\[\d*\]\.\w+|tag)(?::|$)"
    r"|no field declares a type$|the structure of the manifest(?::|$))",
    re.MULTILINE,
)


@pytest.mark.parametrize("row", ALL_ROWS, ids=[row.name for row in ALL_ROWS])
def test_a_summary_has_no_names_of_rules(row: Row) -> None:
    manifest = parse(row.manifest)
    page = summarise(manifest, classify(manifest, tag=row.tag), row.config)
    assert DECIDED.search(page), page


@pytest.mark.parametrize("body", [{}, {"schemaVersion": 2}, {"layers": [], "manifests": []}])
def test_a_summary_of_an_unknown_form_has_plain_words(body: dict[str, object]) -> None:
    manifest = parse(body)
    page = summarise(manifest, classify(manifest), None)
    assert "Decided by:  the structure of the manifest\n" in re.sub(" {2,}", "  ", page)


def test_every_kind_of_the_table_has_a_row() -> None:
    assert {kind.name for kind in KINDS} == {row.kind for row in ALL_ROWS}
    assert len(KINDS_BY_NAME) == len(KINDS)


def test_every_kind_that_has_files_has_a_row_that_names_them() -> None:
    without = {
        "image-index",
        "cnab-bundle",
        "homebrew-bottle-index",
        "referrers-index",
        "artifact-index",
        "unknown",
    }
    assert {row.kind for row in ALL_ROWS if row.files} == {kind.name for kind in KINDS} - without


def test_enough_rows_contradict_a_simple_heuristic() -> None:
    assert len(ROWS) >= 60
    assert sum(bool(row.trap) for row in ROWS) >= 15
