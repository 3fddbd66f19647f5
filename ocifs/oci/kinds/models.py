"""Kinds of artifact that are models of machine learning.

Part of the table in table.py; its rules hold here.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind

_OLLAMA = "application/vnd.ollama.image."
_DOCKER_AI = "application/vnd.docker.ai."
# ModelPack, and its first name.
_MODEL = ("application/vnd.cncf.model.", "application/vnd.cnai.model.")
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
    return tuple(
        (f"{family}{part}.v1.{type_}", name + extension)
        for family in _MODEL
        for type_, extension in endings
    )


def _kitops(part: str) -> tuple[tuple[str, str], ...]:
    """The archives of a part under the two vendor names that KitOps has used."""
    return tuple(
        (f"application/vnd.{vendor}.{part}.*", f"{part}/")
        for vendor in ("kitops.modelkit", "jozu.model")
    )


MODELS = (
    ArtifactKind(
        "ollama-model",
        "Ollama model",
        types=(_OLLAMA + "*",),
        layer_types=(_OLLAMA + "*",),
        file_names=(
            (_OLLAMA + "model", "model.gguf"),
            (_OLLAMA + "projector", "projector.gguf"),
            (_OLLAMA + "adapter", "adapter.gguf"),
            # The small model of speculative decoding.
            (_OLLAMA + "draft", "draft.gguf"),
            (_OLLAMA + "license", "LICENSE"),
            (_OLLAMA + "template", "template"),
            (_OLLAMA + "system", "system"),
            (_OLLAMA + "prompt", "prompt"),
            (_OLLAMA + "params", "params.json"),
            (_OLLAMA + "messages", "messages.json"),
            (_OLLAMA + "tensor", "tensor-{n}.safetensors"),
            (_OLLAMA + "json", "file-{n}.json"),
        ),
    ),
    ArtifactKind(
        "modelpack-model",
        "Model in the CNCF ModelPack layout",
        types=tuple(f"{family}{part}.*" for family in _MODEL for part in ("manifest", "config")),
        layer_types=tuple(f"{family}*" for family in _MODEL),
        file_names=(
            *(
                (f"{family}weight.v1.{type_}", f"model{{shard}}.{type_}")
                for family in _MODEL
                for type_ in ("gguf", "safetensors")
            ),
            *(name for part in _MODEL_PARTS for name in _modelpack(*part)),
        ),
    ),
    ArtifactKind(
        "kitops-modelkit",
        "KitOps ModelKit",
        types=("application/vnd.kitops.modelkit.*", "application/vnd.jozu.model.*"),
        layer_types=("application/vnd.kitops.modelkit.*", "application/vnd.jozu.model.*"),
        file_names=(
            ("application/vnd.jozu.model.content.*", "model/"),
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
            (_DOCKER_AI + "gguf.*", "model{shard}.gguf"),
            (_DOCKER_AI + "dduf", "model.dduf"),
            (_DOCKER_AI + "safetensors", "model{shard}.safetensors"),
            (_DOCKER_AI + "license", "LICENSE"),
            (_DOCKER_AI + "mmproj", "model.mmproj"),
            (_DOCKER_AI + "chat.template.jinja", "template.jinja"),
            (_DOCKER_AI + "vllm.config.*", "config/"),
            (_DOCKER_AI + "dir.tar", "dir/"),
            (_DOCKER_AI + "model.file.*+gguf", "model{shard}.gguf"),
            (_DOCKER_AI + "model.file", "file-{n}"),
        ),
    ),
    ArtifactKind(
        "ramalama-model",
        "RamaLama model",
        types=("application/vnd.ramalama.model.*",),
        file_names=(("application/vnd.ramalama.model.gguf", "model{shard}.gguf"),),
    ),
    ArtifactKind(
        "cog-weights",
        "Weights for a Cog model",
        types=("application/vnd.cog.weight.*",),
        # The parts of one directory, which a large model needs.
        file_names=(("application/vnd.oci.image.layer.*", "weights{shard}/"),),
    ),
    ArtifactKind(
        "kernel-cache",
        "Compiled GPU kernels of a model (Triton, vLLM)",
        layer_types=(
            "application/cache.triton.content.*",
            "application/vnd.cache.triton.content.*",
            "application/cache.vllm.content.*",
        ),
        file_names=(
            ("application/cache.vllm.content.*", "vllm-cache/"),
            ("*cache.triton.content.*", "triton-cache/"),
        ),
    ),
)
