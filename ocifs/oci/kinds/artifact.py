"""Classifies manifests: the kind of artifact, its type, and the field that decided.

`classify` is called for every manifest that is loaded: by the tree, by `find` and by `inspect`. The
rules are in the order of their reliability:

1. the form: schema 1, an unknown form, an index
2. explicit declarations of the publisher: the package annotation, `artifactType`, a config type
   other than those of images
3. annotations of the manifest, then annotations and types of its layers
4. `image`, if the config type is that of an image and all layers can be parts of a root filesystem:
   cosign, Ollama, Tekton and others push artifacts with the config of an image
5. a single unknown layer type: `artifact` of that type
6. no information: `files`

Rules that hold here:

- Pure. Only the manifest and its tag are used; no blob is read.
- A type without a row in the table is the kind `artifact` with that type.
- Types are displayed unchanged, and compared by their essence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.kinds.children import child_role
from ocifs.oci.kinds.flavours import filesystem_image, manifest_flavours
from ocifs.oci.kinds.kind import (
    IMAGE_CONFIGS,
    PACKAGE_TYPE,
    ArtifactKind,
    is_informative,
    matches_any,
    matching_annotation,
)
from ocifs.oci.kinds.table import KINDS
from ocifs.oci.manifest import Form, Manifest

# ORAS writes this type if its user names none.
_UNKNOWN_CONFIG = "application/vnd.unknown.config.v1+json"
_BLANK_CONFIG = frozenset({"", mediatype.OCTET_STREAM, mediatype.OCI_EMPTY, _UNKNOWN_CONFIG})
_EMPTY_OBJECT_SIZE = 2
_CNAB_TYPE = "org.opencontainers.artifactType"
_BUILD_CACHE = ("application/vnd.buildkit.cacheconfig.*",)
_REFERRERS_TAG = re.compile(r"sha256-[0-9a-f]{64}|sha512-[0-9a-f]{64}(?:[0-9a-f]{64})?")
_ROOTFS = (
    "application/vnd.oci.image.layer.*",
    "application/vnd.docker.image.rootfs.*",
    "application/vnd.docker.container.image.rootfs.*",
    "application/vnd.in-toto.oci.image.layer.*",
)
# A type of the vendor, personal or unregistered tree (RFC 6838, 3) can identify an artifact.
_VENDOR = re.compile(r"[a-z]+/(?:vnd|prs|x)[.-]")

# The table, grouped by the fields that the rules use.
_BY_PACKAGE = {(kind.package_type, kind.index): kind for kind in KINDS if kind.package_type}
_TYPED = tuple(kind for kind in KINDS if kind.types)
_INDEX_TYPED = tuple(kind for kind in KINDS if kind.index_types)
_INDEXES = tuple(kind for kind in KINDS if kind.index and kind.annotations)
_ANNOTATED = tuple(
    kind for kind in KINDS if not kind.index and (kind.annotations or kind.layer_annotations)
)
_LAYERED = tuple(kind for kind in KINDS if kind.layer_types)


UNKNOWN_KINDS = frozenset({"artifact", "files", "unknown"})
"""Kinds without a row in the table that identifies them."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The kind of a manifest.

    `decided_by`: the field that decided. `value`: its value. `rule`: the name of the rule.
    """

    kind: str
    artifact_type: str
    decided_by: str
    value: str
    rule: str
    flavours: tuple[str, ...] = field(default=())


def classify(manifest: Manifest, *, tag: str = "") -> Classification:
    """Classify a manifest.

    `tag`: the tag under which it was found. An index of referrers is recognized by its tag.
    """
    if manifest.form is Form.UNKNOWN:
        return Classification("unknown", manifest.media_type, "form", manifest.form_reason, "form")
    if manifest.form is Form.SCHEMA1:
        return Classification(
            "docker-schema1", manifest.media_type, "form", manifest.form_reason, "form"
        )
    if manifest.form is Form.INDEX:
        return _by_package(manifest) or _index(manifest, tag)
    return (
        _by_package(manifest)
        or _by_artifact_type(manifest)
        or _by_config_type(manifest)
        or _by_annotation(manifest)
        or _by_layer_type(manifest)
        or _image(manifest)
        or _unknown_layers(manifest)
        or _files(manifest)
    )


def is_rootfs_layer(media_type: str) -> bool:
    """Whether a layer of this type is part of a root filesystem.

    This includes all compressions, and lazy, foreign and encrypted layers.
    """
    return matches_any(_ROOTFS, media_type) or filesystem_image(media_type) != ""


def is_image_config(media_type: str) -> bool:
    """Whether this is the media type of an image's config, in OCI or Docker format."""
    return mediatype.essence(media_type) in IMAGE_CONFIGS


