"""The same scripted registries, read by ocifs and by other clients.

The behaviour of the other clients is the oracle for docs/reference/registries.md.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from ocifs.content import Blob
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.settings import Settings
from tests.support.clients import open_registry
from tests.support.faults import FaultServer, Handler, Reply, Request, fault_server, http
from tests.support.secrets import keep_secret
from tests.support.tools import tool

pytestmark = pytest.mark.servers

LAYER = gzip.compress(os.urandom(5000), mtime=0)
CONFIG = json.dumps(
    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}
).encode()
PASSWORD = keep_secret("s3cr3t-of-the-field", "me:s3cr3t-of-the-field")


def described(data: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": described(CONFIG, mediatype.OCI_CONFIG),
        "layers": [described(LAYER, mediatype.OCI_LAYER_GZIP)],
    }
).encode()
BLOBS = {str(Digest.of(data)): data for data in (LAYER, CONFIG)}
BLOB = Blob("team/app", Digest.of(LAYER), len(LAYER))


def decent(request: Request) -> Reply:
    """A registry without faults."""
    path = urlsplit(request.target).path
    if path in ("/v2/", "/v2"):
        return http(200, b"{}")
    name = path.rpartition("/")[2]
    if "/blobs/" in path:
        return http(200, BLOBS[name], content_type="application/octet-stream")
    if "/manifests/" in path:
        return http(
            200,
            MANIFEST,
            content_type=mediatype.OCI_MANIFEST,
            docker_content_digest=str(Digest.of(MANIFEST)),
        )
    return http(404)


def more(reply: Reply, line: str) -> Reply:
    head, between, body = reply.data.partition(b"\r\n\r\n")
    return Reply(head + b"\r\n" + line.encode() + between + body, reply.then)


def with_token(realm: str, tokens: Handler) -> Callable[[FaultServer], Handler]:
    def of(server: FaultServer) -> Handler:
        def handler(request: Request) -> Reply:
            if request.target.startswith("/token"):
                return tokens(request)
            if request.headers.get("authorization") == "Bearer t0ken":
                return decent(request)
            return http(
                401,
                www_authenticate=f'Bearer realm="{realm.format(host=server.host)}",service="svc"',
            )

        return handler

    return of


GRANTED = http(200, b'{"token": "t0ken"}', content_type="application/json")
PACKED = http(
    200,
    gzip.compress(b'{"token": "t0ken"}'),
    content_type="application/json",
    content_encoding="gzip",
)


def redirecting(request: Request) -> Reply:
    return (
        GRANTED
        if request.target.startswith("/token/real")
        else http(307, location="/token/real?x=y")
    )


def wants_service(request: Request) -> Reply:
    return (
        GRANTED if parse_qs(urlsplit(request.target).query).get("service") == ["svc"] else http(400)
    )


def only_blobs(label: str) -> Callable[[FaultServer], Handler]:
    def labelled(request: Request) -> Reply:
        return (
            more(decent(request), f"content-encoding: {label}")
            if "/blobs/" in request.target
            else decent(request)
        )

    return lambda server: labelled


def burst(status: int) -> Callable[[FaultServer], Handler]:
    def of(server: FaultServer) -> Handler:
        left = [status]
        return lambda request: (
            http(left.pop()) if left and "/manifests/" in request.target else decent(request)
        )

    return of


def wants_login(server: FaultServer) -> Handler:
    right = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()

    def handler(request: Request) -> Reply:
        known = request.headers.get("authorization") == right
        return decent(request) if known else http(401, www_authenticate='Basic realm="x"')

    return handler


SERVERS: dict[str, Callable[[FaultServer], Handler]] = {
    "decent": lambda server: decent,
    "token-redirect": with_token("http://{host}/token", redirecting),
    "realm-with-a-query": with_token("http://{host}/token?", wants_service),
    "gzip-of-a-token": with_token("http://{host}/token", lambda request: PACKED),
    "odd-challenge": with_token("http://{host}/token", lambda request: GRANTED),
    "label-aws-chunked": only_blobs("aws-chunked"),
    "label-utf-8": only_blobs("utf-8"),
    "header-name": lambda server: lambda request: more(decent(request), "X Y: 1"),
    "burst-522": burst(522),
    "login-keys": wants_login,
}
# Clients that do not read what ocifs reads: the page names these differences.
UNREAD = {("burst-522", "skopeo")}
# Both keys of the login name the same host for these clients, which iterate over a Go map. Its
# order is random, so in some runs they send the refresh token instead of the password.
ATTEMPTS = {("login-keys", client): 8 for client in ("crane", "oras", "skopeo")}


def log_in(home: Path, host: str) -> Path:
    entries = {
        f"https://{host}/v1/": f"me:{PASSWORD}",
        f"https://{host}/v1/refresh-token": "me:refresh",
    }
    auths = {
        key: {"auth": base64.b64encode(text.encode()).decode()} for key, text in entries.items()
    }
    (home / "config.json").write_text(json.dumps({"auths": auths}))
    return home / "config.json"


def read_by(client: str, host: str, home: Path, authfile: Path) -> bytes | None:
    """The layer as another client reads it; None if it fails."""
    program = tool(client, home)
    name = f"{host}/team/app"
    if client == "crane":
        program("manifest", f"{name}:v1", check=False)
        return program("blob", f"{name}@{BLOB.digest}", check=False) or None
    if client == "oras":
        program("manifest", "fetch", "--plain-http", f"{name}:v1", check=False)
        return (
            program(
                "blob",
                "fetch",
                "--plain-http",
                "--output",
                "-",
                f"{name}@{BLOB.digest}",
                check=False,
            )
            or None
        )
    options = ["--src-tls-verify=false", "--src-authfile", authfile, "--insecure-policy"]
    program("copy", *options, f"docker://{name}:v1", f"dir:{home}/copied", check=False)
    copied = home / "copied" / BLOB.digest.encoded
    return copied.read_bytes() if copied.exists() else None


@pytest.mark.parametrize("client", ["ocifs", "crane", "oras", "skopeo"])
@pytest.mark.parametrize("name", SERVERS)
async def test_what_others_read_is_read(
    name: str, client: str, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "XDG_CACHE_HOME", f"{pwd.getpwuid(os.getuid()).pw_dir}/.cache"
    )  # where the tools are built
    with fault_server(lambda request: handler(request), plain=True) as server:
        handler = SERVERS[name](server)
        authfile = log_in(nobodys_home, server.host)
        if client == "ocifs":
            async with open_registry(server.host, Settings()) as registry:
                assert (await registry.tagged("team/app", "v1")).body == MANIFEST
                async with registry.open_blob(BLOB, 0, BLOB.size) as stream:
                    found: bytes | None = b"".join([piece async for piece in stream])
        else:
            for _ in range(ATTEMPTS.get((name, client), 1)):
                found = await trio.to_thread.run_sync(
                    read_by, client, server.host, nobodys_home, authfile
                )
                if found is not None:
                    break
    assert found == (None if (name, client) in UNREAD else LAYER)
