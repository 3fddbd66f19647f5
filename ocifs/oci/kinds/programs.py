"""Kinds of artifact that are programs or data: WebAssembly, plugins, rules, databases.

Part of the table in table.py; its rules hold here.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind

_MODULE = "application/vnd.module.wasm."
_WASM_NAMES = (
    ("application/vnd.wasm.content.layer.v1+wasm", "module.wasm"),
    (_MODULE + "content.layer.v1+wasm", "module.wasm"),
    (_MODULE + "config.v1+json", "runtime-config.json"),
    # Higress describes its plugins in further layers.
    (_MODULE + "spec.*", "spec.yaml"),
    (_MODULE + "doc.v1+markdown", "README.md"),
    (_MODULE + "doc.v1.en+markdown", "README_EN.md"),
    (_MODULE + "doc.v1.zh+markdown", "README_ZH.md"),
    (_MODULE + "icon.*", "icon.png"),
)


PROGRAMS = (
    ArtifactKind(
        "spin-app",
        "Spin application",
        types=("application/vnd.fermyon.spin.application.*",),
        config_file="spin.lock.json",
        reads_config=True,
        file_names=(
            ("application/vnd.wasm.content.layer.v1+wasm", "module.wasm"),
            ("application/wasm", "component.wasm"),
        ),
    ),
    ArtifactKind(
        "wasm-component",
        "WebAssembly component or module in the CNCF layout",
        types=("application/vnd.wasm.config.v0+json",),
        file_names=(("application/wasm", "component.wasm"), *_WASM_NAMES),
    ),
    ArtifactKind(
        "wasmcloud-provider",
        "wasmCloud capability provider",
        types=("application/vnd.wasmcloud.provider.*",),
        layer_types=("application/vnd.wasmcloud.provider.*",),
        file_names=(("application/vnd.wasmcloud.provider.archive.layer.v1+par", "provider.par"),),
    ),
    ArtifactKind(
        "wasm-module",
        "WebAssembly module",
        types=(
            "application/vnd.wasm.config.v1+json",
            "application/vnd.wasmcloud.actor.*",
            _MODULE + "config.*",
            # The type of the layer, which users of ORAS declare.
            "application/vnd.wasm.content.layer.*",
            "application/wasm",
        ),
        annotations=("module.wasm.image/variant=compat", "module.wasm.image/variant=compat-smart"),
        layer_types=(
            "application/vnd.wasm.content.layer.*",
            _MODULE + "content.layer.*",
            _MODULE + "spec.*",
            _MODULE + "doc.*",
            "application/wasm",
        ),
        file_names=(*_WASM_NAMES, ("application/wasm", "module.wasm")),
    ),
    ArtifactKind(
        "falco-rulesfile",
        "Falco rules",
        types=("application/vnd.cncf.falco.rulesfile.*",),
        layer_types=("application/vnd.cncf.falco.rulesfile.*",),
        file_names=(("application/vnd.cncf.falco.rulesfile.layer.*", "rules.tar.gz"),),
    ),
    ArtifactKind(
        "falco-plugin",
        "Falco plugin",
        types=("application/vnd.cncf.falco.plugin.*",),
        layer_types=("application/vnd.cncf.falco.plugin.*",),
        file_names=(("application/vnd.cncf.falco.plugin.layer.*", "plugin.tar.gz"),),
    ),
    ArtifactKind(
        "falco-asset",
        "Falco asset",
        types=("application/vnd.cncf.falco.asset.*",),
        layer_types=("application/vnd.cncf.falco.asset.*",),
        file_names=(("application/vnd.cncf.falco.asset.layer.*", "asset.tar.gz"),),
    ),
    ArtifactKind(
        "trivy-db",
        "Trivy database",
        types=("application/vnd.aquasec.trivy.config.*", "application/vnd.aquasec.trivy.*db.*"),
        layer_types=("application/vnd.aquasec.trivy.*",),
        file_names=(
            ("application/vnd.aquasec.trivy.db.layer.v1.tar+gzip", "db.tar.gz"),
            ("application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip", "javadb.tar.gz"),
        ),
    ),
    ArtifactKind(
        "gadget",
        "Inspektor Gadget (eBPF program)",
        types=("application/vnd.gadget.v1+binary", "application/vnd.gadget.config.*"),
        layer_types=("application/vnd.gadget.*",),
        file_names=(
            ("application/vnd.gadget.ebpf.program.*", "program.o"),
            ("application/vnd.gadget.wasm.program.*", "program.wasm"),
            ("application/vnd.gadget.btfgen.*", "btfs.tar.gz"),
        ),
        config_file="config.yaml",
    ),
)
