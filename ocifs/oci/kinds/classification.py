"""The result of a classification, and helpers to make one.

Rules that hold here: pure and immutable; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ocifs.oci import mediatype
from ocifs.oci.kinds.kind import ArtifactKind, is_informative
from ocifs.oci.kinds.table import KINDS_BY_NAME
from ocifs.oci.manifest import Manifest

UNKNOWN_KINDS = frozenset({"artifact", "artifact-index", "files", "unknown"})
"""Kinds without a row in the table that identifies them."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The kind of a manifest.

    - `decided_by`: the field that decided. `value`: its value. `rule`: the name of the rule.
    - `also`: further kinds under which it is found: `sbom` for a bundle with an SBOM in it.
    - `own`: the row of a kind that the user declared.
    """

    kind: str
    artifact_type: str
    decided_by: str
    value: str
    rule: str
    flavours: tuple[str, ...] = field(default=())
    also: tuple[str, ...] = field(default=())
    own: ArtifactKind | None = field(default=None)

    @property
    def row(self) -> ArtifactKind:
        """The row of the kind. It has no fields except the name for a kind without a row."""
        return self.own or KINDS_BY_NAME.get(self.kind) or ArtifactKind(self.kind, "")

    def is_kind(self, kind: str) -> bool:
        """Whether the artifact is found under a kind."""
        return kind == self.kind or kind in self.also


def declared_type(manifest: Manifest) -> str:
    """The informative type of the artifact or of its config, or ""."""
    if is_informative(manifest.artifact_type):
        return manifest.artifact_type
    config = manifest.config
    return config.media_type if config is not None and is_informative(config.media_type) else ""


def shown_type(manifest: Manifest) -> str:
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
