"""Name resolution that fails, TLS that fails, half-open, slow and lost connections."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from ocifs import errors
from ocifs.concurrency import deadline
from ocifs.content import Blob
from ocifs.oci.digest import Digest
from ocifs.registry.client import RegistryClient
from ocifs.settings import CacheSettings, Limits, NetworkSettings, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Reply, Request, fault_server, http, in_turn
from tests.support.proxy import proxy_to

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("nobodys_home")]

TAGS = b'{"tags": ["v1"]}'
CONTENT = random.Random(3).randbytes(200_000)
BLOB = Blob("a/b", Digest.of(CONTENT), len(CONTENT))
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def impatient(stall: float = 1.0, retries: int = 2) -> Settings:
    settings = Settings(limits=Limits(retries=retries))
    return replace(
        settings, timing=replace(settings.timing, stall_timeout=stall, connect_timeout=stall)
    )


# TLS. Hosts with TLS are reached through a proxy for which every name is the broken server.


def context_of(
    authority: trustme.CA, *names: str, until: datetime.datetime | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, not_after=until).configure_cert(context)
    return context


@asynccontextmanager
async def reaching(
    place: str, monkeypatch: pytest.MonkeyPatch, authority: Path | None = None
) -> AsyncIterator[RegistryClient]:
    with proxy_to(place) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
        settings = replace(impatient(), network=NetworkSettings(ca_file=authority))
        async with open_registry("registry.example", settings) as client:
            with trio.fail_after(60):
                yield client


TRY = {
    "expired": "renewed",
    "of another name": "the host name in the certificate",
    "of another authority": "no certificate in",
}
CERTIFICATES: dict[str, Callable[[trustme.CA], ssl.SSLContext]] = {
    "expired": lambda authority: context_of(authority, "registry.example", until=LONG_AGO),
    "of another name": lambda authority: context_of(authority, "other.example"),
    "of another authority": lambda authority: context_of(trustme.CA(), "registry.example"),
}


@pytest.mark.parametrize("name", CERTIFICATES)
async def test_a_certificate_that_does_not_hold_is_unreachable_and_nothing_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with fault_server(in_turn(http(200, TAGS)), CERTIFICATES[name](authority)) as server:
        async with reaching(server.host, monkeypatch, tmp_path / "ca.pem") as client:
            with pytest.raises(
                errors.Unreachable, match=r"TLS with registry\.example fails"
            ) as caught:
                await client.tags("a/b")
        assert type(caught.value) is errors.Unreachable
        assert TRY[name] in caught.value.hint
    assert server.requests == []


async def test_a_certificate_that_holds_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with fault_server(
        in_turn(http(200, TAGS)), context_of(authority, "registry.example")
    ) as server:
        async with reaching(server.host, monkeypatch, tmp_path / "ca.pem") as client:
            assert await client.tags("a/b") == ("v1",)


def ends(connection: socket.socket) -> None:
    connection.recv(4096)


def resets(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def says_something_else(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def breaks_off(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x16\x03\x03\x40\x00\x02")  # the head of a ServerHello that never comes


def falls_silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


@contextlib.contextmanager
def handshaking(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """`host:port` of a server that calls `act` with each connection, and then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            act(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("act", [ends, resets, says_something_else, breaks_off, falls_silent])
async def test_tls_that_breaks_in_the_handshake_is_unreachable(
    act: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with handshaking(act) as place:
        async with reaching(place, monkeypatch) as client:
            with pytest.raises(errors.Unreachable):
                await client.tags("a/b")


# Connections that are open at one end only.


@pytest.mark.parametrize("then", ["close", "reset", "stall"])
async def test_a_connection_that_the_other_end_has_forgotten_is_replaced(then: str) -> None:
    """It is reused after the first response. The registry then closes it, or is silent."""
    first = [http(200, TAGS, then="keep"), Reply(b"", then)]

    def handler(request: Request) -> Reply:
        return first.pop(0) if first else http(200, TAGS)

    with fault_server(handler) as server:
        async with open_registry(server.host, impatient(0.5)) as client:
            with trio.fail_after(60):
                assert await client.tags("a/b") == ("v1",)
                assert await client.tags("a/c") == ("v1",)
    assert server.connections == 2


# Lines that are slow, or break off.


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_any_number_of_forgotten_connections_costs_no_retry(then: str) -> None:
    """Six are kept, each is dropped when it is used again, and a request may fail once."""
    count, together = 6, threading.Barrier(6)

    def handler(request: Request) -> Reply:
        if request.target.startswith("/v2/first"):
            together.wait(60)
            return http(200, TAGS, then="keep")
        return http(200, TAGS) if server.connections > count else Reply(b"", then)

    with fault_server(handler) as server:
        async with open_registry(server.host, impatient(30, retries=1)) as client:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number in range(count):
                        nursery.start_soon(client.tags, f"first/{number}")
                assert server.connections == count
                assert await client.tags("second/0") == ("v1",)
    assert len(server.requests) == 2 * count + 1


async def test_a_registry_that_drops_every_connection_is_unreachable_and_asked_a_few_times() -> (
    None
):
    """Each question gets an answer to the one before, and none to itself."""
    first = [http(200, TAGS, then="keep")]

    def handler(request: Request) -> Reply:
        return first.pop() if first else Reply(b"")

    with fault_server(handler) as server:
        async with open_registry(server.host, impatient(30)) as client:
            assert await client.tags("a/b") == ("v1",)
            with pytest.raises(errors.Unreachable):
                await client.tags("a/c")
    assert len(server.requests) == 4  # the first, the one on its connection, two tries


@pytest.mark.parametrize("then", ["stall", "close", "reset"])
async def test_a_first_question_that_fails_once_on_loopback_is_repeated(then: str) -> None:
    """Whether there is TLS is found out by an answer, or by a connection that is lost, and never by
    silence, which has taken its time already.
    """
    first = [Reply(b"", then)]

    def handler(request: Request) -> Reply:
        return first.pop() if first else http(200, TAGS)

    with fault_server(handler, plain=True) as server:
        async with open_registry(server.host, impatient(0.5)) as client:
            assert await client.tags("a/b") == ("v1",)
    assert server.connections == (2 if then == "stall" else 3)


async def test_a_token_is_progress_for_those_who_wait_for_what_it_is_for() -> None:
    """A question may cost a challenge, a token and an answer, each of which may be slow."""
    moved: list[bool] = []

    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(200, b'{"token": "t"}')
        if "authorization" not in request.headers:
            realm = f'Bearer realm="http://{server.host}/token",service="s"'
            return http(401, www_authenticate=realm)
        moved.append(waiting.scope.deadline > first)
        return http(200, TAGS)

    with fault_server(handler) as server:
        async with open_registry(server.host, Settings()) as client:
            with deadline(60, 600) as waiting:
                first = waiting.scope.deadline
                assert await client.tags("a/b") == ("v1",)
    assert moved == [True]


async def test_a_byte_at_a_time_is_slow_and_not_silent() -> None:
    """It takes twice the stall time-out in all."""
    answer = replace(http(200, TAGS), slowly=0.13)
    with fault_server(in_turn(answer)) as server:
        async with open_registry(server.host, impatient(1.0)) as client:
            with trio.fail_after(60):
                assert await client.tags("a/b") == ("v1",)
    assert len(server.requests) == 1


@asynccontextmanager
async def reading(
    server: FaultServer, place: Path
) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """A reader of the whole blob through a cache."""
    settings = replace(impatient(), cache=CacheSettings(directory=place))
    async with open_registry(server.host, settings) as client, trio.open_nursery() as nursery:
        blobs = CachedBlobs(client, Disk(place), nursery, settings)
        with trio.fail_after(60):
            yield lambda: blobs.read_blob(BLOB, 0, BLOB.size)
        nursery.cancel_scope.cancel()


def span(request: Request) -> tuple[int, int]:
    if "range" not in request.headers:
        return 0, BLOB.size
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    return int(first), int(last) + 1


def given(request: Request, cut: int | None = None) -> Reply:
    """The part that was asked for, or only its first `cut` bytes of it."""
    start, stop = span(request)
    body = CONTENT[start:stop]
    extent = {"content_length": str(len(body))}
    if (start, stop) == (0, BLOB.size) and "range" not in request.headers:
        return http(200, body[:cut], **extent)
    return http(206, body[:cut], content_range=f"bytes {start}-{stop - 1}/{BLOB.size}", **extent)


async def test_a_401_in_the_middle_of_a_blob_is_answered_and_the_read_goes_on(
    tmp_path: Path,
) -> None:
    """The connection is lost in the middle, and the request for the rest needs another token."""
    tokens = ["first"]
    cut: list[int] = []

    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(200, json.dumps({"token": tokens[-1]}).encode())
        if request.headers.get("authorization") != f"Bearer {tokens[-1]}":
            return http(401, www_authenticate=f'Bearer realm="http://{server.host}/token"')
        if not cut:
            cut.append(1)
            tokens.append("second")
            return given(request, 100_000)
        return given(request)

    with fault_server(handler) as server:
        async with reading(server, tmp_path / "cache") as read:
            assert await read() == CONTENT
    assert sum(request.target.startswith("/token") for request in server.requests) == 2
    rest = [
        span(request)
        for request in server.requests
        if request.headers.get("authorization") == "Bearer second"
    ]
    assert all(start > 0 for start, _ in rest), "what had come was asked for again"


@pytest.mark.parametrize("status", [499, 502, 522, 530])
async def test_a_failure_that_passes_in_the_middle_of_a_blob_is_not_noticed(
    status: int, tmp_path: Path
) -> None:
    """The line breaks off in the middle, and the first question about the rest is answered by a
    gateway.
    """
    left = [lambda request: given(request, 100_000), lambda request: http(status, b"<html>")]
    with fault_server(lambda request: (left.pop(0) if left else given)(request)) as server:
        async with reading(server, tmp_path / "cache") as read:
            assert await read() == CONTENT
    assert all(span(request)[0] > 0 for request in server.requests[1:]), (
        "what had come was asked for again"
    )


async def test_ranges_that_are_refused_in_the_middle_of_a_blob_end_no_read(tmp_path: Path) -> None:
    def handler(request: Request) -> Reply:
        if "range" in request.headers and len(server.requests) > 1:
            return http(400)
        return given(request, None if len(server.requests) > 1 else 100_000)

    with fault_server(handler) as server:
        async with reading(server, tmp_path / "cache") as read:
            assert await read() == CONTENT
    assert len(server.requests) == 3


async def test_a_401_that_stays_in_the_middle_of_a_blob_is_a_refusal_and_never_an_end(
    tmp_path: Path,
) -> None:
    given_once: list[int] = []

    def handler(request: Request) -> Reply:
        if given_once:
            return http(401, www_authenticate='Basic realm="x"')
        given_once.append(1)
        return given(request, 100_000)

    with fault_server(handler) as server:
        async with reading(server, tmp_path / "cache") as read:
            with pytest.raises(errors.AccessDenied):
                await read()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_storm_that_does_not_pass_is_the_registrys_failure_and_bounded(
    status: int, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.2
    with fault_server(in_turn(http(status, b"<html>"))) as server:
        async with open_registry(server.host, Settings()) as client:
            with pytest.raises(errors.RegistryFailed):
                await client.tags("a/b")
    assert len(server.requests) == Settings().limits.retries


# Names that cannot be resolved.


async def test_a_name_that_does_not_exist_is_unreachable_and_not_absent() -> None:
    async with open_registry("nobody.invalid", impatient(5.0, 1)) as client:
        with trio.fail_after(60), pytest.raises(errors.Unreachable):
            await client.tags("a/b")


SAYS = {
    "nothing": None,
    "that it fails": 2,  # SERVFAIL (RFC 1035 section 4.1.1)
    "that there is no such name": 3,  # NXDOMAIN
    "that it refuses": 5,
}
RESOLVE = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


@contextlib.contextmanager
def name_server(code: int | None) -> Iterator[str]:
    """The address of a name server that answers every question with an error, or with nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.53.7.9", 53))

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    question, who = listener.recvfrom(4096)
                    if not question:
                        return
                    if code is not None:
                        listener.sendto(
                            question[:2] + bytes([0x81, 0x80 | code]) + question[4:], who
                        )

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield "127.53.7.9"
        finally:
            listener.sendto(b"", ("127.53.7.9", 53))
            thread.join(10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a name server of its own")
@pytest.mark.parametrize("said", SAYS)
def test_a_name_server_that_fails_is_an_outage_within_the_time_for_connections(
    said: str, tmp_path: Path
) -> None:
    with name_server(SAYS[said]) as address:
        (tmp_path / "resolv.conf").write_text(
            f"nameserver {address}\noptions timeout:30 attempts:5\n"
        )
        ls = [sys.executable, "-m", "ocifs", "ls", "--timeout=3", "registry.example/a/b"]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", RESOLVE, str(tmp_path / "resolv.conf"), *ls],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"the name registry\.example cannot be resolved|registry\.example does not respond"
        r"|timed out",
        done.stderr,
    )
