"""Rows about the bytes of blobs and small responses: ranges and content codings."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ocifs.content import Blob
from ocifs.errors import AccessDenied, IntegrityError, LimitExceeded, Malformed, NotFound
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Form, parse_manifest
from ocifs.settings import Limits, Settings
from tests.registry.quirks import (
    BLOB,
    CONTENT,
    DIGEST,
    MANIFEST,
    TAGS,
    acting,
    quirk,
    read,
    with_tokens,
)
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Reply, Request, fault_server, http

SIZE = len(CONTENT)
BOUNDARY = b"--b\r\nContent-Range: bytes 10-19/%d\r\n\r\n%b\r\n--b--" % (SIZE, CONTENT[10:20])
ODD_RANGES: dict[str, Reply] = {
    **{
        str(status): http(status)
        for status in (204, 400, 403, 404, 405, 406, 410, 412, 416, 422, 500, 501, 505)
    },
    "no range": http(206, CONTENT[10:20]),
    "no range, all of it": http(206, CONTENT),
    "other range": http(206, CONTENT[:10], content_range=f"bytes 0-9/{SIZE}"),
    "backwards": http(206, CONTENT[10:20], content_range=f"bytes 10-5/{SIZE}"),
    "other size": http(206, CONTENT[10:20], content_range="bytes 10-19/7"),
    "beyond the end": http(206, CONTENT[10:20], content_range=f"bytes 10-{SIZE + 5}/*"),
    "a word": http(206, CONTENT[10:20], content_range="bytes some"),
    "all of it": http(206, CONTENT, content_range=f"bytes 10-19/{SIZE}"),
    "several parts": http(206, BOUNDARY, content_type="multipart/byteranges; boundary=b"),
    "200 with a range": http(200, CONTENT[10:20], content_range=f"bytes 10-19/{SIZE}"),
    "200 of a part": http(200, CONTENT[10:20]),
}


def without_ranges(reply: Reply) -> Callable[[Request], Reply]:
    """A registry that has the blob, and answers a range with `reply`."""
    return lambda request: reply if "range" in request.headers else http(200, CONTENT)


def ranged(server: FaultServer) -> int:
    return sum("range" in request.headers for request in server.requests)


@quirk("ranges-not-supported")
async def ranges_not_supported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, reply in ODD_RANGES.items():
        async with acting(without_ranges(reply)) as (client, server):
            for start in (10, 1000):
                assert await read(client, start, start + 10) == (0, CONTENT), name
            assert (len(server.requests), ranged(server)) == (3, 1), (
                name
            )  # the second read asks for the whole at once


@quirk("range-refused-for-good")
async def range_refused_for_good(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status, kind in ((404, NotFound), (403, AccessDenied)):
        async with acting(lambda request, status=status: http(status)) as (client, server):
            with pytest.raises(kind):
                await read(client, 10, 20)
            assert len(server.requests) == 2  # the answer for the whole is the verdict


@quirk("size-without-ranges")
async def size_without_ranges(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (204, 400, 403, 404, 405, 500, 501):

        def handler(request: Request, status: int = status) -> Reply:
            return http(405) if request.method == "HEAD" else without_ranges(http(status))(request)

        async with acting(handler) as (client, _):
            assert await client.blob_size("a/b", BLOB.digest) == SIZE


@quirk("whole-as-206")
async def whole_as_206(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = http(206, CONTENT, content_range=f"bytes 0-{SIZE - 1}/{SIZE}")
    async with acting(lambda request: whole) as (client, _):
        assert await read(client, 0, SIZE) == (0, CONTENT)
        assert await read(client, 10, 20) == (0, CONTENT)


def chunked(body: bytes, **headers: str) -> Reply:
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return http(200, data, content_length="", transfer_encoding="chunked", **headers)


LABELS = (
    "aws-chunked",
    "utf-8",
    "binary",
    "none",
    "identity",
    "",
    "gzip",
    "x-gzip",
    "GZIP",
    "deflate",
    "br",
    "zstd",
)


@quirk("content-encoding-of-raw-content")
async def content_encoding_of_raw_content(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = gzip.compress(CONTENT)
    for content in (CONTENT, layer):
        blob = Blob("a/b", Digest.of(content), len(content))
        span = f"bytes 10-19/{len(content)}"
        for label in (*LABELS, "gzip, aws-chunked"):
            for whole in (
                http(200, content, content_encoding=label),
                chunked(content, content_encoding=label),
            ):
                part = http(206, content[10:20], content_range=span, content_encoding=label)
                async with acting(
                    lambda request, whole=whole, part=part: (
                        part if "range" in request.headers else whole
                    )
                ) as (
                    client,
                    server,
                ):
                    assert await read(client, 10, 20, blob) == (10, content[10:20])
                    assert await read(client, 0, blob.size, blob) == (0, content)
                assert server.requests[0].headers["accept-encoding"] == "identity"


@quirk("gzip-anyway")
async def gzip_anyway(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = gzip.compress(CONTENT[:500]) + gzip.compress(CONTENT[500:])
    for label, body in (
        ("gzip", gzip.compress(CONTENT)),
        ("gzip", twice),
        ("deflate", zlib.compress(CONTENT)),
    ):
        for reply in (
            http(200, body, content_encoding=label),
            chunked(body, content_encoding=label),
        ):
            async with acting(lambda request, reply=reply: reply) as (client, _):
                assert await read(client, 0, SIZE) == (0, CONTENT)
                assert await read(client, 10, 20) == (0, CONTENT)
    longer = http(200, gzip.compress(CONTENT + b"?"), content_encoding="gzip")
    async with acting(lambda request: longer) as (client, _):
        with pytest.raises(IntegrityError):
            await read(client, 0, SIZE)


@quirk("gzip-of-small-answers")
async def gzip_of_small_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(reply: Reply) -> Reply:
        head, _, body = reply.data.partition(b"\r\n\r\n")
        kept = [
            line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")
        ]
        body = gzip.compress(body)
        return Reply(
            b"\r\n".join(
                [*kept, b"content-encoding: gzip", b"content-length: %d" % len(body), b"", body]
            )
        )

    def answer(request: Request) -> Reply:
        if "/tags/list" in request.target:
            return packed(
                TAGS
                if "/missing/" not in request.target
                else http(403, b'{"errors": "log in again"}')
            )
        found = packed(http(200, MANIFEST, docker_content_digest=str(DIGEST)))
        return (
            Reply(found.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            if request.method == "HEAD"
            else found
        )

    tokens = with_tokens(lambda: server, 'service="x"', answer)
    async with acting(
        lambda request: (
            packed(tokens(request)) if request.target.startswith("/token") else tokens(request)
        )
    ) as (
        client,
        server,
    ):
        assert await client.tags("a/b") == ("v1",)
        assert (await client.tagged("a/b", "v1")).body == MANIFEST
        assert (await client.resolve("a/b", "v1")).size == len(MANIFEST)
        assert (await client.manifest("a/b", DIGEST)).body == MANIFEST
        with pytest.raises(AccessDenied, match="log in again"):
            await client.tags("a/missing")
    bomb = http(200, gzip.compress(b" " * 1_000_000), content_encoding="gzip")
    settings = Settings(limits=replace(Limits(), answer_bytes=100_000))
    with fault_server(lambda request: bomb) as server:
        async with open_registry(server.host, settings) as client:
            with pytest.raises(LimitExceeded):
                await client.tags("a/b")
    async with acting(lambda request: http(200, b"\x1f\x8b no gzip", content_encoding="gzip")) as (
        client,
        _,
    ):
        with pytest.raises(Malformed):
            await client.tags("a/b")


@quirk("mislabelled-manifest")
async def mislabelled_manifest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with acting(lambda request: http(200, MANIFEST, content_type=mediatype.OCI_INDEX)) as (
        client,
        _,
    ):
        raw = await client.manifest("a/b", DIGEST)
    manifest = parse_manifest(raw.body, raw.digest, raw.media_type)
    assert manifest.form is Form.MANIFEST
    assert [
        mediatype.OCI_INDEX in note and mediatype.OCI_MANIFEST in note for note in manifest.notes
    ] == [True]
