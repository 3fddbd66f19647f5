"""The name of a layer's file: the publisher's own, else the usual name for its type.

`payload.py` calls `layer_names` for the layers of an artifact. The rules, in their order:

1. a path that the publisher wrote: title, path in a Compose project or a model, Ollama's `name`
2. the kind and name of a Tekton resource
3. a name computed for this kind of artifact (payload_names.py)
4. the name in the table for its type or annotation (`ArtifactKind.file_names`)
5. the usual name of a type that occurs in artifacts of many kinds; the type of the artifact is
   that of its only layer, if that layer has a type for any content
6. its `ref.name`
7. the last word of a vendor's type: `signature.json` for `application/vnd.acme.signature.v1+json`
8. `layer-N`, with an extension from its media type, or from its first bytes if they are embedded in
   the manifest

Rules that hold here:

- Pure. Names are the publisher's text: neither safe as paths nor unique.
- A name that ends in `/` is an archive that is shown as a directory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.kinds.extensions import HEAD_SIZE, extension_of, extension_of_type
from ocifs.oci.kinds.kind import ROOTFS, TITLE, ArtifactKind, matches_any, matching_annotation
from ocifs.oci.kinds.payload_names import NAME_FUNCTIONS, NameInput
from ocifs.oci.kinds.table import COMMON_NAMES

REF_NAME = "org.opencontainers.image.ref.name"
MODEL_PATHS = ("org.cncf.model.filepath", "org.cnai.model.filepath")
_PATHS = (
    TITLE,
    "com.docker.compose.file",
    "com.docker.compose.envfile",
    *MODEL_PATHS,
    "signature.blob.name",
)
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_VERSION = re.compile(r"v?\d+(?:alpha\d*|beta\d*)?")
_VENDOR_TREES = ("vnd", "prs", "x")
_GENERAL_TYPES = frozenset(
    {mediatype.OCTET_STREAM, "application/json", "application/xml", "text/plain", "text/json"}
)
_STRUCTURAL = ("application/vnd.oci.*", *ROOTFS)
# Words that describe the place of the content and not the content.
_GENERIC = frozenset(
    {"layer", "layers", "content", "contents", "blob", "image", "artifact", "media", "type"}
)


class _Name(NamedTuple):
    """A name; with `is_template`, it may have the placeholders of counters."""

    text: str
    is_template: bool = False


def layer_names(
    kind: ArtifactKind,
    config: dict[str, object],
    annotations: Mapping[str, str],
    layers: Sequence[tuple[int, Descriptor]],
    artifact_type: str = "",
) -> list[str]:
    """The name of each of these numbered layers.

    `config`: the members of the config. `artifact_type`: the type that identified the artifact.
    """
    # ORAS writes the general type of the file beside the type that its user declared.
    own = artifact_type if len(layers) == 1 else ""
    names = [
        _name(kind, NameInput(config, annotations, _typed(layer, own)), number)
        for number, layer in layers
    ]
    repeated = Counter(name.text for name in names if name.is_template)
    counts: Counter[str] = Counter()
    result = []
    for name in names:
        result.append(_numbered(name, counts[name.text], repeated[name.text]))
        counts[name.text] += name.is_template
    return result


def _typed(layer: Descriptor, artifact_type: str) -> Descriptor:
    """The layer with the type of its artifact, if its own type has no name and that one has."""
    is_general = mediatype.essence(layer.media_type) in _GENERAL_TYPES
    if not is_general or not any(
        matches_any((pattern,), artifact_type) for pattern, _ in COMMON_NAMES
    ):
        return layer
    return replace(layer, media_type=artifact_type)


def path_key(layer: Descriptor) -> str:
    """The annotation with the path that the publisher wrote for a layer, or ""."""
    return next((key for key in _PATHS if layer.annotations.get(key)), "")


def _numbered(name: _Name, number: int, total: int) -> str:
    if not name.is_template:
        return name.text
    # Three digits, so that a glob lists the pieces in order (decision 0043).
    text = name.text.replace("{n}", f"{number:03}")
    return text.replace("{shard}", f"-{number + 1:05}" if total > 1 else "")


def _name(kind: ArtifactKind, known: NameInput, number: int) -> _Name:
    key = path_key(known.layer)
    if not key:
        return _usual_name(kind, known, number)
    path = known.layer.annotations[key]
    if key == TITLE and path == known.annotations.get(TITLE):
        # The title of the whole artifact, which some tools repeat (the policy CLI).
        usual = _from_table(kind.file_names, known.layer)
        if usual:
            return _Name(usual, is_template=True)
    # A path is the publisher's text, and may contain braces.
    return _Name(path)


def _usual_name(kind: ArtifactKind, known: NameInput, number: int) -> _Name:
    layer = known.layer
    compute = NAME_FUNCTIONS.get(kind.name)
    written = (
        _descriptor_name(layer) or _tekton(layer) or (compute(known) if compute is not None else "")
    )
    if written:
        return _Name(written)
    usual = _from_table(kind.file_names, layer) or _from_table(COMMON_NAMES, layer)
    if usual:
        return _Name(usual, is_template=True)
    if layer.annotations.get(REF_NAME):
        return _Name(layer.annotations[REF_NAME])
    word = _word_of_type(layer)
    if word:
        return _Name(word, is_template=True)
    # The first bytes are not fetched: a listing would cost one request per layer (decision 0043).
    head = (layer.embedded or b"")[:HEAD_SIZE]
    return _Name(f"layer-{number}{extension_of(layer.media_type, head)}")


def _from_table(pairs: Sequence[tuple[str, str]], layer: Descriptor) -> str:
    for pattern, name in pairs:
        if matches_any((pattern,), layer.media_type) or matching_annotation(
            (pattern,), layer.annotations
        ):
            filled = _filled(name, layer.annotations)
            if filled:
                return filled
    return ""


def _filled(name: str, annotations: Mapping[str, str]) -> str:
    """The name with the values of annotations for its placeholders; "" if one is missing."""
    if "{" not in name:
        return name
    keys = [key for key in _PLACEHOLDER.findall(name) if key not in ("n", "shard")]
    if not all(annotations.get(key) for key in keys):
        return ""
    for key in keys:
        # A brace in a value is not a placeholder.
        value = annotations[key].replace("{", "(").replace("}", ")")
        name = name.replace(f"{{{key}}}", value)
    return name


def _descriptor_name(layer: Descriptor) -> str:
    """The name in the descriptor itself, which Ollama writes for each tensor and file."""
    is_tensor = mediatype.essence(layer.media_type).endswith(".tensor")
    return f"{layer.name}.safetensors" if layer.name and is_tensor else layer.name


def _tekton(layer: Descriptor) -> str:
    """The kind and name of a Tekton resource.

    Each layer of a bundle is a tar with one resource (tekton docs, tekton-bundle-contracts.md). As
    a file, a listing would need the size of the resource, and the layer (decision 0043).
    """
    kind, name = (
        layer.annotations.get(f"dev.tekton.image.{part}", "") for part in ("kind", "name")
    )
    return f"{kind.lower()}/{name}/" if kind and name else ""


def _word_of_type(layer: Descriptor) -> str:
    """The last word of a vendor's type that describes the content, with an extension."""
    plain = mediatype.essence(layer.media_type)
    tree, *words = plain.partition("/")[2].partition("+")[0].split(".")
    # OCI's own types describe the structure of an artifact.
    if tree not in _VENDOR_TREES or matches_any(_STRUCTURAL, plain):
        return ""
    while words and _is_unspecific(words[-1]):
        words.pop()
    # The only word that is left is the name of the vendor.
    return f"{words[-1]}{{shard}}{extension_of_type(plain)}" if len(words) > 1 else ""


def _is_unspecific(word: str) -> bool:
    """Whether a word of a type is a version, a format, or a word for any content."""
    return (
        word in _GENERIC
        or _VERSION.fullmatch(word) is not None
        or extension_of_type(f"x/{word}") != ""
    )