def _by_package(manifest: Manifest) -> Classification | None:
    value = manifest.annotations.get(PACKAGE_TYPE, "")
    # Homebrew gives a bottle and its index the same package type.
    kind = _BY_PACKAGE.get((value, manifest.form is Form.INDEX))
    if kind is None:
        return None
    own = _own_type(manifest)
    return Classification(
        kind.name, own or value, f"annotations[{PACKAGE_TYPE}]", value, "package-type"
    )


def _own_type(manifest: Manifest) -> str:
    """The declared type, from `artifactType` or the config."""
    if is_informative(manifest.artifact_type):
        return manifest.artifact_type
    config = manifest.config
    return config.media_type if config is not None and _is_own_config(config) else ""


def _is_own_config(config: Descriptor) -> bool:
    plain = mediatype.essence(config.media_type)
    return plain not in _BLANK_CONFIG and plain not in IMAGE_CONFIGS


def _by_artifact_type(manifest: Manifest) -> Classification | None:
    value = manifest.artifact_type
    if not is_informative(value):
        return None
    kind = _of_type(value, manifest.layers)
    word = "artifact" if kind is None else kind.name
    return Classification(word, value, "artifactType", value, "artifact-type")


def _by_config_type(manifest: Manifest) -> Classification | None:
    if manifest.config is None or not _is_own_config(manifest.config):
        return None
    value = manifest.config.media_type
    kind = _of_type(value, manifest.layers)
    return Classification(
        "artifact" if kind is None else kind.name, value, "config.mediaType", value, "config-type"
    )


def _of_type(media_type: str, layers: tuple[Descriptor, ...]) -> ArtifactKind | None:
    return next(
        (kind for kind in _TYPED if matches_any(kind.types, media_type) and kind.accepts(layers)),
        None,
    )


def _index(manifest: Manifest, tag: str) -> Classification:
    own = manifest.media_type
    # A build cache is recognized by its children, even if the index declares a type.
    decided = _cache_index(manifest) or _typed_index(manifest)
    if decided is not None:
        return decided
    # An index of platforms can have such a tag as well.
    if _REFERRERS_TAG.fullmatch(tag) and all(
        child.platform is None for child in manifest.manifests
    ):
        return Classification("referrers-index", own, "tag", tag, "referrers-tag")
    decided = _annotated_index(manifest)
    if decided is not None:
        return decided
    if manifest.manifests and all(child_role(child) == "artifact" for child in manifest.manifests):
        value = next(
            (child.artifact_type for child in manifest.manifests if child.artifact_type), own
        )
        return Classification(
            "artifact-index", value, "manifests[].artifactType", value, "artifact-children"
        )
    return Classification("image-index", own, "form", manifest.form_reason, "image-index")


def _cache_index(manifest: Manifest) -> Classification | None:
    """BuildKit's older cache format: an index of blobs, one of which is the cache's config."""
    for n, child in enumerate(manifest.manifests):
        if matches_any(_BUILD_CACHE, child.media_type):
            where = f"manifests[{n}].mediaType"
            return Classification(
                "build-cache", child.media_type, where, child.media_type, "cache-index"
            )
    return None


def _typed_index(manifest: Manifest) -> Classification | None:
    value = manifest.artifact_type
    if not is_informative(value):
        return None
    kind = next((kind for kind in _INDEX_TYPED if matches_any(kind.index_types, value)), None)
    word = "artifact-index" if kind is None else kind.name
    return Classification(word, value, "artifactType", value, "artifact-type")


