"""Descriptors: how one piece of content points at another (image-spec, descriptor.md).

Rules that hold here: a descriptor either parses whole or is refused with Malformed, and the message
says which member; unknown members are ignored; embedded `data` is kept only when it has the size
and the digest that it claims.
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
"""The size of a layer of Docker's schema 1, which records none, and of a descriptor whose size is missing or cannot be true."""
_EMPTY_JSON_SIZE = 2

_ALGORITHMS = ("sha256", "sha512")
_EMPTY_JSON = frozenset(Digest.of(b"{}", algorithm) for algorithm in _ALGORITHMS)
_NO_BYTES = frozenset(Digest.of(b"", algorithm) for algorithm in _ALGORITHMS)
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What is known about a piece of content before it is read.

    `size` is in bytes, or UNKNOWN_SIZE.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING, hash=False)
    artifact_type: str = ""
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    data: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it is the empty descriptor, which stands for "no content here": `{}`, whatever
        type it is given.

        Tools older than the empty type give `{}` other types. The type alone means nothing
        (manifest.md, "Guidance for an Empty Descriptor").
        """
        return self.digest in _EMPTY_JSON and self.size in (_EMPTY_JSON_SIZE, UNKNOWN_SIZE)

    @property
    def embedded(self) -> bytes | None:
        """The content, when the descriptor carries it and it is what it claims to be; `{}` needs no
        registry either.
        """
        if self.is_empty:
            return b"{}"
        if self.data is None or len(self.data) != self.size or not self.digest.verifiable:
            return None
        return self.data if self.digest.matches(self.data) else None


def parse_descriptor(value: object, where: str) -> Descriptor:
    """Read a descriptor from decoded JSON; `where` names it in the error. Raises Malformed."""
    members = as_object(value, where)
    digest = Digest.parse(as_text(members.get("digest"), f"{where}.digest"))
    platform = members.get("platform")
    urls = members.get("urls") or []
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
    )


def as_object(value: object, where: str) -> dict[str, object]:
    """The value, when it is a JSON object; else Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"{where} is no JSON object")
    return value


def as_text(value: object, where: str) -> str:
    """The value, when it is a JSON string; empty for null or nothing; else Malformed."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{where} is no string")
    return value


def as_annotations(value: object, where: str) -> Mapping[str, str]:
    """A string map, read-only; values of other types are shown as JSON spells them, not refused."""
    if value is None:
        return _NOTHING
    members = as_object(value, where)
    return MappingProxyType(
        {key: text if isinstance(text, str) else _as_json(text) for key, text in members.items()}
    )


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _parse_size(value: object, digest: Digest, where: str) -> int:
    """The size in bytes; UNKNOWN_SIZE if it is missing, or if it is 0 and the digest is not that of
    no bytes.
    """
    if value is None:
        return UNKNOWN_SIZE
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise Malformed(f"{where}.size is not a size: {value!r}")
    return value if value or digest in _NO_BYTES else UNKNOWN_SIZE


def _parse_platform(members: dict[str, object]) -> Platform:
    def part(name: str) -> str:
        value = members.get(name)
        return value if isinstance(value, str) else ""

    features = members.get("os.features")
    listed = features if isinstance(features, list) else []
    return Platform(
        os=part("os"),
        architecture=part("architecture"),
        variant=part("variant"),
        os_version=part("os.version"),
        os_features=tuple(feature for feature in listed if isinstance(feature, str)),
    )


def _parse_data(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
