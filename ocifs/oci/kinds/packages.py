"""Kinds of artifact that are packages: charts, bundles, modules, features.

Part of the table in table.py; its rules hold here.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind

_HELM = "application/vnd.cncf.helm."
_CNUDIE = "application/vnd.gardener.cloud.cnudie."
_OPA = "application/vnd.cncf.openpolicyagent."

PACKAGES = (
    ArtifactKind(
        "helm-chart",
        "Helm chart",
        types=(_HELM + "config.v1+json",),
        layer_types=(_HELM + "chart.content.v1.tar+gzip",),
        reads_config=True,
        file_names=(("application/vnd.in-toto*", "attestation.intoto.json"),),
        config_file="Chart.json",
    ),
    ArtifactKind("helm-plugin", "Helm plugin", types=("application/vnd.helm.plugin.v1+json",)),
    ArtifactKind(
        "tekton-bundle",
        "Tekton bundle",
        layer_annotations=("dev.tekton.image.kind",),
    ),
    ArtifactKind(
        "crossplane-package",
        "Crossplane package",
        layer_annotations=("io.crossplane.xpkg=base",),
        file_names=(("io.crossplane.xpkg=base", "package/"),),
    ),
    ArtifactKind(
        # The row of OPA bundles also matches these types and layers, and must follow.
        "conftest-bundle",
        "Conftest policies",
        types=(_OPA + "config.v1+json",),
        required_layer_types=(_OPA + "policy.layer.*", _OPA + "data.layer.*"),
        layer_types=(_OPA + "policy.layer.*", _OPA + "data.layer.*"),
        file_names=((_OPA + "policy.layer.*", "policy.rego"), (_OPA + "data.layer.*", "data.json")),
    ),
    ArtifactKind(
        "opa-bundle",
        "Open Policy Agent bundle",
        types=(_OPA + "config.v1+json", _OPA + "manifest.layer.v1+json"),
        # The policy CLI of Topaz and Aserto writes the annotation, and no type of its own.
        annotations=("org.openpolicyregistry.type=policy",),
        layer_types=(_OPA + "*",),
        file_names=(
            (_OPA + "layer.v1.tar+gzip", "bundle.tar.gz"),
            ("org.openpolicyregistry.type=policy", "bundle.tar.gz"),
        ),
    ),
    ArtifactKind(
        # Both profiles are those of KEP-6061, for container runtimes.
        "seccomp-profile",
        "Seccomp profile for containers",
        types=("application/vnd.cncf.seccomp-profile.*",),
        file_names=(("application/json", "seccomp.json"), ("*json", "seccomp.json")),
    ),
    ArtifactKind(
        "apparmor-profile",
        "AppArmor profile for containers",
        types=("application/vnd.cncf.apparmor-profile.*",),
        file_names=(("text/plain", "profile"), ("application/octet-stream", "profile")),
    ),
    ArtifactKind(
        "kyverno-policy",
        "Kyverno policies",
        types=("application/vnd.cncf.kyverno.*",),
        layer_types=("application/vnd.cncf.kyverno.*",),
        file_names=(
            ("application/vnd.cncf.kyverno.policy.layer.*", "{io.kyverno.image.name}.yaml"),
            ("application/vnd.cncf.kyverno.policy.layer.*", "policy.yaml"),
        ),
    ),
    ArtifactKind(
        "flux-artifact",
        "Manifests for Flux",
        types=("application/vnd.cncf.flux.config.v1+json",),
        layer_types=("application/vnd.cncf.flux.content.v1.tar+gzip",),
        file_names=(("application/vnd.cncf.flux.content.v1.tar+gzip", "manifests/"),),
    ),
    ArtifactKind(
        "fleet-bundle",
        "Bundle for Rancher Fleet",
        types=("application/fleet.manifest",),
        layer_types=("application/fleet.file",),
        file_names=(("application/fleet.file", "bundle.json.gz"),),
    ),
    ArtifactKind(
        # kpm repeats the type of the layer as the type of the artifact.
        "kcl-module",
        "KCL module",
        annotations=("org.kcllang.package.name", "org.kclpkg.package.name"),
        file_names=(("application/vnd.oci.image.layer.*", "module.tar"),),
    ),
    ArtifactKind(
        "timoni-module",
        "Timoni module",
        types=("application/vnd.timoni.config.v1+json",),
        layer_types=("application/vnd.timoni.content.*",),
        file_names=(
            ("sh.timoni.content.type=module/vendor", "vendor/"),
            ("sh.timoni.content.type=module", "module/"),
        ),
    ),
    ArtifactKind(
        "cnab-bundle",
        "Cloud native application bundle",
        index=True,
        annotations=("org.opencontainers.artifactType=application/vnd.cnab.manifest.v1",),
        index_types=("application/vnd.cnab.manifest.v1", "application/vnd.cnab.manifest.v1+json"),
    ),
    ArtifactKind(
        "cnab-config",
        "Description of a cloud native application bundle",
        types=("application/vnd.cnab.config.v1+json", "application/vnd.cnab.bundle.config.*"),
        config_file="bundle.json",
    ),
    ArtifactKind(
        # The parts of a bundle are Zarf packages, and have the types of their layers.
        "uds-bundle",
        "Bundle of Zarf packages (UDS)",
        types=("application/vnd.zarf.config.v1+json",),
        required_title="uds-bundle.yaml",
        layer_types=("application/vnd.zarf.layer.*",),
    ),
    ArtifactKind(
        "zarf-package",
        "Zarf package",
        types=("application/vnd.zarf.config.v1+json",),
        layer_types=("application/vnd.zarf.layer.*",),
    ),
    ArtifactKind(
        "artifacthub-metadata",
        "Artifact Hub repository metadata",
        types=("application/vnd.cncf.artifacthub.config.v1+yaml",),
        layer_types=("application/vnd.cncf.artifacthub.repository-metadata.layer.*",),
        file_names=(
            (
                "application/vnd.cncf.artifacthub.repository-metadata.layer.*",
                "artifacthub-repo.yml",
            ),
        ),
    ),
    ArtifactKind(
        "homebrew-bottle-index", "Homebrew bottles", index=True, package_type="homebrew_bottle"
    ),
    ArtifactKind(
        "homebrew-bottle", "Homebrew bottle for one platform", package_type="homebrew_bottle"
    ),
    ArtifactKind(
        "conda-package",
        "Conda package",
        types=("application/vnd.conda.*",),
        layer_types=("application/vnd.conda.*",),
        file_names=(
            ("application/vnd.conda.info.v1.tar+gzip", "info.tar.gz"),
            ("application/vnd.conda.info.index.v1+json", "index.json"),
            ("application/vnd.conda.package.v2", "package.conda"),
            ("application/vnd.conda.package.v1", "package.tar.bz2"),
            ("application/vnd.conda.repodata.*+json", "repodata.json"),
            *(
                (f"application/vnd.conda.repodata.*+json+{ending}", f"repodata.json.{extension}")
                for ending, extension in (("gzip", "gz"), ("bzip2", "bz2"), ("zst*", "zst"))
            ),
        ),
    ),
    ArtifactKind(
        "nix-cache",
        "Binary cache of Nix",
        types=("application/vnd.nix.cache.*",),
        layer_types=("application/vnd.nix.cache.*",),
        file_names=(("application/vnd.nix.cache.index.*", "index.json"),),
    ),
    ArtifactKind(
        "terraform-module",
        "Terraform module",
        types=("application/vnd.terraform.module.*",),
        layer_types=("application/vnd.terraform.module.*",),
        file_names=(
            ("application/vnd.terraform.module.*+gzip", "module.tar.gz"),
            ("application/vnd.terraform.module.*", "module.tar"),
        ),
    ),
    ArtifactKind(
        "terraform-state",
        "State of Terraform",
        types=("application/vnd.terraform.state.*",),
        layer_types=("application/vnd.terraform.statefile.*",),
        file_names=(
            ("application/vnd.terraform.statefile.*+gzip", "terraform.tfstate.gz"),
            ("application/vnd.terraform.statefile.*", "terraform.tfstate"),
        ),
    ),
    ArtifactKind(
        "maven-artifact",
        "Maven artifact",
        types=("application/vnd.maven.artifact.*", "application/vnd.maven+*"),
        file_names=(
            ("application/vnd.maven.pom+xml", "pom.xml"),
            ("application/java-archive", "artifact{shard}.jar"),
        ),
    ),
    ArtifactKind(
        "npm-package",
        "npm package",
        types=("application/vnd.npm.package.*", "application/vnd.gitlab.packages.npm.*"),
        layer_types=("application/vnd.npm.package.*",),
        file_names=(("application/vnd.npm.package.*", "package.tgz"),),
    ),
    ArtifactKind(
        "python-package",
        "Python package for pip (PyOCI)",
        types=("application/pyoci.package.*",),
        index_types=("application/pyoci.package.*",),
        file_names=(("application/pyoci.package.*", "package.tar.gz"),),
    ),
    ArtifactKind(
        "cue-module",
        "CUE module",
        types=("application/vnd.cue.module.v1+json", "application/vnd.cue.module.*"),
        file_names=(
            ("application/zip", "module.zip"),
            ("application/vnd.cue.modulefile.v1", "cue.mod/module.cue"),
        ),
    ),
    ArtifactKind(
        "bicep-extension",
        "Bicep extension",
        types=("application/vnd.ms.bicep.provider.*", "application/vnd.ms.bicep.extension.*"),
        layer_types=("application/vnd.ms.bicep.provider.layer.*",),
        file_names=(("application/vnd.ms.bicep.provider.layer.v1.tar+gzip", "types.tgz"),),
    ),
    ArtifactKind(
        "bicep-module",
        "Bicep module",
        types=("application/vnd.ms.bicep.module.*",),
        layer_types=("application/vnd.ms.bicep.module.*",),
        file_names=(
            ("application/vnd.ms.bicep.module.layer.v1+json", "main.json"),
            ("application/vnd.ms.bicep.module.source.v1.tar+gzip", "source.tgz"),
        ),
    ),
    ArtifactKind(
        "opentofu-provider",
        "OpenTofu provider for all platforms, or its checksums",
        types=("application/vnd.opentofu.provider",),
        index_types=("application/vnd.opentofu.provider",),
        config_file="SHA256SUMS",
    ),
    ArtifactKind(
        "opentofu-provider-target",
        "OpenTofu provider for one platform",
        types=("application/vnd.opentofu.provider-target",),
        file_names=(("archive/zip", "provider.zip"),),
    ),
    ArtifactKind(
        "opentofu-module",
        "OpenTofu module",
        types=("application/vnd.opentofu.modulepkg",),
        file_names=(("archive/zip", "module.zip"),),
    ),
    ArtifactKind(
        "github-action",
        "GitHub Action package",
        types=("application/vnd.github.actions.package.*",),
        file_names=(
            ("application/vnd.github.actions.package.layer.v1.tar+gzip", "action.tar.gz"),
            ("application/vnd.github.actions.package.layer.v1.zip", "action.zip"),
        ),
    ),
    ArtifactKind(
        "compose-project",
        "Docker Compose project",
        types=("application/vnd.docker.compose.project", "application/vnd.docker.compose.config.*"),
        layer_types=("application/vnd.docker.compose.file+yaml",),
        file_names=(
            ("application/vnd.docker.compose.file+yaml", "compose.yaml"),
            ("application/vnd.docker.compose.envfile", ".env"),
        ),
    ),
    ArtifactKind(
        # The next three kinds share a type: layers and titles distinguish them.
        "devcontainer-collection",
        "Index of a collection of dev container features or templates",
        types=("application/vnd.devcontainers",),
        required_layer_types=("application/vnd.devcontainers.collection.*",),
        package_type="devcontainer_collection",
        layer_types=("application/vnd.devcontainers.collection.*",),
        file_names=(
            ("application/vnd.devcontainers.collection.*", "devcontainer-collection.json"),
        ),
    ),
    ArtifactKind(
        "devcontainer-template",
        "Dev container template",
        types=("application/vnd.devcontainers",),
        required_title="devcontainer-template-",
        package_type="devcontainer_template",
    ),
    ArtifactKind(
        "devcontainer-feature",
        "Dev container feature",
        types=("application/vnd.devcontainers",),
        required_title="devcontainer-feature-",
        package_type="devcontainer_feature",
        annotation_files=(("dev.containers.metadata", "devcontainer-feature.json"),),
    ),
    ArtifactKind(
        "ocm-component",
        "Open Component Model component version",
        # The older types are those of Gardener, where the model began.
        # The libraries of 2025 write the type of the descriptor.
        types=(
            "application/vnd.ocm.software.component.config.*",
            "application/vnd.ocm.software.component-descriptor*",
            _CNUDIE + "component.config.*",
        ),
        index_types=("application/vnd.ocm.software.component-descriptor*",),
        layer_types=(
            "application/vnd.ocm.software.component-descriptor.*",
            _CNUDIE + "component-descriptor.*",
        ),
        file_names=(
            (_CNUDIE + "component-descriptor.v2+yaml+tar", "component-descriptor/"),
            (_CNUDIE + "component-descriptor.v2+json", "component-descriptor.json"),
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
