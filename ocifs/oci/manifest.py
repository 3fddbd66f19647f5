"""Manifests of every form that is out there, read into one value.

Which form a body has is decided in this order (image-spec, media-types.md "Media Type Conflicts";
CVE-2021-41190): the type in the descriptor that led to it, its own `mediaType`, the Content-Type
that it came with, its structure. A body whose structure fits two forms, or contradicts the type
that was decided, is shown raw and nothing in it is interpreted: its form is UNKNOWN.

Rules that hold here: the bytes are kept as they came and never written again; what is not
understood is kept as UNKNOWN with a reason, since an unknown manifest is still readable; a known
form that breaks its own rules raises Malformed.
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
    """What shape a manifest has; the value is a word for people."""

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

    `layers` are in the order in which they are applied, also for schema 1, whose own order is the
    reverse.

    `notes`: what is odd about it without making it unreadable, for people.
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
    """Raise IntegrityError unless the body is what the digest names; a signed schema 1 is named by
    its payload alone.
    """
    if digest.matches(body):
        return
    payload = signed_payload(body)
    if payload is None or not digest.matches(payload):
        raise IntegrityError(
            f"the manifest served for {digest} has another digest: {Digest.of(body, digest.algorithm)}"
        )


def signed_payload(body: bytes) -> bytes | None:
    """What a signed schema 1 manifest was before its signatures were put in, or None for anything
    else.

    The first signature's protected header says how many bytes of the body to keep and what to
    append (distribution docs/spec/manifest-v2-1.md, "Signed Manifests").
    """
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
    """The digest by which a registry knows this body."""
    payload = signed_payload(body)
    return Digest.of(body if payload is None else payload)


def parse_manifest(
    body: bytes, digest: Digest, served_type: str = "", descriptor_type: str = ""
) -> Manifest:
    """Read a manifest.

    `served_type` is the Content-Type, `descriptor_type` the type of the descriptor that led here.
    Raises Malformed.
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
    """Other tools may refuse a manifest or an index whose schemaVersion is not 2 (image-spec,
    manifest.md, image-index.md).
    """
    if version == 2 and isinstance(version, int):
        return ()
    found = (
        f"its schemaVersion is {json.dumps(version)[:40]}"
        if version is not None
        else "it has no schemaVersion"
    )
    return (f"{found}, the specification wants 2",)


def _type_notes(own: str, served: str, descriptor: str) -> Iterator[str]:
    """Types that contradict the manifest's own one.

    Other tools may refuse it (distribution-spec, "Pulling manifests").
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
    """Form, why, and the media type to show."""
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
                f"{reason} says {form.value}, its members say {by_structure.value}",
                text,
            )
        return form, reason, text
    first = next(
        (text for text, _ in candidates if text and mediatype.essence(text) not in _VAGUE), ""
    )
    if by_structure in (None, Form.UNKNOWN) or first:
        return (
            Form.UNKNOWN,
            "no type or structure that is known",
            first or served or mediatype.OCTET_STREAM,
        )
    return by_structure, "its members", _DEFAULT_TYPES[by_structure]


_VAGUE = frozenset(
    {mediatype.OCTET_STREAM, "application/json", "text/plain", "binary/octet-stream"}
)


def _structure(members: dict[str, object]) -> Form | None:
    """The form that the members fit: None when they fit none, UNKNOWN when they fit two that
    differ.
    """
    found = set()
    if "manifests" in members:
        found.add(Form.INDEX)
    if "layers" in members or "config" in members:
        found.add(Form.MANIFEST)
    if "fsLayers" in members:
        found.add(Form.SCHEMA1)
    if "blobs" in members:
        found.add(Form.ARTIFACT)
    if len(found) > 1:
        return Form.UNKNOWN
    return found.pop() if found else None


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
        raise Malformed(f"{name} is no JSON array")
    return tuple(parse_descriptor(value, f"{name}[{n}]") for n, value in enumerate(values))


def _schema1_layers(members: dict[str, object]) -> tuple[Descriptor, ...]:
    """The layers in the order in which they are applied, without those that history calls empty."""
    listed = members.get("fsLayers")
    if not isinstance(listed, list):
        raise Malformed("fsLayers is no JSON array")
    digests = [
        as_text(as_object(layer, "fsLayers[]").get("blobSum"), "fsLayers[].blobSum")
        for layer in listed
    ]
    history = members.get("history")
    thrown = [_is_throwaway(entry) for entry in history] if isinstance(history, list) else []
    thrown += [False] * (len(digests) - len(thrown))
    kept = [text for text, throwaway in zip(digests, thrown, strict=False) if not throwaway]
    return tuple(
        Descriptor(mediatype.DOCKER_LAYER_GZIP, Digest.parse(text), UNKNOWN_SIZE)
        for text in reversed(kept)
    )


def schema1_config(body: bytes) -> bytes | None:
    """What schema 1 has in place of a config: the topmost layer's v1Compatibility, with `created`,
    `os` and `config`; None without it.
    """
    try:
        history = as_object(load_json(body, "the manifest"), "the manifest").get("history")
        top = as_object(history[0], "history[0]") if isinstance(history, list) and history else {}
        return as_text(top.get("v1Compatibility"), "history[0].v1Compatibility").encode() or None
    except (Malformed, UnicodeEncodeError):
        return None


def _is_throwaway(entry: object) -> bool:
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
