"""What a row of the table of kinds can say, and how a row is matched.

A row names a kind of artifact once: the strings by which its publisher marks it and the names that
its files have. The rows are in `kinds_table.py`; whoever adds one adds a row there and one row in
tests/oci/test_artifact.py, and runs scripts/generate_kinds.py.

Rules that hold here: a type pattern is compared by `mediatype.essence` and may end in `*`; an
annotation pattern is `key` or `key=value`; rows are tried in the order of the table and the first
that matches decides.
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
_BLANK = frozenset(
    {"", "application/vnd.unknown.artifact.v1", mediatype.OCTET_STREAM, mediatype.OCI_EMPTY}
)


@dataclass(frozen=True, slots=True)
class ArtifactKind:
    """One kind.

    `types` are looked for in artifactType and in config.mediaType alike, since the same strings
    move between the two.

    `layer_types`, `layer_annotations` and `annotations` count where artifactType and config say
    nothing or "image". `all_layers`: every layer must have one of the types. `needs_layer` and
    `needs_title`: what must be there besides a type, for kinds that share one. `names`: layer type
    (or `annotation=value` of the layer) and file name; a name with `/` at its end is an archive
    shown as a directory, `{n}` in it counts the layers that this name is the custom for. `joined`:
    layers of these types are one file, cut into pieces, in order. `texts` and `layer_texts`: an
    annotation of the manifest, or of a layer, whose value is a file, and that file's name.
    `config_name`: the config blob is a part of the payload. `reads_config`: names come from the
    config blob.
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
    annotation_files: tuple[tuple[str, str], ...] = ()
    layer_annotation_files: tuple[tuple[str, str], ...] = ()
    config_file: str = ""
    reads_config: bool = False

    def accepts(self, layers: tuple[Descriptor, ...]) -> bool:
        """Whether what the row demands besides its type is there."""
        if self.required_layer_types and first_of_types(self.required_layer_types, layers) is None:
            return False
        if not self.required_title:
            return True
        return any(
            layer.annotations.get(TITLE, "").startswith(self.required_title) for layer in layers
        )

    def layer_match(self, layers: tuple[Descriptor, ...]) -> Descriptor | None:
        """The layer whose type says that this is the kind."""
        if not self.layer_types:
            return None
        if self.all_layers and not all(
            matches_any(self.layer_types, layer.media_type) for layer in layers
        ):
            return None
        return first_of_types(self.layer_types, layers)


def is_informative(artifact_type: str) -> bool:
    """Whether an artifactType says what something is: tools write some that say nothing, and some
    that say "image".
    """
    plain = mediatype.essence(artifact_type)
    return plain not in _BLANK and plain not in IMAGE_CONFIGS


@lru_cache(maxsize=4096)
def matches_any(patterns: tuple[str, ...], media_type: str) -> bool:
    """Whether a media type is one of the patterns; remembered, since a registry repeats few types
    many times.
    """
    plain = mediatype.essence(media_type)
    return any(plain.startswith(p[:-1]) if p.endswith("*") else plain == p for p in patterns)


def first_of_types(patterns: tuple[str, ...], layers: Iterable[Descriptor]) -> Descriptor | None:
    """The first layer of one of the types."""
    return next((layer for layer in layers if matches_any(patterns, layer.media_type)), None)


def matching_annotation(patterns: tuple[str, ...], annotations: Mapping[str, str]) -> str:
    """The key of the first pattern that the annotations fulfil, or empty."""
    for pattern in patterns:
        key, _, value = pattern.partition("=")
        if key in annotations and value in ("", annotations[key]):
            return key
    return ""
