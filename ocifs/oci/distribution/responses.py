"""Turns a registry's response into a value or an error.

`registry.connection`, `registry.client` and `registry.blobstream` call this module, on the event
loop. Bodies of lists are parsed in `pages`, bodies of errors in `error_body`.

Rules that hold here:

- Pure. The caller passes the time.
- The status decides, and not the body: registries send HTML and wrong error codes.
- Only a 404 means that something does not exist.
- Names of headers are in lower case.
"""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from ocifs.errors import AccessDenied, Malformed, NotFound, OcifsError, RateLimited, RegistryFailed
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.distribution.codings import codings
from ocifs.oci.distribution.endpoints import CONTROLS
from ocifs.oci.distribution.error_body import clean, error_codes, error_text
from ocifs.oci.distribution.headers import (
    LinkValue,
    field,
    optional_field,
    parse_content_range,
    parse_links,
    parse_number,
    parse_warnings,
)

_ABSENT = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN"})
# NOT_FOUND is Harbor's code.
_UNKNOWN = _ABSENT | {"BLOB_UNKNOWN", "NOT_FOUND"}
_WARNINGS = _LIMITS = 8  # warnings and limits of one response
_DATE_LENGTH = 64  # characters of a date in Retry-After


@dataclass(frozen=True, slots=True)
class ResponseRange:
    """The bytes in a 200 or 206: where they begin and end, and the size of the blob, if known."""

    start: int
    stop: int | None
    total: int | None


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, subject: str, now: float
) -> OcifsError:
    """The error for a status other than success.

    `subject`: the request and the server, as in `HOST/v2/: the registry`.
    `now`: seconds since the epoch, to evaluate a date in Retry-After.
    """
    detail = error_text(headers, body)
    text = f"{subject} answered {status}" + (f" ({detail})" if detail else "")
    if status == 404:
        absent = NotFound(text)
        absent.is_registry_error = bool(error_codes(body) & _UNKNOWN)
        return absent
    if status in (401, 403):
        denied = AccessDenied(
            text,
            hint="check the spelling and your credentials; many registries also deny access to "
            "repositories that do not exist",
        )
        denied.status = status
        return denied
    if status == 429:
        return RateLimited(
            text,
            retry_after=retry_after(headers, now),
            hint="the registry limits the rate of requests",
        )
    hint = ""
    # nginx, Go and Jetty mention https in their response to a request without TLS.
    if status == 400 and b"https" in body.lower():
        hint = "the registry requires TLS: leave out --plain-http"
    elif status >= 500:
        hint = "the registry, or a proxy in front of it, failed: try again later"
    return RegistryFailed(text, status=status, retry_after=retry_after(headers, now), hint=hint)


def is_registry_404(target: str, path: str, body: bytes) -> bool:
    """Whether a 404 after a redirect, at `path`, is a registry's response to `target`.

    Some front ends redirect to registries (registry.k8s.io): the path has the same end, and errors
    have codes. A storage host's 404 does not mean that a blob does not exist: the registry that
    sent the redirect has the blob.
    """
    if "BLOB_UNKNOWN" in error_codes(body) or (
        "/blobs/" not in target and error_codes(body) & _ABSENT
    ):
        return True
    requested = target.partition("?")[0]
    end = requested[max(requested.rfind(control) for control in CONTROLS) :]
    # Storage hosts use the same paths for blobs (decision 0240). Without a control, `end` is one
    # character.
    return "/blobs/" not in requested and len(end) > 1 and unquote(path).endswith(end)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds of Retry-After, a number or a date (RFC 9110, 10.2.3); None if it is missing."""
    text = optional_field(headers, "retry-after")
    seconds = parse_number(text)
    if seconds is not None:
        return float(seconds)
    if len(text) > _DATE_LENGTH:
        return None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def warnings(headers: Mapping[str, str]) -> list[str]:
    """A registry's warnings (distribution-spec "Warnings": `Warning: 299 - "text"`), cleaned."""
    return [
        clean(text)
        for text in islice(parse_warnings(optional_field(headers, "warning")), _WARNINGS)
    ]


def rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers RateLimit-Limit, RateLimit-Remaining and similar ones, by name."""
    named = [name for name in headers if name.startswith(("ratelimit", "x-ratelimit-"))]
    return {name: clean(headers[name]) for name in named[:_LIMITS]}


def remaining_requests(limits: Mapping[str, str]) -> int | None:
    """The requests that are left according to the headers of `rate_limits`; None if unknown.

    Docker Hub sends `76;w=21600`: the requests, and the window in seconds.
    """
    for name, value in limits.items():
        number = parse_number(value.partition(";")[0].strip())
        if name.endswith("remaining") and number is not None:
            return number
    return None


def next_page(url: str, headers: Mapping[str, str]) -> str | None:
    """The target of the next page from the Link header, resolved against `url`; None at the end.

    Raises Malformed if it is on another host.
    """
    text = field(headers, "link")
    links = parse_links(text)
    # If it were ignored, a list with missing pages would look complete (decision 0240).
    if text and not links:
        raise Malformed(f"invalid link to the next page of a list: {clean(text)!r}")
    link = _next_of(links)
    if link is None:
        return None
    # ValueError: an invalid port, or an invalid IPv6 address.
    try:
        target, base = urlsplit(urljoin(url, link.target)), urlsplit(url)
        same = target.hostname == base.hostname and _port(target, base.scheme) == _port(
            base, base.scheme
        )
    except ValueError:
        raise Malformed(
            f"invalid link to the next page of a list: {clean(link.target)!r}"
        ) from None
    # A link without a relation may have another purpose.
    if not same and not link.relations:
        return None
    if not same or target.username:
        raise Malformed(
            f"the link to the next page leads to another host: {clean(target.hostname or '')}"
        )
    # The scheme and port remain those of the endpoint, which a TLS proxy may hide from the
    # registry.
    return f"{target.path}?{target.query}" if target.query else str(target.path)


def _next_of(links: list[LinkValue]) -> LinkValue | None:
    """The link with the relation `next`, else the first link without a relation.

    Other clients also follow the latter.
    """
    for link in links:
        if "next" in link.relations:
            return link
    return next((link for link in links if not link.relations), None)


def _port(url: SplitResult, scheme: str) -> int | None:
    """The port of a link. A default port is replaced by that of `scheme`.

    A registry behind a TLS proxy may write `http://` into its links.
    """
    own = {"http": 80, "https": 443}
    return url.port if url.port not in (None, own.get(url.scheme)) else own.get(scheme)


def read_digest(headers: Mapping[str, str]) -> Digest | None:
    """The digest in Docker-Content-Digest; None if it is missing or not verifiable."""
    try:
        digest = Digest.parse(optional_field(headers, "docker-content-digest"))
    except Malformed:
        return None
    return digest if digest.verifiable else None


def read_head(headers: Mapping[str, str]) -> Descriptor | None:
    """The descriptor in the response to a HEAD of a manifest; None without digest or size."""
    digest, size = read_digest(headers), read_head_size(headers)
    if digest is None or size is None:
        return None
    return Descriptor(headers.get("content-type", ""), digest, size)


def read_head_size(headers: Mapping[str, str]) -> int | None:
    """The size in the response to a HEAD; None for a length that is not reliable.

    Some frameworks send a length of 0, and servers that encode content send the encoded length.
    """
    if codings(headers):
        return None
    return parse_number(headers.get("content-length", "")) or None


def read_size(status: int, headers: Mapping[str, str]) -> int | None:
    """The size of a blob from the response to a HEAD or range request; None if it is missing.

    A 416 also contains it (RFC 9110, 14.4).
    """
    if status == 200:
        return parse_number(optional_field(headers, "content-length"))
    content_range = parse_content_range(optional_field(headers, "content-range"))
    return None if content_range is None else content_range.total


def read_range(status: int, headers: Mapping[str, str], start: int) -> ResponseRange:
    """The bytes in the response to a range request.

    Raises Malformed for a 206 with another range.
    """
    if status == 200:
        size = parse_number(optional_field(headers, "content-length"))
        return ResponseRange(0, size, size)
    text = field(headers, "content-range")
    content_range = parse_content_range(text)
    if content_range is None or content_range.first is None or content_range.last is None:
        raise Malformed("a partial response has no valid Content-Range")
    # Some registries and caches answer with another range (decision 0251).
    if content_range.first != start or content_range.last < content_range.first:
        raise Malformed(f"requested the bytes from {start}, the response contains {clean(text)}")
    return ResponseRange(content_range.first, content_range.last + 1, content_range.total)
