"""Chunked bodies: trailers are bounded in number and bytes, however they are split."""

from __future__ import annotations

import h11
import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs import errors
from ocifs.registry.http.chunks import TRAILER_BYTES, TRAILER_LINES, Chunks
from tests.registry.test_faults import asking
from tests.support.faults import Reply, fault_server, in_turn

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
FEW = b"a: b\r\n" * TRAILER_LINES
BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b" "])


def fed(data: bytes, cuts: list[int]) -> Chunks:
    chunks, at = Chunks(), 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        chunks.feed(data[at:cut])
        at = cut
    return chunks


def chunked(bodies: list[bytes], extension: bytes) -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(body), extension, body) for body in bodies)


def taken_by_h11(data: bytes) -> bool:
    """Whether h11 reads these bytes as a body, to its end."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(HEAD + data)
    try:
        while event := client.next_event():
            if isinstance(event, h11.EndOfMessage):
                return True
            if event is h11.NEED_DATA:
                return False
    except h11.RemoteProtocolError:
        return False
    return False


@given(BODIES, EXTENSIONS, st.integers(0, TRAILER_LINES), st.lists(st.integers(0, 300)))
def test_any_body_with_few_trailers_is_followed_to_its_end(
    bodies: list[bytes], extension: bytes, trailers: int, cuts: list[int]
) -> None:
    data = chunked(bodies, extension) + b"0\r\n" + b"a: b\r\n" * trailers + b"\r\n"
    chunks = fed(data, cuts)
    assert taken_by_h11(data) == chunks.done is True


@given(BODIES, EXTENSIONS, st.sampled_from([b"\r\n", b"\n"]), st.lists(st.integers(0, 900)))
def test_many_trailers_are_an_error_before_they_are_parsed(
    bodies: list[bytes], extension: bytes, end: bytes, cuts: list[int]
) -> None:
    start = chunked(bodies, extension) + b"000\r\n"
    for trailers in (
        b"a: b" + end,
        b"a:" + end,
        b"a:" + b"b" * (TRAILER_BYTES // TRAILER_LINES) + end,
    ):
        with pytest.raises(httpcore.RemoteProtocolError):
            fed(start + trailers * (TRAILER_LINES + 1) + end, cuts)
    with pytest.raises(httpcore.RemoteProtocolError):
        fed(start + b"a: " + b"b" * TRAILER_BYTES, cuts)


@given(st.lists(st.sampled_from([b"0", b"1", b"\r", b"\n", b"\r\n", b";", b" ", b"a", b":"])))
def test_whatever_h11_takes_for_a_body_ends_here_too(parts: list[bytes]) -> None:
    data = b"".join(parts)
    if taken_by_h11(data):
        assert fed(data, []).done
        with pytest.raises(httpcore.RemoteProtocolError):
            fed(b"0\r\n" + FEW + b"a: b\r\n" + data, [])


@pytest.mark.parametrize(("trailers", "accepted"), [(FEW, True), (FEW + b"a: b\r\n", False)])
@pytest.mark.parametrize("piece", [1, 40_000])
async def test_an_answer_with_many_trailers_is_unreachable(
    trailers: bytes, accepted: bool, piece: int
) -> None:
    body = b'{"tags": ["v1"]}' + b" " * 40_000
    bodies = [body[at : at + piece] for at in range(0, len(body), piece)]
    answer = HEAD + chunked(bodies, b"") + b"0\r\n" + trailers + b"\r\n"
    with fault_server(in_turn(Reply(answer))) as server:
        async with asking(server.host) as client:
            if accepted:
                assert await client.tags("a/b") == ("v1",)
            else:
                with pytest.raises(errors.Unreachable, match="trailers"):
                    await client.tags("a/b")
