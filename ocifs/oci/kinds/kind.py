"""The fields of a row in the table of kinds, and how they are matched.

A row describes a kind of artifact: the types and annotations that identify it, and the names of its
files. The rows are in table.py and the modules that it imports; docs/how-to/extend.md shows how to
add one.

Rules that hold here:

- Pure. The table is immutable and shared by all threads.
- A type pattern is compared by `mediatype.essence`. `*` matches any text, also none.
- An annotation pattern is `key` or `key=value`.
- Rows are tried in the order of the table. The first match decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor

TITLE = "org.opencontainers.image.title"
PACKAGE_TYPE = "com.github.package.type"

IMAGE_CONFIGS = frozenset({mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG})
# ORAS writes the two unknown types if its user names none. Other tools repeat the type of the
# manifest or of a layer: the policy CLI, KCL (decision 0300).
_BLANK = frozenset(
    {
        "",
        "application/vnd.unknown.artifact.v1",
        "application/vnd.unknown.config.v1+json",
        mediatype.OCTET_STREAM,
        mediatype.OCI_EMPTY,
        *mediatype.MANIFESTS,
    }
)
ROOTFS = (
    "application/vnd.oci.image.layer.*",
    "application/vnd.docker.image.rootfs.*",
    "application/vnd.docker.container.image.rootfs.*",
    "application/vnd.in-toto.oci.image.layer.*",
)


@dataclass(frozen=True, slots=True)
class ArtifactKind:
    """One kind of artifact, a row of the table.

    Identification:

    - `types`: values of `artifactType` or of the config's media type. Publishers use the same
      strings in both fields. `index_types`: values of `artifactType` in an index.
    - `package_type`: value of the annotation PACKAGE_TYPE. `index`: the kind is an index.
    - `annotations`, `layer_annotations`, `layer_types`: used if `artifactType` and the config are
      blank, or are those of an image. `all_layers`: every layer must have one of the types.
    - `required_layer_types`, `required_title`: additional conditions for kinds that share a type: a
      layer of one of these types, and a title of a layer that begins with this text.

    Files:

    - `file_names`: pairs of layer type (or `annotation=value` of the layer) and file name. A name
      that ends in `/` is an archive that is shown as a directory. `{n}` is a counter. `{shard}` is
      empty for the only file of that name, else `-00001` and so on. `{key}` is the value of an
      annotation of the layer; without that annotation, the pair does not match.
    - `joined_types`: layers of these types with one name are the parts of one file, in order.
      `part_number`: the annotation with the number of a part, if the order is not that of layers.
    - `annotation_files`, `layer_annotation_files`: pairs of an annotation, which contains the text
      of a file, and the file's name.
    - `config_file`: the name of the config blob, if it is part of the payload.
    - `reads_config`: the names are computed from the config blob (payload_names.py).

    `is_image`: artifacts of this kind have the config of an image, and can have its layers.
    `is_claim`: they are signatures or attestations, which ocifs does not verify.
    `origin`: the place of the declaration, for a kind of the user.
    """

    name: str
    description: str
    types: tuple[str, ...] = ()
    index_types: tuple[str, ...] = ()
    package_type: str = ""
    index: bool = False
    annotations: tuple[str, ...] = ()
    layer_annotations: tuple[str, ...] = ()
    layer_types: tuple[str, ...] = ()
    all_layers: bool = False
    required_layer_types: tuple[str, ...] = ()
    required_title: str = ""
    file_names: tuple[tuple[str, str], ...] = ()
    joined_types: tuple[str, ...] = ()
    part_number: str = ""
    annotation_files: tuple[tuple[str, str], ...] = ()
    layer_annotation_files: tuple[tuple[str, str], ...] = ()
    config_file: str = ""
    reads_config: bool = False
    is_image: bool = False
    is_claim: bool = False
    origin: str = ""

    def accepts(self, layers: tuple[Descriptor, ...]) -> bool:
        """Whether the additional conditions are met."""
        if self.required_layer_types and first_of_types(self.required_layer_types, layers) is None:
            return False
        if not self.required_title:
            return True
        return any(
            layer.annotations.get(TITLE, "").startswith(self.required_title) for layer in layers
        )

    def layer_match(self, layers: tuple[Descriptor, ...]) -> Descriptor | None:
        """The layer that identifies this kind by its type, or None."""
        if not self.layer_types:
            return None
        if self.all_layers and not all(
            matches_any(self.layer_types, layer.media_type) for layer in layers
        ):
            return None
        return first_of_types(self.layer_types, layers)


def is_informative(artifact_type: str) -> bool:
    """Whether the type of an artifact or config identifies an artifact.

    Some tools write a blank type, or one of OCI's own types.
    """
    plain = mediatype.essence(artifact_type)
    return (
        plain not in _BLANK
        and plain not in IMAGE_CONFIGS
        and not matches_any(ROOTFS, artifact_type)
    )


@lru_cache(maxsize=4096)
def matches_any(patterns: tuple[str, ...], media_type: str) -> bool:
    """Whether a media type matches one of the patterns.

    The results are cached: a registry repeats few types many times.
    """
    plain = mediatype.essence(media_type)
    return any(_matches(pattern, plain) for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    """Whether a text matches a pattern in which `*` is any text. Linear in the text's length."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    position, last = len(first), rest.pop()
    for part in rest:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(text) >= position + len(last) and text.endswith(last)


def first_of_types(patterns: tuple[str, ...], layers: Iterable[Descriptor]) -> Descriptor | None:
    """The first layer of a type that matches one of the patterns."""
    return next((layer for layer in layers if matches_any(patterns, layer.media_type)), None)


def matching_annotation(patterns: tuple[str, ...], annotations: Mapping[str, str]) -> str:
    """The key of the first pattern that matches an annotation, or ""."""
    for pattern in patterns:
        key, _, value = pattern.partition("=")
        if key in annotations and value in ("", annotations[key]):
            return key
    return ""
