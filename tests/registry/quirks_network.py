"""Rows about heads of responses, addresses, TLS and proxies."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trustme

from ocifs.errors import Unreachable
from ocifs.registry.config.endpoint import Endpoint
from ocifs.settings import Limits, NetworkSettings, Settings
from tests.registry.quirks import CONTENT, TAGS, acting, quirk, read
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Reply, fault_server, http


def with_line(reply: Reply, line: bytes, at: int = 1) -> Reply:
    lines = reply.data.split(b"\r\n")
    return Reply(b"\r\n".join([*lines[:at], line, *lines[at:]]), reply.then)


@quirk("illegal-header-names")
async def illegal_header_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (
        b"X Y: 1",
        b"X\xa0Y: 1",
        b": 1",
        b"(a): b",
        b"X Y: 1\r\n more: of it",
        "Gr\u00fc\u00dfe: 1".encode(),
    ):
        for at in (1, 3):
            async with acting(lambda request, line=line, at=at: with_line(TAGS, line, at)) as (
                client,
                _,
            ):
                assert await client.tags("a/b") == ("v1",), line
    spaced = Reply(TAGS.data.replace(b"content-length:", b"content-length :"), "close")
    async with acting(lambda request: spaced) as (client, _):
        assert await client.tags("a/b") == ("v1",)


class Names(trio.abc.HostnameResolver):
    """Every name has these addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in self._addresses
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@quirk("dead-address-of-storage")
async def dead_address_of_storage(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_server(lambda request: http(200, CONTENT)) as storage:
        port = storage.listener.getsockname()[1]
        with socket.socket() as dead, socket.socket() as first, socket.socket() as second:
            dead.bind(("127.0.0.9", port))
            dead.listen(0)  # a full queue: who comes now gets no answer
            for each in (first, second):
                each.setblocking(False)
                each.connect_ex(("127.0.0.9", port))
            trio.socket.set_custom_hostname_resolver(Names(["127.0.0.9", "127.0.0.9", "127.0.0.1"]))
            redirect = http(307, location=f"http://cdn.test:{port}/blob")
            async with acting(lambda request: redirect) as (client, _):
                with trio.fail_after(8):  # the timeout for a connection is 10 seconds
                    assert await read(client, 0, len(CONTENT)) == (0, CONTENT)


def serving(authority: trustme.CA, *, client: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        client.configure_trust(context)
    return context


async def tags(server: FaultServer, ca: Path | None = None) -> tuple[str, ...]:
    settings = Settings(limits=Limits(retries=1), network=NetworkSettings(ca_file=ca))
    async with open_registry(Endpoint(server.host, "https"), settings) as client:
        return await client.tags("a/b")


@quirk("tls-anchors")
async def tls_anchors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trustme.CA()
    middle = root.create_child_ca()
    leaf = middle.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    with fault_server(lambda request: TAGS, context) as server:
        kept = home / "containers/certs.d" / server.host
        kept.mkdir(parents=True)
        for name, pem in {
            "root": root.cert_pem,
            "middle": middle.cert_pem,
            "own": leaf.cert_chain_pems[0],
        }.items():
            pem.write_to_path(str(home / f"{name}.pem"))
            assert await tags(server, home / f"{name}.pem") == ("v1",), name
            pem.write_to_path(str(kept / "it.crt"))
            assert await tags(server) == ("v1",), name


@quirk("certs-d-with-a-file-that-cannot-be-read")
async def certs_d_with_a_file_that_cannot_be_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture | None = None
) -> None:
    authority = trustme.CA()
    with fault_server(lambda request: TAGS, serving(authority)) as server:
        kept = home / "containers/certs.d" / server.host
        (kept / "a-directory.crt").mkdir(parents=True)
        (kept / "gone.crt").symlink_to("nowhere")
        (kept / "empty.crt").write_bytes(b"")
        (kept / "der.crt").write_bytes(b"0\x82\x01")
        (kept / "lonely.cert").write_bytes(authority.cert_pem.bytes())
        authority.cert_pem.write_to_path(str(kept / "good.crt"))
        assert await tags(server) == ("v1",)


@quirk("client-certificate-missing")
async def client_certificate_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = serving(authority, client=authority)
        context.minimum_version = context.maximum_version = version
        with fault_server(lambda request: TAGS, context) as server:
            with pytest.raises(Unreachable) as caught:
                await tags(server, home / "ca.pem")
            assert server.host in str(caught.value) and "Error" not in str(caught.value)
            assert f"certs.d/{server.host} as NAME.cert with NAME.key" in caught.value.hint


@quirk("certificate-that-no-given-file-vouches-for")
async def certificate_that_no_given_file_vouches_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(str(home / "ca.pem"))
    with fault_server(lambda request: TAGS, serving(trustme.CA())) as server:
        with pytest.raises(Unreachable) as caught:
            await tags(server, home / "ca.pem")
        assert f"no certificate in {home}/ca.pem is the server's" in caught.value.hint
        with pytest.raises(Unreachable) as caught:
            await tags(server)
        assert "--ca-file" in caught.value.hint
    assert "_ssl.c" not in str(caught.value)


@quirk("redirect-to-tls-that-fails")
async def redirect_to_tls_that_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_server(lambda request: TAGS, serving(trustme.CA())) as other:
        async with acting(lambda request: http(307, location=f"https://{other.host}/x")) as (
            client,
            server,
        ):
            with pytest.raises(Unreachable) as caught:
                await client.tags("a/b")
            assert f"{server.host} redirects, and TLS with {other.host} fails" in str(
                caught.value
            ), caught.value
            assert "--plain-http" not in caught.value.hint


@quirk("no-proxy")
async def no_proxy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ocifs.registry.http.proxies import proxy_for

    entries = "example.com,10.9.9.0/24,other.example:5000,*.wild.example,.dot.example,end.example."
    environ = {"http_proxy": "http://10.9.9.1:3128", "no_proxy": entries}
    for host, port in (
        ("10.9.9.1", 8080),
        ("other.example", 5000),
        ("a.wild.example", None),
        ("a.dot.example", None),
        ("end.example", 80),
    ):
        assert proxy_for("http", host, port, environ) is None, host
    assert proxy_for("http", "other.example", 5001, environ) == "http://10.9.9.1:3128"


@quirk("proxy-that-refuses")
async def proxy_that_refuses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_server(lambda request: http(403)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.host}")
        async with open_registry("registry.example", Settings(limits=Limits(retries=1))) as client:
            with pytest.raises(Unreachable, match=f"the proxy {proxy.host} failed: 403") as caught:
                await client.tags("a/b")
    assert "https_proxy" in caught.value.hint
    async with open_registry("registry.example", Settings(limits=Limits(retries=1))) as client:
        with pytest.raises(Unreachable, match=r"the proxy 127\.0\.0\.1:\d+ refuses connections"):
            await client.tags("a/b")


@quirk("proxy-that-wants-credentials")
async def proxy_that_wants_credentials(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = NetworkSettings(plain_http=frozenset({"registry.example"}))
    with fault_server(lambda request: http(407, proxy_authenticate='Basic realm="x"')) as proxy:
        monkeypatch.setenv("all_proxy", f"http://{proxy.host}")
        for network in (plain, NetworkSettings()):
            settings = Settings(limits=Limits(retries=1), network=network)
            async with open_registry("registry.example", settings) as client:
                with pytest.raises(Unreachable, match="the proxy") as caught:
                    await client.tags("a/b")
            assert "http_proxy" in caught.value.hint and "the registry answered" not in str(
                caught.value
            )


@quirk("configured-certificates-that-cannot-be-read")
async def configured_certificates_that_cannot_be_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(home / "good.pem"))
    (home / "bad.pem").write_bytes(b"no PEM")
    with fault_server(lambda request: TAGS, serving(authority)) as server:
        for authorities in (
            (home / "good.pem", home / "bad.pem"),
            (home / "gone.pem", home / "good.pem"),
        ):
            site = Endpoint(
                server.host,
                "https",
                authorities=authorities,
                identities=((home / "bad.pem", None),),
            )
            async with open_registry(site, Settings()) as client:
                assert await client.tags("a/b") == ("v1",)


@quirk("status-line-without-a-reason")
async def status_line_without_a_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"tags": ["v1"]}).encode()
    for line in (b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 200 "):
        reply = Reply(line + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        async with acting(lambda request, reply=reply: reply) as (client, _):
            assert await client.tags("a/b") == ("v1",)
    async with acting(
        lambda request: Reply(
            b"HTTP/1.1 103 Early Hints\r\nlink: <a>; rel=b\r\nX Y: 1\r\n\r\n" + TAGS.data
        )
    ) as (
        client,
        _,
    ):
        assert await client.tags("a/b") == ("v1",)
