"""A token server for tests, with tokens that Debian's docker-registry accepts.

See distribution's docs/content/spec/auth/token.md and jwt.md.

Rules that hold here:
- The signatures are real, by a temporary authority.
- Only one user may pull, with a password (GET, Basic) or an identity token (POST, OAuth2).
- The server ends with the block.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.secrets import keep_secret

SERVICE, ISSUER = "registry of the tests", "token server of the tests"
LEEWAY = 60  # seconds for which distribution accepts an expired token


@dataclass
class TokenServer:
    """A running server.

    `asked` has the scopes of each request so far, and `given` the tokens. A token is valid for
    `lasts` seconds, and the response reports `says` seconds.
    """

    user: str
    password: str
    identity: str = ""
    realm: str = ""
    config: str = ""
    lasts: float = 300
    says: float = 300
    member: str = "token"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    def allows(self, method: str, authorization: str, query: Mapping[str, list[str]]) -> bool:
        if query.get("service") != [SERVICE]:
            return False
        if method == "POST":
            wanted = {
                "grant_type": ["refresh_token"],
                "refresh_token": [self.identity],
                "client_id": ["ocifs"],
            }
            return bool(self.identity) and all(
                query.get(name) == value for name, value in wanted.items()
            )
        return (
            authorization
            == "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        )


def _access(scopes: tuple[str, ...]) -> list[dict[str, object]]:
    split = [
        (scope.partition(":")[0], *scope.partition(":")[2].rpartition(":")[::2]) for scope in scopes
    ]
    return [
        {"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in split
    ]


@contextlib.contextmanager
def token_server(
    directory: Path, server: TokenServer, authority: trustme.CA | None = None, *, port: int = 0
) -> Iterator[TokenServer]:
    """A token server on a free loopback port, for the length of the block.

    It uses TLS if `authority` is given.
    """
    signer = trustme.CA()
    leaf = signer.issue_cert("tokens.example")
    signer.cert_pem.write_to_path(str(directory / "signer.pem"))
    certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).public_bytes(
        Encoding.DER
    )
    key, chain = leaf.private_key_pem.bytes(), [base64.b64encode(certificate).decode()]
    keep_secret(server.password, f"{server.user}:{server.password}", server.identity)

    def token(scopes: tuple[str, ...]) -> str:
        now = time.time()
        claims = {
            "iss": ISSUER,
            "sub": server.user,
            "aud": SERVICE,
            "exp": int(now + server.lasts - LEEWAY),
            "nbf": int(now) - 10,
        }
        claims |= {"iat": int(now) - 10, "jti": str(len(server.given)), "access": _access(scopes)}
        made = jwt.encode(claims, key, algorithm="ES256", headers={"x5c": chain})
        server.given.append(made)
        keep_secret(made)
        return made

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self._answer("GET", query, tuple(query.get("scope", ())))

        def do_POST(self) -> None:
            query = parse_qs(self.rfile.read(int(self.headers.get("content-length", "0"))).decode())
            self._answer("POST", query, tuple(query.get("scope", [""])[0].split()))

        def _answer(
            self, method: str, query: Mapping[str, list[str]], scopes: tuple[str, ...]
        ) -> None:
            server.asked.append(scopes)
            server.methods.append(method)
            allowed = server.allows(method, self.headers.get("authorization", ""), query)
            body = json.dumps(
                {server.member: token(scopes), "expires_in": server.says} if allowed else {}
            ).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listening = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if authority is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        # The handshake runs in the thread of its connection, so a stuck one blocks no other.
        listening.socket = context.wrap_socket(
            listening.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "http" if authority is None else "https"
    server.realm = f"{scheme}://127.0.0.1:{listening.server_port}/token"
    told = {
        "realm": server.realm,
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(directory / "signer.pem"),
    }
    server.config = f"auth: {json.dumps({'token': told})}\n"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
