"""Classifies manifests: the kind of artifact, its type, and the field that decided.

`classify` is called for every manifest that is loaded: by the tree, by `find` and by `inspect`. The
rules are in the order of their reliability:

1. the form: schema 1, an unknown form, an index (`indexes.py`)
2. explicit declarations of the publisher: the package annotation, `artifactType`, a config type
   other than those of images
3. annotations of the manifest, then annotations and types of its layers
4. `image`, if the config type is that of an image and all layers can be parts of a root filesystem:
   cosign, Ollama, Tekton and others push artifacts with the config of an image
5. unknown layer types: `artifact` of that type
6. no information: `files`

The user's own kinds are compared last, if the result would be `artifact` or `files`.

Rules that hold here:

- Pure. Only the manifest and its tag are used; no blob is read.
- A type without a row in the table is the kind `artifact` with that type.
- Types are displayed unchanged, and compared by their essence.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from ocifs.oci import mediatype
from ocifs.oci.kinds.classification import Classification, shown_type
from ocifs.oci.kinds.flavours import filesystem_image, manifest_flavours
from ocifs.oci.kinds.indexes import classify_index
from ocifs.oci.kinds.kind import IMAGE_CONFIGS, ROOTFS, is_informative, matches_any
from ocifs.oci.kinds.predicates import contained_kinds
from ocifs.oci.kinds.rules import KindRules
from ocifs.oci.kinds.table import KINDS
from ocifs.oci.manifest import Form, Manifest

_EMPTY_OBJECT_SIZE = 2
# A type of the vendor, personal or unregistered tree (RFC 6838, 3) can identify an artifact.
_VENDOR = re.compile(r"[a-z]+/(?:vnd|prs|x)[.-]")
_UNDECIDED = frozenset({"artifact", "artifact-index", "files"})


@cache
def _rules() -> KindRules:
    """The rules for ocifs' own table."""
    return KindRules(KINDS)


def classify(manifest: Manifest, *, tag: str = "", own: KindRules | None = None) -> Classification:
    """Classify a manifest.

    `tag`: the tag under which it was found. An index of referrers is recognized by its tag. `own`:
    the kinds that the user declared.
    """
    found = _classify(manifest, tag)
    if own is not None and found.kind in _UNDECIDED:
        found = own.any_of(manifest) or found
    also = contained_kinds(found.kind, manifest)
    return replace(found, also=also) if also else found


def _classify(manifest: Manifest, tag: str) -> Classification:
    if manifest.form is Form.UNKNOWN:
        return Classification("unknown", manifest.media_type, "form", manifest.form_reason, "form")
    if manifest.form is Form.SCHEMA1:
        return Classification(
            "docker-schema1", manifest.media_type, "form", manifest.form_reason, "form"
        )
    if manifest.form is Form.INDEX:
        return _rules().by_package(manifest) or classify_index(manifest, tag, _rules())
    return (
        _rules().by_package(manifest)
        or _by_artifact_type(manifest)
        or _by_config_type(manifest)
        or _rules().by_annotation(manifest)
        or _rules().by_layer_type(manifest)
        or _image(manifest)
        or _unknown_layers(manifest)
        or _files(manifest)
    )


def is_rootfs_layer(media_type: str) -> bool:
    """Whether a layer of this type is part of a root filesystem.

    This includes all compressions, and lazy, foreign and encrypted layers.
    """
    return matches_any(ROOTFS, media_type) or filesystem_image(media_type) != ""


def is_image_config(media_type: str) -> bool:
    """Whether this is the media type of an image's config, in OCI or Docker format."""
    return mediatype.essence(media_type) in IMAGE_CONFIGS


def has_rootfs(manifest: Manifest, classification: Classification) -> bool:
    """Whether the artifact has a root filesystem: an image, or an artifact that is also one.

    Agents, skills and Kubernetes volumes are images with an `artifactType` (decision 0301). The
    fake configs of other artifacts have no such type.
    """
    if classification.kind in ("image", "docker-schema1"):
        return True
    typed = classification.rule == "artifact-type" or classification.row.is_image
    return typed and bool(manifest.layers) and _image(manifest) is not None


def _by_artifact_type(manifest: Manifest) -> Classification | None:
    value = manifest.artifact_type
    if not is_informative(value):
        return None
    return _rules().by_artifact_type(manifest) or Classification(
        "artifact", value, "artifactType", value, "artifact-type"
    )


def _by_config_type(manifest: Manifest) -> Classification | None:
    if manifest.config is None or not is_informative(manifest.config.media_type):
        return None
    value = manifest.config.media_type
    return _rules().by_config_type(manifest) or Classification(
        "artifact", value, "config.mediaType", value, "config-type"
    )


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
    """An artifact with one vendor-specific type of layers, or with such layers only.

    Of several types the first one is displayed.
    """
    layers = [
        (n, layer)
        for n, layer in enumerate(manifest.layers)
        if not layer.is_empty and not is_rootfs_layer(layer.media_type)
    ]
    vendors = {
        mediatype.essence(layer.media_type): (n, layer.media_type)
        for n, layer in reversed(layers)
        if _VENDOR.match(mediatype.essence(layer.media_type))
    }
    all_vendor = all(mediatype.essence(layer.media_type) in vendors for _, layer in layers)
    if not vendors or (len(vendors) > 1 and not all_vendor):
        return None
    n, value = min(vendors.values())
    return Classification("artifact", value, f"layers[{n}].mediaType", value, "layer-type")


def _files(manifest: Manifest) -> Classification:
    return Classification("files", shown_type(manifest), "", "", "no type")
