"""nginx in front of a registry: TLS with the tests' authority, and optional client certificates.

Rules that hold here:
- It listens on a free loopback port, and ends with the block.
- Its access log has each request, with the headers that tests compare.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.ports import free_port

START_SECONDS = 60.0
NAMES = (
    "registry.example",
    "registry-1.docker.io",
    "auth.docker.io",
    "production.cloudflare.docker.com",
)

CONFIG = """{user}
daemon off;
worker_processes 1;
pid {here}/nginx.pid;
error_log {here}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
  map $http_authorization $scheme_of_it {{
    default other; "" -; "~^Bearer " Bearer; "~^Basic " Basic;
  }}
  log_format asked '$request_method $request_uri $server_protocol $status auth="$scheme_of_it" '
    'agent="$http_user_agent" cookie="$http_cookie" connection=$connection '
    'client=$ssl_client_verify';
  access_log {here}/access.log asked;
  client_body_temp_path {here}/body;
  proxy_temp_path {here}/proxied;
  fastcgi_temp_path {here}/fastcgi;
  uwsgi_temp_path {here}/uwsgi;
  scgi_temp_path {here}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl{http2};
    ssl_certificate {here}/server.pem;
    ssl_certificate_key {here}/server.key;
    {client}
    client_max_body_size 0;
    location / {{
      {serve}
    }}
  }}
}}
"""
PROXY = """proxy_pass http://{upstream};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
      proxy_buffering off;"""


def before(upstream: str) -> str:
    """The configuration of a location that forwards all requests to `upstream` (host:port)."""
    return PROXY.format(upstream=upstream)


@dataclass(frozen=True)
class Front:
    """A running nginx.

    `host` is host:port, `ca` the authority of its certificate, and `log` its access log.
    """

    host: str
    ca: Path
    log: Path

    def asked(self) -> list[str]:
        """A line for each request so far.

        The only worker logs a request before it answers the next one.
        """
        place, _, port = self.host.partition(":")
        with socket.create_connection((place, int(port)), 10) as connection:
            connection.sendall(b"GET /looked HTTP/1.0\r\n\r\n")
            while connection.recv(4096):
                pass
        return [line for line in self.log.read_text().splitlines() if " /looked " not in line]


@contextlib.contextmanager
def tls_front(
    directory: Path,
    authority: trustme.CA,
    serve: str,
    *,
    http2: bool = False,
    client_ca: trustme.CA | None = None,
) -> Iterator[Front]:
    """nginx with a certificate of `authority` and the configuration `serve` (see `before`)."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), "nginx must be there in CI: see scripts/setup"
        pytest.skip("nginx is not installed")
    directory.mkdir(exist_ok=True)
    leaf = authority.issue_cert("127.0.0.1", "localhost", *NAMES)
    leaf.cert_chain_pems[0].write_to_path(str(directory / "server.pem"))
    leaf.private_key_pem.write_to_path(str(directory / "server.key"))
    authority.cert_pem.write_to_path(str(directory / "ca.crt"))
    client = ""
    if client_ca is not None:
        client_ca.cert_pem.write_to_path(str(directory / "clients.pem"))
        client = f"ssl_verify_client on;\n    ssl_client_certificate {directory}/clients.pem;"
    port = free_port()
    text = CONFIG.format(
        here=directory,
        port=port,
        http2=" http2" if http2 else "",
        client=client,
        serve=serve,
        user="user root;" if os.getuid() == 0 else "",
    )
    (directory / "nginx.conf").write_text(text)
    (directory / "access.log").touch()
    command = [
        program,
        "-p",
        str(directory),
        "-e",
        str(directory / "nginx.log"),
        "-c",
        str(directory / "nginx.conf"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port, process, directory / "nginx.log")
        yield Front(f"127.0.0.1:{port}", directory / "ca.crt", directory / "access.log")
    finally:
        process.terminate()
        process.wait(60)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
            return
        time.sleep(0.02)  # there is no event for this
    raise RuntimeError(f"nginx did not answer: {log.read_text() if log.exists() else ''}")
