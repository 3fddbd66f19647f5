"""The rules that compare a manifest with the rows of a table of kinds.

`artifact.py` applies them to ocifs' own table, and then to the kinds that the user declared.

Rules that hold here:

- Pure. An instance is shared by all threads; only its caches of bounded size change.
- No kind is mentioned by name.
- A rule returns None if no row matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ocifs.oci.descriptor import Descriptor
from ocifs.oci.kinds.classification import Classification, declared_type, shown_type
from ocifs.oci.kinds.kind import (
    PACKAGE_TYPE,
    ArtifactKind,
    is_informative,
    matches_any,
    matching_annotation,
)
from ocifs.oci.manifest import Form, Manifest

_CACHED_TYPES = 4096


class KindRules:
    """The rows of a table, grouped by the fields that the rules use.

    `own`: the rows were declared by the user, and classifications refer to them.
    """

    def __init__(self, kinds: Sequence[ArtifactKind], *, own: bool = False) -> None:
        self._own = own
        self._by_package = {
            (kind.package_type, kind.index): kind for kind in kinds if kind.package_type
        }
        self._typed = tuple(kind for kind in kinds if kind.types)
        self._index_typed = tuple(kind for kind in kinds if kind.index_types)
        self._indexes = tuple(kind for kind in kinds if kind.index and kind.annotations)
        self._annotated = tuple(
            kind
            for kind in kinds
            if not kind.index and (kind.annotations or kind.layer_annotations)
        )
        self._layered = tuple(kind for kind in kinds if kind.layer_types)
        # A registry repeats few types many times.
        self._of_types = lru_cache(_CACHED_TYPES)(self._find_of_types)
        self._of_layers = lru_cache(_CACHED_TYPES)(self._find_of_layers)

    def _find_of_types(self, media_type: str) -> tuple[ArtifactKind, ...]:
        """The rows for a type of an artifact or config."""
        return tuple(kind for kind in self._typed if matches_any(kind.types, media_type))

    def _find_of_layers(self, media_type: str) -> tuple[int, ...]:
        """The numbers of the rows for a type of a layer."""
        layered = enumerate(self._layered)
        return tuple(n for n, kind in layered if matches_any(kind.layer_types, media_type))

    def by_package(self, manifest: Manifest) -> Classification | None:
        """By the annotation of GitHub's packages."""
        value = manifest.annotations.get(PACKAGE_TYPE, "")
        # Homebrew gives a bottle and its index the same package type.
        kind = self._by_package.get((value, manifest.form is Form.INDEX))
        if kind is None:
            return None
        shown = declared_type(manifest) or value
        return self._found(kind, shown, f"annotations[{PACKAGE_TYPE}]", value, "package-type")

    def by_artifact_type(self, manifest: Manifest) -> Classification | None:
        """By `artifactType`."""
        value = manifest.artifact_type
        kind = self._of_type(value, manifest.layers)
        return (
            None
            if kind is None
            else self._found(kind, value, "artifactType", value, "artifact-type")
        )

    def by_config_type(self, manifest: Manifest) -> Classification | None:
        """By the media type of the config."""
        if manifest.config is None:
            return None
        value = manifest.config.media_type
        kind = self._of_type(value, manifest.layers)
        return (
            None
            if kind is None
            else self._found(kind, value, "config.mediaType", value, "config-type")
        )

    def _of_type(self, media_type: str, layers: tuple[Descriptor, ...]) -> ArtifactKind | None:
        if not is_informative(media_type):
            return None
        return next((kind for kind in self._of_types(media_type) if kind.accepts(layers)), None)

    def by_annotation(self, manifest: Manifest) -> Classification | None:
        """By an annotation of the manifest or of a layer."""
        for kind in self._annotated:
            key = matching_annotation(kind.annotations, manifest.annotations)
            if key:
                where, value = f"annotations[{key}]", manifest.annotations[key]
                return self._found(kind, shown_type(manifest), where, value, "annotation")
            for n, layer in enumerate(manifest.layers if kind.layer_annotations else ()):
                key = matching_annotation(kind.layer_annotations, layer.annotations)
                if key:
                    where, value = f"layers[{n}].annotations[{key}]", layer.annotations[key]
                    return self._found(kind, shown_type(manifest), where, value, "layer-annotation")
        return None

    def by_layer_type(self, manifest: Manifest) -> Classification | None:
        """By the media type of a layer."""
        candidates = {row for layer in manifest.layers for row in self._of_layers(layer.media_type)}
        for number in sorted(candidates):
            kind = self._layered[number]
            layer = kind.layer_match(manifest.layers)
            if layer is not None and kind.accepts(manifest.layers):
                where, value = f"layers[{manifest.layers.index(layer)}].mediaType", layer.media_type
                shown = shown_type(manifest) if kind.is_image else value
                return self._found(kind, shown, where, value, "layer-type")
        return None

    def by_index_type(self, manifest: Manifest) -> Classification | None:
        """By the `artifactType` of an index."""
        value = manifest.artifact_type
        if not is_informative(value):
            return None
        kind = next(
            (kind for kind in self._index_typed if matches_any(kind.index_types, value)), None
        )
        return (
            None
            if kind is None
            else self._found(kind, value, "artifactType", value, "artifact-type")
        )

    def by_index_annotation(self, manifest: Manifest) -> Classification | None:
        """By an annotation of an index."""
        for kind in self._indexes:
            key = matching_annotation(kind.annotations, manifest.annotations)
            if key:
                value = manifest.annotations[key]
                return self._found(kind, value, f"annotations[{key}]", value, "index-annotation")
        return None

    def any_of(self, manifest: Manifest) -> Classification | None:
        """By any of these rules, in the order of their reliability."""
        if manifest.form is Form.INDEX:
            return self.by_index_type(manifest) or self.by_index_annotation(manifest)
        return (
            self.by_artifact_type(manifest)
            or self.by_config_type(manifest)
            or self.by_annotation(manifest)
            or self.by_layer_type(manifest)
        )

    def _found(
        self, kind: ArtifactKind, artifact_type: str, where: str, value: str, rule: str
    ) -> Classification:
        own = kind if self._own else None
        return Classification(kind.name, artifact_type, where, value, rule, own=own)
