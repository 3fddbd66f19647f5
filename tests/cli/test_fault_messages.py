"""Messages about faults of TLS, names, HTTP and FUSE: the host, the reason, and what to do.

None of them has text that is for the developers of a library.
"""

from __future__ import annotations

import datetime
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.registry.conftest import nobodys_home  # noqa: F401 (a fixture, for all tests here)
from tests.support.faults import Handler, Reply, fault_server, http
from tests.support.mount import run_ocifs

pytestmark = pytest.mark.servers

# Names of files, functions, classes, constants and codes of libraries.
RAW = re.compile(
    r"_ssl\.c|\[[A-Z0-9]+: |\[SSL|X509|Errno|\bhttpx\b|\bhttpcore\b|h11|\btrio\b|Traceback"
    r"|Exception|fuse_session|0x[0-9a-f]{4}|<class|bytearray|[a-z]+Error\b|getaddrinfo|EAI_|ENO[A-Z]+"
)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def assert_clear(text: str, *words: str) -> None:
    """A message of one line and a hint of one line, in the words of users."""
    assert not RAW.search(text), text
    lines = text.splitlines()
    assert lines[0].startswith("ocifs: ") and len(lines) == 2, text
    assert lines[1].startswith("  ") and len(lines[1]) > 12, text
    for word in words:
        assert word in text, text


def seen(tmp_path: Path, *words: str) -> str:
    done = run_ocifs(*words, cache=tmp_path, check=False)
    assert done.returncode in (1, 2)
    return done.stderr.decode()


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def untrusted(ca: trustme.CA) -> ssl.SSLContext:
    return context_of(trustme.CA().issue_cert("127.0.0.1"))


def expired(ca: trustme.CA) -> ssl.SSLContext:
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    return context_of(ca.issue_cert("127.0.0.1", not_after=past))


def other_name(ca: trustme.CA) -> ssl.SSLContext:
    return context_of(ca.issue_cert("registry.example.com"))


def wants_certificate(ca: trustme.CA) -> ssl.SSLContext:
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    return context


def old_protocol(ca: trustme.CA) -> ssl.SSLContext:
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.set_ciphers("AES128-SHA")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


TLS: list[tuple[Callable[[trustme.CA], ssl.SSLContext], str]] = [
    (untrusted, "the server's or its issuer's"),
    (expired, "certificate has expired"),
    (other_name, "the certificate is for another name"),
    (wants_certificate, "client certificate"),
    (old_protocol, "TLS with "),
]


@pytest.mark.parametrize(("make", "words"), TLS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_of_tls(
    make: Callable[[trustme.CA], ssl.SSLContext], words: str, tmp_path: Path
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with fault_server(lambda _: http(200), make(ca)) as server:
        port = server.host.rpartition(":")[2]
        text = seen(tmp_path, "ls", f"127.0.0.1:{port}/a:1", "--ca-file", str(tmp_path / "ca.pem"))
    assert_clear(text, words)


@pytest.mark.parametrize(
    "content", [b"", b"no certificate\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n"]
)
def test_a_file_without_a_certificate(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    text = seen(
        tmp_path, "ls", "registry.example.invalid/a:1", "--ca-file", str(tmp_path / "ca.pem")
    )
    assert_clear(text, f"no certificate authorities in {tmp_path}/ca.pem: invalid PEM data")


@pytest.mark.parametrize("host", ["nosuch.example.invalid", "a" * 63 + ".invalid"])
def test_a_name_that_does_not_exist(host: str, tmp_path: Path) -> None:
    assert_clear(seen(tmp_path, "ls", f"{host}/a:1"), f"the name {host} cannot be resolved")


def code(name: str) -> bytes:
    return b'{"errors":[{"code":"%s","message":"m"}]}' % name.encode()


def redirect(target: str) -> Reply:
    return http(307, location=target)


HTTP: list[tuple[Handler, str]] = [
    (lambda _: http(404, code("MANIFEST_UNKNOWN")), "/team/app has no tag 9.9"),
    (lambda _: http(404, code("NAME_UNKNOWN")), "/team/app has no tag 9.9"),
    (lambda _: http(404, code("NOT_FOUND")), "/team/app has no tag 9.9"),
    # Another web server: the address may be wrong.
    (lambda _: http(404, b"<html>nginx</html>"), "answered 404"),
    (lambda _: http(401), "requires a login"),
    (lambda _: http(401, www_authenticate='Basic realm="x"'), "requires a login"),
    (lambda _: http(401, www_authenticate="Negotiate"), "negotiate, which is not supported"),
    (lambda _: http(403, code("DENIED")), "answered 403"),
    (lambda _: http(500, b"Traceback of theirs"[:0]), "answered 500"),
    (lambda _: Reply(b"HTTP/1.1 abc\r\n\r\n"), ""),
    (lambda _: Reply(b"\x15\x03\x03\x00\x02\x02\x28"), ""),
    (lambda _: Reply(b""), ""),
    (lambda _: redirect("http://[::1"), "redirects"),
    (lambda _: redirect("gopher://example.com/x"), "scheme gopher"),
]


@pytest.mark.parametrize(("handler", "words"), HTTP, ids=range(len(HTTP)))
def test_a_fault_of_http(handler: Handler, words: str, tmp_path: Path) -> None:
    with fault_server(handler) as server:
        text = seen(tmp_path, "ls", f"{server.host}/team/app:9.9", "--timeout", "2")
    assert_clear(text, words)


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
@pytest.mark.parametrize("device", ["/dev/null", "/nonexistent"])
def test_a_fault_of_fuse(device: str, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    hide = (
        f"mount --bind {device} /dev/fuse" if device == "/dev/null" else "mount -t tmpfs none /dev"
    )
    program = f"{hide} || exit 77\n{sys.executable} -m ocifs mount --any {tmp_path}/mnt"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", program],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("mounts are not permitted here")
    assert_clear(done.stderr, f"cannot mount at {tmp_path}/mnt", "/dev/fuse")
