"""Kinds of artifact that are packages: charts, bundles, modules, features.

A part of the table in `kinds_table.py`.

Rules that hold here: data only, no code; the strings are those that the publishers' tools write;
where two rows share a type, the one that demands more stands first.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import Kind

_HELM = "application/vnd.cncf.helm."
_OPA = "application/vnd.cncf.openpolicyagent."

PACKAGES = (
    Kind(
        "helm-chart",
        "Helm chart",
        types=(_HELM + "config.v1+json",),
        layer_types=(_HELM + "chart.content.v1.tar+gzip",),
        reads_config=True,
        names=(("application/vnd.in-toto*", "attestation.intoto.json"),),
        config_name="Chart.json",
    ),
    Kind("helm-plugin", "Helm plugin", types=("application/vnd.helm.plugin.v1+json",)),
    Kind(
        "tekton-bundle",
        "Tekton bundle",
        layer_annotations=("dev.tekton.image.kind",),
    ),
    Kind(
        "crossplane-package",
        "Crossplane package",
        layer_annotations=("io.crossplane.xpkg=base",),
        names=(("io.crossplane.xpkg=base", "package/"),),
    ),
    Kind(
        "conftest-bundle",
        "Conftest policies",
        types=(_OPA + "config.v1+json",),
        needs_layer=(_OPA + "policy.layer.*", _OPA + "data.layer.*"),
        layer_types=(_OPA + "policy.layer.*", _OPA + "data.layer.*"),
        names=((_OPA + "policy.layer.*", "policy.rego"), (_OPA + "data.layer.*", "data.json")),
    ),
    Kind(
        "opa-bundle",
        "Open Policy Agent bundle",
        types=(_OPA + "config.v1+json", _OPA + "manifest.layer.v1+json"),
        layer_types=(_OPA + "*",),
        names=((_OPA + "layer.v1.tar+gzip", "bundle.tar.gz"),),
    ),
    Kind(
        "kyverno-policy",
        "Kyverno policies",
        types=("application/vnd.cncf.kyverno.*",),
        layer_types=("application/vnd.cncf.kyverno.*",),
        names=(("application/vnd.cncf.kyverno.policy.layer.*", "policy.yaml"),),
    ),
    Kind(
        "flux-artifact",
        "Manifests for Flux",
        types=("application/vnd.cncf.flux.config.v1+json",),
        layer_types=("application/vnd.cncf.flux.content.v1.tar+gzip",),
        names=(("application/vnd.cncf.flux.content.v1.tar+gzip", "manifests/"),),
    ),
    Kind(
        "timoni-module",
        "Timoni module",
        types=("application/vnd.timoni.config.v1+json",),
        layer_types=("application/vnd.timoni.content.*",),
        names=(
            ("sh.timoni.content.type=module/vendor", "vendor/"),
            ("sh.timoni.content.type=module", "module/"),
        ),
    ),
    Kind(
        "cnab-bundle",
        "Cloud native application bundle",
        index=True,
        annotations=("org.opencontainers.artifactType=application/vnd.cnab.manifest.v1",),
        index_types=("application/vnd.cnab.manifest.v1", "application/vnd.cnab.manifest.v1+json"),
    ),
    Kind(
        "cnab-config",
        "Description of a cloud native application bundle",
        types=("application/vnd.cnab.config.v1+json",),
        config_name="bundle.json",
    ),
    Kind(
        "zarf-package",
        "Zarf package",
        types=("application/vnd.zarf.config.v1+json",),
        layer_types=("application/vnd.zarf.layer.*",),
    ),
    Kind(
        "artifacthub-metadata",
        "Artifact Hub's metadata of a repository",
        types=("application/vnd.cncf.artifacthub.config.v1+yaml",),
        layer_types=("application/vnd.cncf.artifacthub.repository-metadata.layer.*",),
        names=(
            (
                "application/vnd.cncf.artifacthub.repository-metadata.layer.*",
                "artifacthub-repo.yml",
            ),
        ),
    ),
    Kind("homebrew-bottle-index", "Homebrew bottles", index=True, package_type="homebrew_bottle"),
    Kind("homebrew-bottle", "Homebrew bottle for one platform", package_type="homebrew_bottle"),
    Kind(
        "conda-package",
        "Conda package",
        types=("application/vnd.conda.*",),
        layer_types=("application/vnd.conda.*",),
        names=(
            ("application/vnd.conda.info.v1.tar+gzip", "info.tar.gz"),
            ("application/vnd.conda.info.index.v1+json", "index.json"),
            ("application/vnd.conda.package.v2", "package.conda"),
            ("application/vnd.conda.package.v1", "package.tar.bz2"),
        ),
    ),
    Kind(
        "cue-module",
        "CUE module",
        types=("application/vnd.cue.module.v1+json", "application/vnd.cue.module.*"),
        names=(
            ("application/zip", "module.zip"),
            ("application/vnd.cue.modulefile.v1", "cue.mod/module.cue"),
        ),
    ),
    Kind(
        "bicep-extension",
        "Bicep extension",
        types=("application/vnd.ms.bicep.provider.*", "application/vnd.ms.bicep.extension.*"),
        layer_types=("application/vnd.ms.bicep.provider.layer.*",),
        names=(("application/vnd.ms.bicep.provider.layer.v1.tar+gzip", "types.tgz"),),
    ),
    Kind(
        "bicep-module",
        "Bicep module",
        types=("application/vnd.ms.bicep.module.*",),
        layer_types=("application/vnd.ms.bicep.module.*",),
        names=(
            ("application/vnd.ms.bicep.module.layer.v1+json", "main.json"),
            ("application/vnd.ms.bicep.module.source.v1.tar+gzip", "source.tgz"),
        ),
    ),
    Kind(
        "opentofu-provider",
        "OpenTofu provider, all platforms or its checksums",
        types=("application/vnd.opentofu.provider",),
        index_types=("application/vnd.opentofu.provider",),
        config_name="SHA256SUMS",
    ),
    Kind(
        "opentofu-provider-target",
        "OpenTofu provider for one platform",
        types=("application/vnd.opentofu.provider-target",),
        names=(("archive/zip", "provider.zip"),),
    ),
    Kind(
        "opentofu-module",
        "OpenTofu module",
        types=("application/vnd.opentofu.modulepkg",),
        names=(("archive/zip", "module.zip"),),
    ),
    Kind(
        "github-action",
        "GitHub Action package",
        types=("application/vnd.github.actions.package.*",),
        names=(
            ("application/vnd.github.actions.package.layer.v1.tar+gzip", "action.tar.gz"),
            ("application/vnd.github.actions.package.layer.v1.zip", "action.zip"),
        ),
    ),
    Kind(
        "compose-project",
        "Docker Compose project",
        types=("application/vnd.docker.compose.project", "application/vnd.docker.compose.config.*"),
        layer_types=("application/vnd.docker.compose.file+yaml",),
        names=(
            ("application/vnd.docker.compose.file+yaml", "compose.yaml"),
            ("application/vnd.docker.compose.envfile", ".env"),
        ),
    ),
    Kind(
        "devcontainer-collection",
        "Index of a collection of dev container features or templates",
        types=("application/vnd.devcontainers",),
        needs_layer=("application/vnd.devcontainers.collection.*",),
        package_type="devcontainer_collection",
        layer_types=("application/vnd.devcontainers.collection.*",),
        names=(("application/vnd.devcontainers.collection.*", "devcontainer-collection.json"),),
    ),
    Kind(
        "devcontainer-template",
        "Dev container template",
        types=("application/vnd.devcontainers",),
        needs_title="devcontainer-template-",
        package_type="devcontainer_template",
    ),
    Kind(
        "devcontainer-feature",
        "Dev container feature",
        types=("application/vnd.devcontainers",),
        needs_title="devcontainer-feature-",
        package_type="devcontainer_feature",
        texts=(("dev.containers.metadata", "devcontainer-feature.json"),),
    ),
    Kind(
        "ocm-component",
        "Open Component Model component version",
        types=("application/vnd.ocm.software.component.config.*",),
        layer_types=("application/vnd.ocm.software.component-descriptor.*",),
        names=(
            (
                "application/vnd.ocm.software.component-descriptor.v2+yaml+tar",
                "component-descriptor/",
            ),
            (
                "application/vnd.ocm.software.component-descriptor.v2+json",
                "component-descriptor.json",
            ),
            ("application/vnd.ocm.software.component-descriptor.*", "component-descriptor.yaml"),
        ),
    ),
)
