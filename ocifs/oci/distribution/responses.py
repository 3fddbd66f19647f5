"""What a registry's answer means: a value, or an error of ours.

Rules that hold here: pure; the status decides before any body does (registries send HTML and wrong
codes); 404 is the only absence; what a list's entry cannot be is dropped, since Nexus sends null
and Artifactory digests among the tags; names of headers are lower case.
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
_WARNINGS = _LIMITS = 8  # of one answer
_DATE_LENGTH = 64  # characters of the longest date that Retry-After may have


@dataclass(frozen=True, slots=True)
class ResponseRange:
    """What a 206 or 200 gives: where it begins, where it ends, and the size of the whole as far as
    it is known.
    """

    start: int
    stop: int | None
    total: int | None


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, subject: str, now: float
) -> OcifsError:
    """The error that a status other than success means.

    `subject`: the question and the server, as in `HOST/v2/: the registry`. `now`: seconds since the
    epoch, for Retry-After as a date.
    """
    words = error_text(headers, body)
    text = f"{subject} answered {status}" + (f" ({words})" if words else "")
    if status == 404:
        return NotFound(text)
    if status in (401, 403):
        denied = AccessDenied(
            text,
            hint="is it spelt right, and do your credentials reach it? Many registries say this of what is not there",
        )
        denied.status = status
        return denied
    if status == 429:
        return RateLimited(
            text,
            retry_after=retry_after(headers, now),
            hint="the registry limits how often it is asked",
        )
    hint = ""
    if (
        status == 400 and b"https" in body.lower()
    ):  # in the words of nginx, Go and Jetty for a request without TLS
        hint = "the registry wants TLS: leave out --plain-http"
    elif status >= 500:
        hint = "the registry, or what stands before it, has trouble of its own: try again later"
    return RegistryFailed(text, status=status, retry_after=retry_after(headers, now), hint=hint)


def is_registry_404(target: str, path: str, body: bytes) -> bool:
    """Whether the 404 of another host, at `path`, is a registry's answer to `target` and not that
    of a storage host.

    Fronts redirect to registries (seen: registry.k8s.io), whose paths end alike and whose errors
    have codes. A storage host's 404 for a blob is not absence: the registry that sent us there has
    the blob.
    """
    if "BLOB_UNKNOWN" in error_codes(body) or (
        "/blobs/" not in target and error_codes(body) & _ABSENT
    ):
        return True
    asked = target.partition("?")[0]
    end = asked[max(asked.rfind(control) for control in CONTROLS) :]
    return "/blobs/" not in asked and len(end) > 1 and unquote(path).endswith(end)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that Retry-After asks for, given as a number or as a date (RFC 9110, 10.2.3); None
    when it does not say.
    """
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
    """What a registry wants people to know (distribution-spec "Warnings": `Warning: 299 - "text"`),
    cleaned and cut.
    """
    return [
        clean(text)
        for text in islice(parse_warnings(optional_field(headers, "warning")), _WARNINGS)
    ]


def rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """RateLimit-Limit, RateLimit-Remaining and their like, under the names that they came with."""
    named = [name for name in headers if name.startswith(("ratelimit", "x-ratelimit-"))]
    return {name: clean(headers[name]) for name in named[:_LIMITS]}


def next_page(url: str, headers: Mapping[str, str]) -> str | None:
    """The target of the next page from the Link header, resolved against `url`; None at the end.

    Raises Malformed for another host's.
    """
    text = field(headers, "link")
    links = parse_links(text)
    if text and not links:
        raise Malformed(f"the next page of a list has no address: {clean(text)!r}")
    link = _next_of(links)
    if link is None:
        return None
    try:
        target, here = urlsplit(urljoin(url, link.target)), urlsplit(url)
        same = target.hostname == here.hostname and _port(target, here.scheme) == _port(
            here, here.scheme
        )
    except ValueError:
        raise Malformed(f"the next page of a list has no address: {clean(link.target)!r}") from None
    if not same and not link.relations:
        return None
    if not same or target.username:
        raise Malformed(
            f"the next page of a list is said to be on another host: {clean(target.hostname or '')}"
        )
    return f"{target.path}?{target.query}" if target.query else str(target.path)


def _next_of(links: list[LinkValue]) -> LinkValue | None:
    """The link to the next page: one with that relation, else the first without a relation (which
    other clients follow).
    """
    for link in links:
        if "next" in link.relations:
            return link
    return next((link for link in links if not link.relations), None)


def _port(url: SplitResult, scheme: str) -> int | None:
    """The port; a registry behind a TLS proxy calls itself `http://`, so a scheme's own port is
    that of `scheme`.
    """
    own = {"http": 80, "https": 443}
    return url.port if url.port not in (None, own.get(url.scheme)) else own.get(scheme)


def read_digest(headers: Mapping[str, str]) -> Digest | None:
    """What Docker-Content-Digest names, or None where it is missing or names nothing that can be
    verified.
    """
    try:
        digest = Digest.parse(optional_field(headers, "docker-content-digest"))
    except Malformed:
        return None
    return digest if digest.verifiable else None


def read_head(headers: Mapping[str, str]) -> Descriptor | None:
    """What a HEAD of a manifest tells, or None when it leaves the digest or the size out."""
    digest, size = read_digest(headers), read_head_size(headers)
    if digest is None or size is None:
        return None
    return Descriptor(headers.get("content-type", ""), digest, size)


def read_head_size(headers: Mapping[str, str]) -> int | None:
    """The size of what a HEAD is about; None for a length that may be that of something else.

    Frameworks answer HEAD with a length of 0, and what encodes content gives the encoded length.
    """
    if codings(headers):
        return None
    return parse_number(headers.get("content-length", "")) or None


def read_size(status: int, headers: Mapping[str, str]) -> int | None:
    """The size of a whole blob as a HEAD or a range request tells it; None when it does not.

    A 416 tells it, too (RFC 9110, 14.4).
    """
    if status == 200:
        return parse_number(optional_field(headers, "content-length"))
    found = parse_content_range(optional_field(headers, "content-range"))
    return None if found is None else found.total


def read_range(status: int, headers: Mapping[str, str], start: int) -> ResponseRange:
    """Which bytes an answer to a range request has.

    Raises Malformed for a 206 that is not what was asked for.
    """
    if status == 200:
        size = parse_number(optional_field(headers, "content-length"))
        return ResponseRange(0, size, size)
    text = field(headers, "content-range")
    found = parse_content_range(text)
    if found is None or found.first is None or found.last is None:
        raise Malformed("a part of a blob came without a Content-Range")
    if found.first != start or found.last < found.first:
        raise Malformed(f"bytes from {start} were asked for and {clean(text)} came")
    return ResponseRange(found.first, found.last + 1, found.total)
