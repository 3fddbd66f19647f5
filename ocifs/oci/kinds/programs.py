"""Kinds of artifact that are programs, models or data: WebAssembly, language models, databases.

Part of the table in table.py; its rules hold here.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind

_MODULE = "application/vnd.module.wasm."
_OLLAMA = "application/vnd.ollama.image."
_DOCKER_AI = "application/vnd.docker.ai."
_MODEL = "application/vnd.cncf.model."
_WASM_NAMES = (
    ("application/vnd.wasm.content.layer.v1+wasm", "module.wasm"),
    (_MODULE + "content.layer.v1+wasm", "module.wasm"),
    (_MODULE + "config.v1+json", "runtime-config.json"),
)


_MODEL_PARTS = (
    ("weight.config", "weight-config"),
    ("weight", "weights-{n}"),
    ("doc", "doc"),
    ("code", "code"),
    ("dataset", "dataset"),
)


def _modelpack(part: str, name: str) -> tuple[tuple[str, str], ...]:
    """The archives of a part in each compression, and a raw file without a title."""
    endings = (("tar+gzip", ".tar.gz"), ("tar+zstd", ".tar.zst"), ("tar", ".tar"), ("raw", ".bin"))
    return tuple((f"{_MODEL}{part}.v1.{type_}", name + extension) for type_, extension in endings)


def _kitops(part: str) -> tuple[tuple[str, str], ...]:
    """The archives of a part under the two vendor names that KitOps has used."""
    return tuple(
        (f"application/vnd.{vendor}.{part}.*", f"{part}/")
        for vendor in ("kitops.modelkit", "jozu.model")
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
        ),
        annotations=("module.wasm.image/variant=compat", "module.wasm.image/variant=compat-smart"),
        layer_types=(
            "application/vnd.wasm.content.layer.*",
            _MODULE + "content.layer.*",
            "application/wasm",
        ),
        file_names=(*_WASM_NAMES, ("application/wasm", "module.wasm")),
    ),
    ArtifactKind(
        "ollama-model",
        "Ollama model",
        types=(_OLLAMA + "*",),
        layer_types=(_OLLAMA + "*",),
        file_names=(
            (_OLLAMA + "model", "model.gguf"),
            (_OLLAMA + "projector", "projector.gguf"),
            (_OLLAMA + "adapter", "adapter.gguf"),
            (_OLLAMA + "license", "LICENSE"),
            (_OLLAMA + "template", "template"),
            (_OLLAMA + "system", "system"),
            (_OLLAMA + "prompt", "prompt"),
            (_OLLAMA + "params", "params.json"),
            (_OLLAMA + "messages", "messages.json"),
        ),
    ),
    ArtifactKind(
        "modelpack-model",
        "Model in the CNCF ModelPack layout",
        types=(_MODEL + "manifest.*", _MODEL + "config.*"),
        file_names=tuple(name for part in _MODEL_PARTS for name in _modelpack(*part)),
    ),
    ArtifactKind(
        "kitops-modelkit",
        "KitOps ModelKit",
        types=("application/vnd.kitops.modelkit.*", "application/vnd.jozu.model.*"),
        file_names=(
            *_kitops("model"),
            *_kitops("modelpart"),
            *_kitops("dataset"),
            *_kitops("code"),
            *_kitops("docs"),
        ),
        config_file="Kitfile.json",
    ),
    ArtifactKind(
        "docker-model",
        "Docker Model Runner model",
        types=(_DOCKER_AI + "model.*",),
        layer_types=(_DOCKER_AI + "*",),
        file_names=(
            # The first pattern decides, and `gguf.*` also matches the next two types.
            (_DOCKER_AI + "gguf.v3.lora", "adapter.gguf"),
            (_DOCKER_AI + "gguf.v3.mmproj", "projector.gguf"),
            (_DOCKER_AI + "gguf.*", "model.gguf"),
            (_DOCKER_AI + "dduf", "model.dduf"),
            (_DOCKER_AI + "safetensors", "model.safetensors"),
            (_DOCKER_AI + "license", "LICENSE"),
            (_DOCKER_AI + "mmproj", "model.mmproj"),
            (_DOCKER_AI + "chat.template.jinja", "template.jinja"),
            (_DOCKER_AI + "vllm.config.*", "config/"),
        ),
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
        types=("application/vnd.aquasec.trivy.*",),
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
