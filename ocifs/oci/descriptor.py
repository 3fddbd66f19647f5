"""Descriptors: media type, digest and size of other content (image-spec, descriptor.md).

Rules that hold here:

- A descriptor parses as a whole or raises Malformed. The message names the member.
- Unknown members are ignored.
- Embedded `data` is used only if its size and digest match the descriptor.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ocifs.errors import Malformed
from ocifs.oci.digest import Digest
from ocifs.oci.platform import Platform

UNKNOWN_SIZE = -1
"""The size of schema 1 layers, which record none, and of descriptors without a plausible size."""

_EMPTY_JSON_SIZE = 2

_ALGORITHMS = ("sha256", "sha512")
_EMPTY_JSON = frozenset(Digest.of(b"{}", algorithm) for algorithm in _ALGORITHMS)
_NO_BYTES = frozenset(Digest.of(b"", algorithm) for algorithm in _ALGORITHMS)
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size of a blob or manifest, and its annotations.

    `size` is in bytes, or UNKNOWN_SIZE. `name` is a member that only Ollama writes.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    artifact_type: str = ""
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    data: bytes | None = None
    name: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether this is the empty descriptor: the content `{}`, of any media type.

        Tools that predate the empty type label `{}` differently, so the type is not compared
        (manifest.md, "Guidance for an Empty Descriptor").
        """
        return self.digest in _EMPTY_JSON and self.size in (_EMPTY_JSON_SIZE, UNKNOWN_SIZE)

    @property
    def embedded(self) -> bytes | None:
        """The embedded content if there is any and it is valid; `{}` for the empty descriptor."""
        if self.is_empty:
            return b"{}"
        if self.data is None or len(self.data) != self.size or not self.digest.verifiable:
            return None
        return self.data if self.digest.matches(self.data) else None


def parse_descriptor(value: object, where: str) -> Descriptor:
    """Parse a descriptor from decoded JSON. Raises Malformed.

    `where` names the descriptor in the error.
    """
    members = as_object(value, where)
    digest = Digest.parse(as_text(members.get("digest"), f"{where}.digest"))
    # `urls` and `data` are optional hints: invalid ones are ignored.
    platform = members.get("platform")
    urls = members.get("urls") or []
    name = members.get("name")
    return Descriptor(
        media_type=as_text(members.get("mediaType"), f"{where}.mediaType"),
        digest=digest,
        size=_parse_size(members.get("size"), digest, where),
        annotations=as_annotations(members.get("annotations"), f"{where}.annotations"),
        artifact_type=as_text(members.get("artifactType"), f"{where}.artifactType"),
        platform=None
        if platform is None
        else _parse_platform(as_object(platform, f"{where}.platform")),
        urls=tuple(url for url in urls if isinstance(url, str)) if isinstance(urls, list) else (),
        data=_parse_data(members.get("data")),
        name=name if isinstance(name, str) else "",
    )


def as_object(value: object, where: str) -> dict[str, object]:
    """The value as a JSON object. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"not a JSON object: {where}")
    return value


def as_text(value: object, where: str) -> str:
    """The value as a JSON string, empty if it is null or missing. Raises Malformed."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"not a string: {where}")
    return value


def as_annotations(value: object, where: str) -> Mapping[str, str]:
    """A read-only map of strings. Values of other types are converted to JSON text."""
    if value is None:
        return _NOTHING
    members = as_object(value, where)
    return MappingProxyType(
        {key: text if isinstance(text, str) else _as_json(text) for key, text in members.items()}
    )


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _parse_size(value: object, digest: Digest, where: str) -> int:
    """The size in bytes; UNKNOWN_SIZE if it is missing, or 0 with a digest of other content."""
    if value is None:
        return UNKNOWN_SIZE
    # bool is a subclass of int. The size is a signed 64-bit integer (descriptor.md).
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise Malformed(f"not a size: {where}.size is {value!r}")
    return value if value or digest in _NO_BYTES else UNKNOWN_SIZE


def _parse_platform(members: dict[str, object]) -> Platform:
    def part(name: str) -> str:
        value = members.get(name)
        return value if isinstance(value, str) else ""

    features = members.get("os.features")
    names = features if isinstance(features, list) else []
    return Platform(
        os=part("os"),
        architecture=part("architecture"),
        variant=part("variant"),
        os_version=part("os.version"),
        os_features=tuple(name for name in names if isinstance(name, str)),
    )


def _parse_data(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
