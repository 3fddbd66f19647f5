"""Parses manifests of every form into one value.

The form of a body is decided by the first of these that is known (image-spec, media-types.md
"Media Type Conflicts"; CVE-2021-41190):

1. the type in the descriptor that references it
2. its own `mediaType`
3. the Content-Type of the response
4. its structure

If the structure fits two forms, or contradicts the decided type, the form is UNKNOWN: the body can
be read, but nothing in it is interpreted.

Rules that hold here:

- Pure. Called on the event loop for small bodies, and in a worker thread for large ones.
- The original bytes are preserved. A manifest is never serialized again.
- A body that cannot be interpreted is UNKNOWN, with a reason, and not an error.
- A known form that breaks its own rules raises Malformed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from ocifs.errors import IntegrityError, Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import (
    UNKNOWN_SIZE,
    Descriptor,
    as_annotations,
    as_object,
    as_text,
    parse_descriptor,
)
from ocifs.oci.digest import Digest
from ocifs.oci.jsontext import load_json

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Form(Enum):
    """The structure of a manifest; the value is its name for display."""

    MANIFEST = "manifest"
    INDEX = "index"
    SCHEMA1 = "schema 1"
    ARTIFACT = "artifact manifest"
    UNKNOWN = "unknown"


_FORMS = {
    mediatype.OCI_MANIFEST: Form.MANIFEST,
    mediatype.DOCKER_MANIFEST: Form.MANIFEST,
    mediatype.OCI_INDEX: Form.INDEX,
    mediatype.DOCKER_LIST: Form.INDEX,
    mediatype.DOCKER_SCHEMA1: Form.SCHEMA1,
    mediatype.DOCKER_SCHEMA1_SIGNED: Form.SCHEMA1,
    mediatype.OCI_ARTIFACT_MANIFEST: Form.ARTIFACT,
    mediatype.ORAS_ARTIFACT_MANIFEST: Form.ARTIFACT,
}

_SHOWN = 100  # characters of a media type in a note
_DEFAULT_TYPES = {
    Form.MANIFEST: mediatype.OCI_MANIFEST,
    Form.INDEX: mediatype.OCI_INDEX,
    Form.SCHEMA1: mediatype.DOCKER_SCHEMA1,
    Form.ARTIFACT: mediatype.OCI_ARTIFACT_MANIFEST,
    Form.UNKNOWN: mediatype.OCTET_STREAM,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest.

    `layers`: in the order of application, also for schema 1, which lists them in reverse.
    `notes`: violations of the specification that do not prevent reading it, for display.
    """

    raw: bytes
    digest: Digest
    media_type: str
    form: Form
    form_reason: str
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    notes: tuple[str, ...] = ()


def verify_manifest(body: bytes, digest: Digest) -> None:
    """Raise IntegrityError unless the body has this digest.

    The digest of a signed schema 1 manifest is that of its payload without the signatures.
    """
    if digest.matches(body):
        return
    # Parsed only now: almost all manifests match directly.
    payload = signed_payload(body)
    if payload is None or not digest.matches(payload):
        raise IntegrityError(
            f"the manifest served for {digest} has another digest: "
            f"{Digest.of(body, digest.algorithm)}"
        )


def signed_payload(body: bytes) -> bytes | None:
    """A signed schema 1 manifest without its signatures; None for other bodies.

    The first signature's protected header contains the length of the part to use and the text to
    append to it (distribution docs/spec/manifest-v2-1.md, "Signed Manifests").
    """
    # Avoids decoding the JSON of other manifests.
    if b'"signatures"' not in body:
        return None
    try:
        signatures = as_object(load_json(body, "the manifest"), "the manifest")["signatures"]
        protected = (
            as_object(signatures[0], "signatures[0]")["protected"]
            if isinstance(signatures, list)
            else ""
        )
        header = as_object(
            load_json(_base64url(as_text(protected, "protected")), "protected"), "protected"
        )
        length, tail = (
            header["formatLength"],
            _base64url(as_text(header["formatTail"], "formatTail")),
        )
    except (Malformed, ValueError, KeyError, IndexError):
        return None
    return body[:length] + tail if isinstance(length, int) and 0 <= length <= len(body) else None


def digest_of_manifest(body: bytes) -> Digest:
    """The digest under which a registry serves this body."""
    payload = signed_payload(body)
    return Digest.of(body if payload is None else payload)


def parse_manifest(
    body: bytes, digest: Digest, served_type: str = "", descriptor_type: str = ""
) -> Manifest:
    """Parse a manifest. Raises Malformed.

    `served_type`: the Content-Type. `descriptor_type`: the type in the descriptor that references
    it.
    """
    try:
        members = as_object(load_json(body, "the manifest"), "the manifest")
    except Malformed as error:
        return Manifest(
            body,
            digest,
            descriptor_type or served_type or mediatype.OCTET_STREAM,
            Form.UNKNOWN,
            str(error),
        )
    own_type = members.get("mediaType")
    own = own_type if isinstance(own_type, str) else ""
    form, reason, media_type = _decide_form(members, own, served_type, descriptor_type)
    annotations = as_annotations(members.get("annotations"), "annotations")
    # Nothing in a body of unknown form is interpreted, not even its annotations (CVE-2021-41190).
    if form is Form.UNKNOWN:
        return Manifest(body, digest, media_type, form, reason)
    if form is Form.SCHEMA1:
        return Manifest(body, digest, media_type, form, reason, layers=_schema1_layers(members))
    return Manifest(
        raw=body,
        digest=digest,
        media_type=media_type,
        form=form,
        form_reason=reason,
        artifact_type=as_text(members.get("artifactType"), "artifactType"),
        config=_optional(members, "config") if form is Form.MANIFEST else None,
        layers=_descriptors(members, "blobs" if form is Form.ARTIFACT else "layers"),
        manifests=_descriptors(members, "manifests"),
        subject=_optional(members, "subject"),
        annotations=annotations,
        notes=(
            *(() if form is Form.ARTIFACT else _version_notes(members.get("schemaVersion"))),
            *_type_notes(own, served_type, descriptor_type),
        ),
    )


