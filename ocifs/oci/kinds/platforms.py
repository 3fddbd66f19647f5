"""Kinds of artifact that platforms install: for clusters, edge devices and developers' tools.

Part of the table in table.py; its rules hold here.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind

_MARGO = "application/vnd.margo.app."
_DEVFILE = "application/vnd.devfileio."
_HAULER = "application/vnd.content.hauler."
_TUF = "application/vnd.tuf."
_BLUEPRINT = "application/vnd.gardener.landscaper.blueprint."
_AKRI = "application/vnd.microsoft.akri-connector.v1+json"
_COMPATIBILITY = "application/vnd.nfd.image-compatibility."

PLATFORMS = (
    ArtifactKind(
        "margo-app",
        "Application for Margo's edge devices",
        types=(_MARGO + "*",),
        layer_types=(_MARGO + "description.*",),
        file_names=(
            (_MARGO + "description.*", "margo.yaml"),
            (_MARGO + "icon.*+png", "icon.png"),
            (_MARGO + "license.*", "license.txt"),
            (_MARGO + "releasenotes.*", "release-notes.md"),
        ),
    ),
    ArtifactKind(
        "devfile-stack",
        "Devfile of a development environment",
        types=(_DEVFILE + "devfile.config.*",),
        layer_types=(_DEVFILE + "devfile.layer.*",),
        file_names=(
            (_DEVFILE + "devfile.layer.*", "devfile.yaml"),
            (_DEVFILE + "vsx.layer.*", "plugins.tar"),
            ("image/png", "logo.png"),
            ("image/svg+xml", "logo.svg"),
            ("application/x-tar", "archive.tar"),
        ),
    ),
    ArtifactKind(
        "zarf-component",
        "Component for Zarf packages",
        types=("application/vnd.zarf.component.config.*",),
        file_names=(("dev.zarf.mountPath", "{dev.zarf.mountPath}"),),
        config_file="component.yaml",
    ),
    ArtifactKind(
        "nextflow-plugin",
        "Plugin for Nextflow",
        types=("application/vnd.nextflow.plugin*",),
        layer_types=("application/vnd.nextflow.plugin*",),
        file_names=(
            ("application/vnd.nextflow.plugin*", "plugin.zip"),
            ("application/zip", "plugin.zip"),
        ),
    ),
    ArtifactKind(
        "hauler-file",
        "Files in Hauler's store",
        types=(_HAULER + "file.*",),
        layer_types=(_HAULER + "file.layer.*",),
    ),
    ArtifactKind(
        "tuf-repository",
        "Metadata or targets of The Update Framework",
        types=(_TUF + "*",),
        layer_types=(_TUF + "*",),
        file_names=(
            (_TUF + "*", "{tuf.io/filename}"),
            (_TUF + "metadata+json", "metadata{shard}.json"),
        ),
    ),
    ArtifactKind(
        "landscaper-blueprint",
        "Blueprint for Gardener's Landscaper",
        types=(_BLUEPRINT + "*",),
        layer_types=(_BLUEPRINT + "*",),
        file_names=((_BLUEPRINT + "*", "blueprint/"),),
    ),
    ArtifactKind(
        "pipecd-plugin",
        "Plugin for PipeCD's agent",
        types=("application/vnd.pipecd.piped.plugin*",),
        index_types=("application/vnd.pipecd.piped.plugin*",),
        layer_types=("application/vnd.pipecd.piped.plugin*",),
        file_names=(("application/vnd.pipecd.piped.plugin*", "plugin"),),
    ),
    ArtifactKind(
        "akri-connector",
        "Description of a connector for Azure IoT Operations",
        types=(_AKRI,),
        layer_types=(_AKRI,),
        file_names=(
            ("application/json", "connector-metadata.json"),
            (_AKRI, "connector-metadata.json"),
        ),
    ),
    ArtifactKind(
        "image-compatibility",
        "Requirements of an image, for Node Feature Discovery",
        types=(_COMPATIBILITY + "*",),
        file_names=((_COMPATIBILITY + "spec.*", "compatibility.yaml"),),
    ),
    ArtifactKind(
        "charts-index",
        "Index of Helm charts in a registry",
        types=("application/vnd.vmware.charts.index.*",),
        layer_types=("application/vnd.vmware.charts.index.*",),
        file_names=(("application/vnd.vmware.charts.index.*", "charts-index.json"),),
    ),
    ArtifactKind(
        "radius-state",
        "State of Radius",
        types=("application/vnd.radius.statearchive.*",),
        layer_types=("application/vnd.radius.statearchive.*",),
        file_names=(("application/vnd.radius.statearchive.layer.*", "statearchive.tar.gz"),),
    ),
    ArtifactKind(
        "ansible-collection",
        "Ansible collection",
        types=("application/vnd.ansible.collection*",),
        layer_types=("application/vnd.ansible.collection*",),
        file_names=(("application/vnd.ansible.collection*", "collection.tar.gz"),),
    ),
    ArtifactKind(
        "spack-package",
        "Spack package",
        types=("application/vnd.spack.package*",),
        layer_types=("application/vnd.spack.package*",),
        file_names=(("application/vnd.spack.package*", "package.spack"),),
    ),
)
