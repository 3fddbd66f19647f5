"""Heads of responses: only illegal lines are removed, however the head is split."""

from __future__ import annotations

import h11
import httpcore
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ocifs.registry.http.heads import HEAD_LINES, Head
from ocifs.registry.http.sockets import DELAY, alternating, connect_first

GOOD = b"HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\nB:2\n\r\nbody X Y: 1\r\n"
ODD = b"HTTP/1.1 200 OK\r\nX Y: 1\r\n\tfolded\r\nA : 1\r\nB:2\r\n(c): 3\r\n\r\nbody X Y: 1\r\n"


def fed(data: bytes, cuts: list[int]) -> bytes:
    head, passed, at = Head(), b"", 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        passed += head.feed(data[at:cut])
        at = cut
    return passed + head.rest()


@given(st.lists(st.integers(0, len(ODD))))
def test_illegal_lines_are_taken_out_in_whatever_pieces_they_arrive(cuts: list[int]) -> None:
    assert fed(ODD, cuts) == b"HTTP/1.1 200 OK\r\nA: 1\r\nB:2\r\n\r\nbody X Y: 1\r\n"
    assert fed(GOOD, cuts) == GOOD
    assert fed(
        b"HTTP/1.1 100 Continue\r\n\r\n" + ODD, cuts
    ) == b"HTTP/1.1 100 Continue\r\n\r\n" + fed(ODD, [])
    assert (
        fed(b"HTTP/1.1 101 Switching\r\n\r\nX Y: 1\r\n", cuts)
        == b"HTTP/1.1 101 Switching\r\n\r\nX Y: 1\r\n"
    )


@given(
    st.binary() | st.binary().map(lambda data: b"HTTP/1.1 200 OK\r\n" + data),
    st.lists(st.integers(0, 99)),
)
def test_any_bytes_pass_the_same_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    assert fed(data, cuts) == fed(data, [])
    if not data.startswith(b"HTTP/"):
        assert fed(data, cuts) == data


@given(
    st.lists(
        st.tuples(st.text("aX-_.", min_size=1, max_size=9), st.text("ab :,", max_size=9)),
        max_size=9,
    )
)
def test_what_h11_accepts_passes_as_it_is(fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}: {value.strip()}\r\n" for name, value in fields)
    data = f"HTTP/1.1 200 OK\r\n{lines}content-length: 0\r\n\r\n".encode()
    assert fed(data, []) == data
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.receive_data(data)
    assert isinstance(client.next_event(), h11.Response)


def test_a_head_has_few_lines_and_a_line_is_bounded() -> None:
    with pytest.raises(httpcore.RemoteProtocolError):
        Head().feed(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * HEAD_LINES)
    with pytest.raises(httpcore.RemoteProtocolError):
        Head().feed(b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_LINES)
    head = Head()
    long = b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000
    assert head.feed(long) == long
    assert head.done and not head.complete


def test_the_head_says_whether_its_body_comes_in_chunks() -> None:
    for line, chunked in (
        (b"Transfer-Encoding: Chunked", True),
        (b"X Y: chunked", False),
        (b"X-Y: chunked", False),
        (b"transfer-encoding:\r\n chunked", True),
        (b"a: b", False),
    ):
        head = Head()
        head.feed(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n")
        assert (head.complete, head.chunked) == (True, chunked)


class Closing(httpcore.AsyncNetworkStream):
    def __init__(self) -> None:
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


async def test_a_dead_address_costs_a_delay_and_a_refused_one_nothing(autojump_clock) -> None:
    live = Closing()

    async def connect(address: str) -> httpcore.AsyncNetworkStream:
        if address == "dead":
            await trio.sleep(10)
            raise httpcore.ConnectTimeout
        if address == "refused":
            raise httpcore.ConnectError(address)
        return live

    for addresses, cost in (
        (["live", "dead"], 0.0),
        (["dead", "live"], DELAY),
        (["dead", "dead", "live"], 2 * DELAY),
        (["refused", "live"], 0.0),
    ):
        began = trio.current_time()
        assert await connect_first(addresses, connect) is live
        assert trio.current_time() - began == pytest.approx(cost)
    with pytest.raises(httpcore.ConnectError):
        await connect_first(["refused", "refused"], connect)
    with pytest.raises(httpcore.ConnectTimeout):
        await connect_first(["refused", "dead"], connect)
    assert not live.closed


async def test_a_connection_that_nobody_waits_for_any_more_is_closed(autojump_clock) -> None:
    made: list[Closing] = []

    async def connect(address: str) -> httpcore.AsyncNetworkStream:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        made.append(Closing())
        return made[-1]

    first = await connect_first(["a", "b"], connect)
    assert [each.closed for each in made] == [False, True] and first is made[0]
    late = None
    with trio.move_on_after(0.5):
        late = await connect_first(["a"], connect)
    assert made[-1].closed or late is made[-1]


def test_families_take_turns() -> None:
    assert alternating(["a::1", "a::2", "a::3", "1.1.1.1", "2.2.2.2"]) == [
        "a::1",
        "1.1.1.1",
        "a::2",
        "2.2.2.2",
        "a::3",
    ]
    assert alternating(["1.1.1.1", "2.2.2.2"]) == ["1.1.1.1", "2.2.2.2"]
    assert alternating([]) == []