def _version_notes(version: object) -> tuple[str, ...]:
    """A note on a schemaVersion other than 2 (image-spec, manifest.md, image-index.md).

    Other tools may reject such a manifest or index.
    """
    if version == 2 and isinstance(version, int):
        return ()
    problem = (
        f"its schemaVersion is {json.dumps(version)[:40]}"
        if version is not None
        else "it has no schemaVersion"
    )
    return (f"{problem}, the specification requires 2",)


def _type_notes(own: str, served: str, descriptor: str) -> Iterator[str]:
    """Notes on types that contradict the manifest's own `mediaType`.

    Other tools may reject such a manifest (distribution-spec, "Pulling manifests").
    """
    for text, source in (
        (served, "it came with the Content-Type"),
        (descriptor, "its descriptor has the mediaType"),
    ):
        kind = mediatype.essence(text)
        if own and kind and kind not in _VAGUE and kind != mediatype.essence(own):
            yield f"{source} {text[:_SHOWN]}, its own mediaType is {own[:_SHOWN]}"


def _decide_form(
    members: dict[str, object], own: str, served: str, descriptor: str
) -> tuple[Form, str, str]:
    """The form, the reason for it, and the media type to display."""
    by_structure = _structure(members)
    candidates = (
        (descriptor, "its descriptor's mediaType"),
        (own, "its own mediaType"),
        (served, "the Content-Type it came with"),
    )
    for text, reason in candidates:
        form = _FORMS.get(mediatype.essence(text))
        if form is None:
            continue
        if by_structure not in (form, None):
            return (
                Form.UNKNOWN,
                f"{reason} is of the form {form.value}, its members of {by_structure.value}",
                text,
            )
        return form, reason, text
    # A specific but unknown type is displayed, and prevents a decision by structure.
    first = next(
        (text for text, _ in candidates if text and mediatype.essence(text) not in _VAGUE), ""
    )
    if by_structure in (None, Form.UNKNOWN) or first:
        return (
            Form.UNKNOWN,
            "unknown type and structure",
            first or served or mediatype.OCTET_STREAM,
        )
    return by_structure, "its members", _DEFAULT_TYPES[by_structure]


_VAGUE = frozenset(
    {mediatype.OCTET_STREAM, "application/json", "text/plain", "binary/octet-stream"}
)


def _structure(members: dict[str, object]) -> Form | None:
    """The form that has these members: None if there is none, UNKNOWN if there are several."""
    forms = set()
    if "manifests" in members:
        forms.add(Form.INDEX)
    if "layers" in members or "config" in members:
        forms.add(Form.MANIFEST)
    if "fsLayers" in members:
        forms.add(Form.SCHEMA1)
    if "blobs" in members:
        forms.add(Form.ARTIFACT)
    if len(forms) > 1:
        return Form.UNKNOWN
    return forms.pop() if forms else None


def _optional(members: dict[str, object], name: str) -> Descriptor | None:
    value = members.get(name)
    if not value:
        return None
    return parse_descriptor(value, name)


def _descriptors(members: dict[str, object], name: str) -> tuple[Descriptor, ...]:
    values = members.get(name)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise Malformed(f"not a JSON array: {name}")
    return tuple(parse_descriptor(value, f"{name}[{n}]") for n, value in enumerate(values))


def _schema1_layers(members: dict[str, object]) -> tuple[Descriptor, ...]:
    """The layers in the order in which they are applied, without the empty ones."""
    listed = members.get("fsLayers")
    if not isinstance(listed, list):
        raise Malformed("not a JSON array: fsLayers")
    digests = [
        as_text(as_object(layer, "fsLayers[]").get("blobSum"), "fsLayers[].blobSum")
        for layer in listed
    ]
    # `history` may be shorter than `fsLayers`, or missing.
    history = members.get("history")
    empty = [_is_empty_layer(entry) for entry in history] if isinstance(history, list) else []
    empty += [False] * (len(digests) - len(empty))
    filled = [text for text, is_empty in zip(digests, empty, strict=False) if not is_empty]
    return tuple(
        Descriptor(mediatype.DOCKER_LAYER_GZIP, Digest.parse(text), UNKNOWN_SIZE)
        for text in reversed(filled)
    )


def schema1_config(body: bytes) -> bytes | None:
    """The topmost layer's v1Compatibility (`created`, `os`, `config`), the config of schema 1.

    None if it is missing.
    """
    try:
        history = as_object(load_json(body, "the manifest"), "the manifest").get("history")
        top = as_object(history[0], "history[0]") if isinstance(history, list) and history else {}
        return as_text(top.get("v1Compatibility"), "history[0].v1Compatibility").encode() or None
    except (Malformed, UnicodeEncodeError):
        return None


def _is_empty_layer(entry: object) -> bool:
    """Whether an entry of `history` marks its layer as empty: its member `throwaway` is true."""
    try:
        text = as_text(
            as_object(entry, "history[]").get("v1Compatibility"), "history[].v1Compatibility"
        )
        return (
            as_object(load_json(text.encode(), "history[].v1Compatibility"), "history[]").get(
                "throwaway"
            )
            is True
        )
    except Malformed:
        return False


def _base64url(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
