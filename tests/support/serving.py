"""A registry, as a handler of the fault server, that has one blob."""

from __future__ import annotations

from ocifs.oci.digest import Digest
from tests.support.faults import Handler, Reply, Request, http


def serving(content: bytes, digest: Digest) -> Handler:
    """It answers with `content`, whole or in ranges, whatever the digest says, and 404 to every
    other question.
    """

    def handle(request: Request) -> Reply:
        path = request.target.partition("?")[0]
        if path.endswith("/v2/"):
            return http(200)
        if not path.endswith(str(digest)):
            return http(404)
        if "range" not in request.headers:
            return http(200, content)
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1]
        return http(
            206, part, content_range=f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        )

    return handle
