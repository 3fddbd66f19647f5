"""`summary.txt`: one page that tells a person what a manifest is.

Rules that hold here: pure; what is said comes from the manifest and its config alone, with the field that decided; text from strangers
loses its control characters, so that a page on a terminal stays a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ocifs.oci.artifact import Classification
from ocifs.oci.children import child_role
from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.manifest import Form, Manifest
from ocifs.tree.times import CREATED, config_members

TITLE = "org.opencontainers.image.title"


def summarise(manifest: Manifest, classification: Classification, config: bytes | None) -> str:
    """The page."""
    facts = [(name, text) for name, text in _facts(manifest, classification, config) if text]
    width = max(len(name) for name, _ in facts) + 2
    lines = [f"{name + ':':<{width}}{_clean(text)}" for name, text in facts]
    for heading, rows in (
        ("Children", [_child(n, child) for n, child in enumerate(manifest.manifests)]),
        ("Layers", [_layer(n, layer) for n, layer in enumerate(manifest.layers)]),
        ("Annotations", [(name, value) for name, value in sorted(manifest.annotations.items())]),
    ):
        if rows:
            lines += ["", heading, *_table(rows)]
    return "\n".join(lines) + "\n"


def human_size(size: int) -> str:
    """A size as people read it: `3.2 MiB`."""
    if size == UNKNOWN_SIZE:
        return "size unknown"
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def _facts(manifest: Manifest, classification: Classification, config: bytes | None) -> Iterable[tuple[str, str]]:
    said = config_members(config)
    system, architecture = said.get("os"), said.get("architecture")
    yield "Kind", " ".join((classification.kind, *(f"[{flavour}]" for flavour in classification.flavours)))
    yield (
        "Decided by",
        f"{classification.decided_by}: {classification.value}" if classification.value else classification.decided_by,
    )
    yield "Artifact type", classification.artifact_type
    yield "Media type", manifest.media_type
    yield (
        "Form",
        f"{manifest.form.value}, by {manifest.form_reason}"
        if manifest.form is not Form.UNKNOWN
        else manifest.form_reason,
    )
    yield "Digest", str(manifest.digest)
    yield "Created", manifest.annotations.get(CREATED) or str(said.get("created") or "")
    yield "Platform", f"{system}/{architecture}" if isinstance(system, str) and isinstance(architecture, str) else ""
    yield "Subject", str(manifest.subject.digest) if manifest.subject else ""
    sizes = [layer.size for layer in manifest.layers]
    yield "Content", f"{len(sizes)} layers, {human_size(sum(sizes))}" if sizes and UNKNOWN_SIZE not in sizes else ""


def _child(number: int, child: Descriptor) -> tuple[str, ...]:
    role = child_role(child)
    what = str(child.platform) if role == "platform" and child.platform else role
    return (str(number), what, child.artifact_type or child.media_type, str(child.digest))


def _layer(number: int, layer: Descriptor) -> tuple[str, ...]:
    return (str(number), human_size(layer.size), layer.media_type, layer.annotations.get(TITLE, ""))


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    cleaned = [tuple(_clean(cell) for cell in row) for row in rows]
    widths = [max(len(row[n]) for row in cleaned) for n in range(len(cleaned[0]))]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cleaned
    ]


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
