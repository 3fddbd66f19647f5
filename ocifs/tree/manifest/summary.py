"""`summary.txt`: a manifest on one page, for users.

Rules that hold here:

- Pure. All facts come from the manifest and its config.
- The page names the field that determined the kind.
- Text from publishers has no control characters, and long values are cut.
- Referrers are listed only if the caller passes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ocifs.oci.descriptor import UNKNOWN_SIZE, Descriptor
from ocifs.oci.kinds.artifact import has_rootfs
from ocifs.oci.kinds.children import attached_to, child_name, child_role, platform_name
from ocifs.oci.kinds.claims import is_claim, subject_of
from ocifs.oci.kinds.classification import Classification
from ocifs.oci.kinds.payload import payload_files
from ocifs.oci.kinds.predicates import type_word
from ocifs.oci.manifest import Form, Manifest
from ocifs.printable import printable
from ocifs.tree.manifest.files import payload_paths
from ocifs.tree.manifest.referrers import Referrer
from ocifs.tree.manifest.rootfs import check_config
from ocifs.tree.manifest.times import CREATED, config_members

_TITLE, _VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"
# Characters of a value. The whole value is in `annotations/` or `config.json`.
_LONGEST = 160

# Used if no field decided. Fields have the names of the specification.
_DECIDED = {"": "no field declares a type", "form": "the structure of the manifest"}

NOT_VERIFIED = "not verified"

TableRow = tuple[str, ...]


def summarise(
    manifest: Manifest,
    classification: Classification,
    config: bytes | None,
    referrers: Sequence[Referrer] | None = None,
    tag: str = "",
) -> str:
    """The page. `referrers` are None if they were not requested. `tag`: the tag of the manifest."""
    facts = [(name, text) for name, text in _facts(manifest, classification, config) if text]
    facts += _trust(manifest, classification, tag)
    width = max(len(name) for name, _ in facts) + 2
    lines = [f"{name + ':':<{width}}{_clean(text)}" for name, text in facts]
    for heading, rows in (
        ("Children", _children(manifest)),
        ("Files", _files(manifest, classification, config)),
        ("Layers", _layers(manifest, config)),
        ("Referrers", [_referrer_row(referrer) for referrer in referrers or ()]),
        ("Annotations", sorted(manifest.annotations.items())),
    ):
        if rows:
            lines += ["", heading, *_table(rows)]
    return "\n".join(lines) + "\n"


def _referrer_row(referrer: Referrer) -> TableRow:
    trust = f"about this manifest, {NOT_VERIFIED}" if referrer.is_claim else ""
    word = referrer.word or type_word(referrer.artifact_type)
    return (referrer.kind, word, str(referrer.digest), trust)


def _trust(
    manifest: Manifest, classification: Classification, tag: str
) -> Iterable[tuple[str, str]]:
    """Of a signature or attestation: that it is not verified, and the manifest it is about."""
    if is_claim(classification):
        subject = subject_of(manifest, tag)
        about = f"about {subject}" if subject is not None else "its payload names its subject"
        yield "Trust", f"{NOT_VERIFIED}, {about}"


def human_size(size: int) -> str:
    """A size with a unit: `3.2 MiB`."""
    if size == UNKNOWN_SIZE:
        return "size unknown"
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def _facts(
    manifest: Manifest, classification: Classification, config: bytes | None
) -> Iterable[tuple[str, str]]:
    config_fields = config_members(config)
    description = classification.row.description
    flavours = "".join(f" [{flavour}]" for flavour in classification.flavours)
    yield "Kind", f"{classification.kind}{flavours}" + (f" — {description}" if description else "")
    yield "Name", _name(manifest, config_fields)
    # The line `Form` shows the same reason.
    value = "" if classification.value == manifest.form_reason else classification.value
    field = classification.decided_by
    decided = (_DECIDED.get(field, field), value)
    origin = classification.row.origin
    yield (
        "Decided by",
        ": ".join(part for part in decided if part) + (f", by {origin}" if origin else ""),
    )
    yield "Artifact type", classification.artifact_type
    yield "Media type", manifest.media_type
    known = manifest.form is not Form.UNKNOWN
    yield (
        "Form",
        f"{manifest.form.value}, by {manifest.form_reason}" if known else manifest.form_reason,
    )
    yield "Digest", str(manifest.digest)
    yield "Created", manifest.annotations.get(CREATED) or _text(config_fields.get("created"))
    yield (
        "Platform",
        "/".join(
            filter(
                None, (_text(config_fields.get(part)) for part in ("os", "architecture", "variant"))
            )
        ),
    )
    yield "Runs", _command(config_fields)
    if has_rootfs(manifest, classification):
        yield (
            "Warning",
            next((text for text in check_config(config, len(manifest.layers)) if text), ""),
        )
    yield "Subject", str(manifest.subject.digest) if manifest.subject else ""
    yield "Content", _amount("layer", manifest.layers)
    yield "Children", _amount("manifest", manifest.manifests, sizes=False)
    for note in manifest.notes:
        yield "Note", note


def _name(manifest: Manifest, config: dict[str, object]) -> str:
    """Title and version, from the annotations or, for Helm and others, from the config."""
    notes = manifest.annotations
    title = notes.get(_TITLE) or _text(config.get("name"))
    return f"{title} {notes.get(_VERSION) or _text(config.get('version'))}".strip() if title else ""


def _command(config: dict[str, object]) -> str:
    """The entry point and command of an image."""
    inner = config.get("config")
    members = inner if isinstance(inner, dict) else {}
    words = [members.get(part) for part in ("Entrypoint", "Cmd")]
    return " ".join(
        word for part in words if isinstance(part, list) for word in part if isinstance(word, str)
    )


def _amount(word: str, descriptors: Sequence[Descriptor], *, sizes: bool = True) -> str:
    if not descriptors:
        return ""
    count = f"{len(descriptors)} {word}{'s' * (len(descriptors) != 1)}"
    total = [descriptor.size for descriptor in descriptors]
    return f"{count}, {human_size(sum(total))}" if sizes and UNKNOWN_SIZE not in total else count


def _children(manifest: Manifest) -> list[TableRow]:
    """Number, role, name, type and digest. A child that is attached to another one is named by that
    one's platform.
    """
    platforms = {
        child.digest: platform_name(manifest, child)
        for child in manifest.manifests
        if child.platform
    }
    rows: list[TableRow] = []
    for n, child in enumerate(manifest.manifests):
        role, about = child_role(child), attached_to(child)
        name = platform_name(manifest, child) if role == "platform" and child.platform else ""
        if about is not None:
            name = f"of {platforms.get(about, about.short)}"
        elif role in ("artifact", "manifest", "unknown"):
            name = child_name(child)
        rows.append(
            (str(n), role, name, child.artifact_type or child.media_type, str(child.digest))
        )
    return rows


def _files(
    manifest: Manifest, classification: Classification, config: bytes | None
) -> list[TableRow]:
    """Size and name of each file in `files/`. None for images, whose layers are listed."""
    if classification.kind in ("image", "docker-schema1") or manifest.form is Form.UNKNOWN:
        return []
    payload = payload_files(manifest, classification, config)
    return [
        (
            human_size(item.size if item.member_size == UNKNOWN_SIZE else item.member_size),
            "/".join(part.decode(errors="replace") for part in path) + "/" * item.is_directory,
        )
        for path, item in zip(payload_paths(payload), payload, strict=True)
    ]


def _layers(manifest: Manifest, config: bytes | None) -> list[TableRow]:
    """Number, size, type and name of each layer.

    Without a name: the command that created it, if the config's history has one for each layer.
    """
    history = config_members(config).get("history")
    steps = (
        [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []
    )
    # A step with `empty_layer` has no layer (image-spec, config.md).
    commands = [_text(step.get("created_by")) for step in steps if not step.get("empty_layer")]
    if len(commands) != len(manifest.layers):
        commands = [""] * len(manifest.layers)
    return [
        (
            str(n),
            human_size(layer.size),
            layer.media_type,
            # A command may have several lines, and a row has one.
            layer.annotations.get(_TITLE) or " ".join(step.split()),
        )
        for n, (layer, step) in enumerate(zip(manifest.layers, commands, strict=True))
    ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _table(rows: Sequence[TableRow]) -> list[str]:
    cleaned = [tuple(_clean(cell) for cell in row) for row in rows]
    widths = [max(len(row[n]) for row in cleaned) for n in range(len(cleaned[0]))]
    return [
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cleaned
    ]


def _clean(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
    return printable(cut)
