"""Reads the bodies of small responses, and translates error responses.

`Connection` calls this module from the task of a request. No state.

- Every body is bounded.
- A body that is encoded although identity was requested is decoded in a worker thread.
- An error of a storage host is a failure of the registry: neither absence nor a refusal. Only a
  registry's 404 means absence.
"""

from __future__ import annotations

import time
from contextlib import aclosing, suppress

import httpx

from ocifs.concurrency import in_thread, note_progress
from ocifs.errors import LimitExceeded, Malformed, OcifsError, RegistryFailed, Unreachable
from ocifs.oci.distribution.codings import codings, decoded
from ocifs.oci.distribution.error_body import error_text
from ocifs.oci.distribution.responses import error_of, is_registry_404
from ocifs.registry.http.transport import iter_body
from ocifs.registry.request import RegistryRequest


def headers_of(response: httpx.Response) -> dict[str, str]:
    """The headers of a response, with names in lower case."""
    return {name.lower(): value for name, value in response.headers.items()}


async def read_body(response: httpx.Response, request: RegistryRequest, host: str) -> bytes:
    """The whole body, decoded. Closes the response. Raises LimitExceeded."""
    name = f"{host}{request.path}"
    body = bytearray()  # a list would have an item for each piece, which may be of one byte
    try:
        if request.method == "HEAD":
            return b""
        async with aclosing(iter_body(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > request.limit:
                    setting = "manifest_bytes" if "/manifests/" in name else "answer_bytes"
                    raise LimitExceeded(
                        f"{name}: the response has more than {request.limit} bytes "
                        f"(limits.{setting})"
                    )
                note_progress()
    finally:
        await response.aclose()
    headers = headers_of(response)
    if not body or not codings(headers):
        return bytes(body)
    return await in_thread(decoded, headers, bytes(body), request.limit, name)


async def response_error(
    response: httpx.Response, request: RegistryRequest, host: str, limit: int, *, is_own: bool
) -> OcifsError:
    """The error for an unexpected response, which is closed.

    `limit`: bytes of the body to read. `is_own`: the response is from the registry's own origin,
    not from one that it redirects to.
    """
    headers, body = headers_of(response), await _read_prefix(response, limit)
    # The body is only for the message. The status counts even if the body cannot be decoded.
    with suppress(Malformed, LimitExceeded):
        body = decoded(headers, body, limit, host)
    subject = f"{host}{request.path}"
    status = response.status_code
    if status < 400:
        message = f"{subject}: the registry answered with an unexpected status: {status}"
        return RegistryFailed(message, status=status)
    if status == 407:
        return Unreachable(
            f"{subject}: the proxy requires credentials",
            hint="write http://NAME:PASSWORD@PROXY in http_proxy",
        )
    url = response.request.url
    server = "the registry" if is_own else f"{url.host}, to which the registry redirects,"
    # A host that got a header has sent a challenge before, so it is a registry, not storage
    # (docs/decisions/0250).
    is_registry = is_own or "authorization" in response.request.headers
    is_absent = status == 404 and is_registry_404(request.target, url.path, body)
    if not is_registry and status != 429 and not is_absent:
        text = error_text(headers, body)
        message = f"{subject}: {server} answered {status}"
        return RegistryFailed(f"{message} ({text})" if text else message, status=status)
    return error_of(status, headers, body, f"{subject}: {server}", time.time())


async def _read_prefix(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    try:
        if response.request.method != "HEAD":
            async with aclosing(iter_body(response)) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) >= limit:
                        break
    finally:
        await response.aclose()
    return bytes(body[:limit])