def _annotated_index(manifest: Manifest) -> Classification | None:
    for kind in _INDEXES:
        key = matching_annotation(kind.annotations, manifest.annotations)
        if key:
            value = manifest.annotations[key]
            return Classification(
                kind.name, value, f"annotations[{key}]", value, "index-annotation"
            )
    value = manifest.annotations.get(_CNAB_TYPE, "")
    if not is_informative(value):
        return None
    return Classification(
        "artifact-index", value, f"annotations[{_CNAB_TYPE}]", value, "index-annotation"
    )


def _by_annotation(manifest: Manifest) -> Classification | None:
    for kind in _ANNOTATED:
        key = matching_annotation(kind.annotations, manifest.annotations)
        if key:
            where, value = f"annotations[{key}]", manifest.annotations[key]
            return Classification(kind.name, _shown_type(manifest), where, value, "annotation")
        for n, layer in enumerate(manifest.layers if kind.layer_annotations else ()):
            key = matching_annotation(kind.layer_annotations, layer.annotations)
            if key:
                where, value = f"layers[{n}].annotations[{key}]", layer.annotations[key]
                return Classification(
                    kind.name, _shown_type(manifest), where, value, "layer-annotation"
                )
    return None


def _by_layer_type(manifest: Manifest) -> Classification | None:
    for kind in _LAYERED:
        layer = kind.layer_match(manifest.layers)
        if layer is not None and kind.accepts(manifest.layers):
            where = f"layers[{manifest.layers.index(layer)}].mediaType"
            return Classification(
                kind.name, layer.media_type, where, layer.media_type, "layer-type"
            )
    return None


def _image(manifest: Manifest) -> Classification | None:
    config, layers = manifest.config, manifest.layers
    if (
        config is None
        or config.is_empty
        or not all(is_rootfs_layer(layer.media_type) for layer in layers)
    ):
        return None
    plain = mediatype.essence(config.media_type)
    # A config of two bytes is `{}`, which describes no image.
    if plain in IMAGE_CONFIGS and config.size != _EMPTY_OBJECT_SIZE:
        flavours = manifest_flavours(manifest)
        return Classification(
            "image", config.media_type, "config.mediaType", config.media_type, "image", flavours
        )
    # Some Docker images declare their config as octet-stream.
    if plain == mediatype.OCTET_STREAM and layers and _is_docker(manifest):
        flavours = manifest_flavours(manifest)
        return Classification(
            "image", mediatype.DOCKER_CONFIG, "mediaType", manifest.media_type, "image", flavours
        )
    return None


def _is_docker(manifest: Manifest) -> bool:
    return mediatype.essence(manifest.media_type) == mediatype.DOCKER_MANIFEST


def _unknown_layers(manifest: Manifest) -> Classification | None:
    """An artifact with one vendor-specific type of layers."""
    vendor_types = {
        mediatype.essence(layer.media_type): (n, layer.media_type)
        for n, layer in enumerate(manifest.layers)
        if _VENDOR.match(mediatype.essence(layer.media_type))
        and not layer.is_empty
        and not is_rootfs_layer(layer.media_type)
    }
    if len(vendor_types) != 1:
        return None
    [(n, value)] = vendor_types.values()
    return Classification("artifact", value, f"layers[{n}].mediaType", value, "layer-type")


def _files(manifest: Manifest) -> Classification:
    return Classification("files", _shown_type(manifest), "", "", "nothing-informative")


def _shown_type(manifest: Manifest) -> str:
    """The type to display: `artifactType`, else the config's type, else the layers' common type."""
    if manifest.artifact_type:
        return manifest.artifact_type
    if manifest.config is not None and mediatype.essence(manifest.config.media_type) not in (
        "",
        mediatype.OCI_EMPTY,
    ):
        return manifest.config.media_type
    types = {mediatype.essence(layer.media_type) for layer in manifest.layers}
    return manifest.layers[0].media_type if len(types) == 1 else ""
