"""A handler of the fault server that serves one blob, as a registry does."""

from __future__ import annotations

from ocifs.oci.digest import Digest
from tests.support.faults import Handler, Reply, Request, http


def serving(content: bytes, digest: Digest) -> Handler:
    """Serve `content` for `digest`, even if they differ, whole or in ranges.

    All other requests are answered with 404.
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
