"""A token server for tests: gives tokens that Debian's docker-registry believes (distribution docs/content/spec/auth/token.md, jwt.md).

Rules that hold here: real signatures, by an authority made for the occasion; pulling is granted to one user and nobody else; ends with the
block.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

SERVICE, ISSUER = "registry of the tests", "token server of the tests"


@dataclass
class TokenServer:
    """A running server: `realm` is its address, `asked` the scopes of each request, `config` what a registry must be told."""

    realm: str
    config: str
    asked: list[tuple[str, ...]] = field(default_factory=list)


def _access(scopes: tuple[str, ...]) -> list[dict[str, object]]:
    split = [(scope.partition(":")[0], *scope.partition(":")[2].rpartition(":")[::2]) for scope in scopes]
    return [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in split]


@contextlib.contextmanager
def token_server(directory: Path, user: str, password: str) -> Iterator[TokenServer]:
    """A token server on a loopback port of its own, for the length of the block."""
    authority = trustme.CA()
    leaf = authority.issue_cert("tokens.example")
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            scopes = tuple(query.get("scope", ()))
            server.asked.append(scopes)
            allowed = self.headers.get("authorization") == expected and query.get("service") == [SERVICE]
            now = int(time.time())
            claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now}
            claims |= {"jti": str(now), "access": _access(scopes)}
            key, chain = leaf.private_key_pem.bytes(), [base64.b64encode(certificate).decode()]
            token = jwt.encode(claims, key, algorithm="ES256", headers={"x5c": chain}) if allowed else ""
            body = json.dumps({"token": token, "expires_in": 300}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    realm = f"http://127.0.0.1:{listening.server_port}/token"
    told = {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(directory / "authority.pem")}
    server = TokenServer(realm, f"auth: {json.dumps({'token': told})}\n")
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
