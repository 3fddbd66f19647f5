"""A registry with mirrors: real registries, and faulty servers on real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trustme

from ocifs.app import open_tree
from ocifs.content import Blob
from ocifs.errors import CatalogUnavailable, IntegrityError, NotFound, OcifsError, Unreachable
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.reference import RegistrySource
from ocifs.registry.config.registries_conf import parse
from ocifs.registry.config.routes import RouteTable
from ocifs.registry.mirrors.mirrored import MirroredRegistry
from ocifs.settings import CacheSettings, NetworkSettings, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.disk import Disk
from ocifs.tree.node import File
from ocifs.tree.walk import walk
from tests.support.clients import open_mirrored
from tests.support.faults import Reply, Request, fault_server, http
from tests.support.nginx import before, tls_front
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.secrets import keep_secret
from tests.support.serving import serving

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("nobodys_home")]

LAYER = random.Random(8).randbytes(3 << 20)
DIGEST = Digest.of(LAYER)
BLOB = Blob("team/app", DIGEST, len(LAYER))
SMALL = random.Random(9).randbytes(200_000)
LARGE_SIZE = 64 << 20
LARGE = random.Random(10).randbytes(LARGE_SIZE)
LARGE_DIGEST = Digest.of(LARGE)
IMAGE = {
    "schemaVersion": 2,
    "mediaType": mediatype.OCI_MANIFEST,
    "config": {"mediaType": mediatype.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2},
    "layers": [{"mediaType": mediatype.OCI_LAYER, "digest": str(DIGEST), "size": len(LAYER)}],
}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The registry that the mirrors mirror."""
    with running_registry(tmp_path_factory.mktemp("origin")) as running:
        for content in (b"{}", LAYER, SMALL, LARGE):
            push_blob(running.url, "team/app", content)
        push_manifest(running.url, "team/app", IMAGE, "v1")
        yield running


def through_cache(origin: Registry, directory: Path) -> AbstractContextManager[Registry]:
    """Debian's registry as a pull-through cache of another."""
    directory.mkdir(exist_ok=True)
    return running_registry(directory, more=f"proxy: {{remoteurl: {origin.url}}}\n")


def impatient(mirror_timeout: float = 10.0) -> Settings:
    settings = Settings()
    timing = replace(
        settings.timing,
        mirror_timeout=mirror_timeout,
        mirror_pause=1000.0,
        connect_timeout=2,
        stall_timeout=1,
        timeout=20,
    )
    return replace(settings, timing=timing)


def conf(host: str, *mirrors: str, more: str = "") -> RouteTable:
    tables = "".join(f'[[registry.mirror]]\nlocation = "{mirror}"\n{more}\n' for mirror in mirrors)
    return RouteTable(
        parse(f'[[registry]]\nlocation = "{host}"\n{tables}', "conf"), Path("/nonexistent")
    )


@dataclass
class Asked:
    """A registry with its mirrors, and a cache that reads from it."""

    mirrored: MirroredRegistry
    blobs: CachedBlobs

    async def read(self, blob: Blob = BLOB, step: int = 1 << 20) -> bytes:
        pieces = [await self.blobs.read_blob(blob, at, step) for at in range(0, blob.size, step)]
        return b"".join(pieces)

    def told(self, url: str) -> dict[str, object]:
        endpoints = self.mirrored.facts()["endpoints"]
        assert isinstance(endpoints, list)
        return next(each for each in endpoints if each["url"] == url)


@asynccontextmanager
async def asking(
    host: str, routes: RouteTable, tmp_path: Path, settings: Settings | None = None
) -> AsyncIterator[Asked]:
    settings = settings or impatient()
    with trio.fail_after(60):
        async with (
            trio.open_nursery() as nursery,
            open_mirrored(host, routes, settings) as mirrored,
        ):
            yield Asked(
                mirrored, CachedBlobs(mirrored, Disk(tmp_path / "cache"), nursery, settings)
            )
            nursery.cancel_scope.cancel()


def ours(registry: Registry, what: str) -> list[str]:
    """The requests for something that came from ocifs, and not from the mirror."""
    return [
        line
        for line in registry.log.read_text(errors="replace").splitlines()
        if what in line and '"ocifs/' in line
    ]


async def test_a_pull_through_cache_serves_what_it_can_and_lists_nothing(
    origin: Registry, tmp_path: Path
) -> None:
    with through_cache(origin, tmp_path / "mirror") as mirror:
        async with asking(origin.host, conf(origin.host, mirror.host), tmp_path) as asked:
            found = await asked.mirrored.resolve("team/app", "v1")
            assert (await asked.mirrored.manifest("team/app", found.digest)).digest == found.digest
            assert (await asked.mirrored.tagged("team/app", "v1")).digest == found.digest
            assert await asked.read() == LAYER
            assert await asked.mirrored.tags("team/app") == ("v1",)
            assert await asked.mirrored.repositories() == ("team/app",)
            assert asked.told(mirror.host)["bytes_received"] >= len(
                LAYER
            )  # more where a cold cache answers ranges with the whole
            assert asked.told(origin.host)["bytes_received"] == 0
            assert asked.told(mirror.host)["state"] == "well"
        assert ours(mirror, str(DIGEST))
        assert not ours(origin, str(DIGEST))
        assert ours(origin, "/_catalog") and ours(origin, "/tags/list")
        assert not ours(mirror, "/_catalog") and not ours(mirror, "/tags/list")


async def test_a_mirror_that_stops_in_the_middle_of_a_read_is_not_noticed(
    origin: Registry, tmp_path: Path
) -> None:
    with through_cache(origin, tmp_path / "mirror") as mirror:
        async with asking(origin.host, conf(origin.host, mirror.host), tmp_path) as asked:
            blob = Blob("team/app", LARGE_DIGEST, LARGE_SIZE)
            hasher = hashlib.sha256(await asked.blobs.read_blob(blob, 0, 65536))
            mirror.stop()
            for at in range(65536, blob.size, 1 << 20):
                hasher.update(await asked.blobs.read_blob(blob, at, 1 << 20))
            assert hasher.hexdigest() == LARGE_DIGEST.encoded
            assert asked.told(mirror.host)["state"] == "failing"
            assert asked.told(origin.host)["bytes_received"] > 0


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_registry_that_breaks_off_once_while_its_mirror_is_down_is_asked_on(
    tmp_path: Path, then: str
) -> None:
    """The lost connection makes no pause: the read resumes at once, and so does every other."""
    whole, broken = serving(LAYER, DIGEST), [True]

    def handle(request: Request) -> Reply:
        reply = whole(request)
        head, _, body = reply.data.partition(b"\r\n\r\n")
        if broken and len(body) > 1:
            broken.clear()
            return Reply(head + b"\r\n\r\n" + body[: len(body) // 2], then)
        return reply

    with fault_server(handle) as server, fault_server(lambda _: http(502)) as mirror:
        async with asking(server.host, conf(server.host, mirror.host), tmp_path) as asked:
            assert await asked.read() == LAYER
            assert not broken
            assert asked.told(server.host)["state"] == "well"


async def test_a_mirror_that_lacks_a_blob_or_everything_is_passed_over(
    origin: Registry, tmp_path: Path
) -> None:
    with running_registry(tmp_path) as empty:
        async with asking(origin.host, conf(origin.host, empty.host), tmp_path) as asked:
            assert (await asked.mirrored.resolve("team/app", "v1")).size > 0
            assert await asked.read() == LAYER
            assert await asked.mirrored.blob_size("team/app", DIGEST) == len(LAYER)
            assert asked.told(empty.host)["lacking"] >= 3
            assert asked.told(empty.host)["state"] == "well"
            with pytest.raises(NotFound):
                await asked.mirrored.resolve("team/app", "v2")


async def test_a_mirror_that_refuses_connections_is_asked_once(
    origin: Registry, tmp_path: Path
) -> None:
    async with asking(origin.host, conf(origin.host, "127.0.0.1:1"), tmp_path) as asked:
        assert await asked.read(step=1 << 18) == LAYER
        told = asked.told("127.0.0.1:1")
        assert (told["questions"], told["failures"], told["state"]) == (0, 1, "failing")


async def test_a_mirror_that_hangs_costs_one_connection_however_many_read(
    origin: Registry, tmp_path: Path
) -> None:
    with fault_server(lambda request: Reply(b"", "stall")) as silent:
        async with asking(
            origin.host, conf(origin.host, silent.host), tmp_path, impatient(0.5)
        ) as asked:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(asked.mirrored.blob_size, "team/app", DIGEST)
            assert await asked.read(step=1 << 18) == LAYER
        assert [request.target for request in silent.requests] == ["/v2/"]


async def test_a_mirror_that_hangs_after_it_answered_is_left_alone(
    origin: Registry, tmp_path: Path
) -> None:
    asked_for = []

    def handle(request: Request) -> Reply:
        if request.target == "/v2/":
            return http(200)
        asked_for.append(request.target)
        return http(200, b"", "stall", content_length="1000")

    with fault_server(handle) as server:
        async with asking(origin.host, conf(origin.host, server.host), tmp_path) as asked:
            for _ in range(3):
                assert (await asked.mirrored.manifest("team/app", Digest.of(manifest_bytes()))).body
        assert len(asked_for) == 1


def manifest_bytes() -> bytes:
    return json.dumps(IMAGE).encode()


async def test_a_mirror_comes_back(origin: Registry, tmp_path: Path) -> None:
    settings = impatient()
    settings = replace(settings, timing=replace(settings.timing, mirror_pause=0.0))
    well = []

    def handle(request: Request) -> Reply:
        return serving(LAYER, DIGEST)(request) if well else http(503)

    with fault_server(handle) as server:
        async with asking(origin.host, conf(origin.host, server.host), tmp_path, settings) as asked:
            assert await asked.mirrored.blob_size("team/app", DIGEST) == len(LAYER)
            assert asked.told(server.host)["state"] == "failing"
            well.append(True)
            assert await asked.mirrored.blob_size("team/app", DIGEST) == len(LAYER)
            assert asked.told(server.host)["state"] == "well"


async def test_what_a_mirror_lies_about_is_fetched_again_from_the_registry(
    origin: Registry, tmp_path: Path
) -> None:
    blob = Blob("team/app", Digest.of(SMALL), len(SMALL))
    wrong = bytes(len(SMALL))
    with fault_server(serving(wrong, blob.digest)) as server:
        async with asking(origin.host, conf(origin.host, server.host), tmp_path) as asked:
            assert await asked.blobs.read_blob(blob, 0, blob.size) == SMALL
            assert asked.told(server.host)["wrong"] == 1
            assert asked.told(server.host)["bytes_received"] == len(wrong)


async def test_with_full_verification_nobody_sees_that_a_mirror_lies(
    origin: Registry, tmp_path: Path
) -> None:
    settings = replace(impatient(), cache=CacheSettings(directory=tmp_path, verify_full=True))
    with fault_server(serving(LAYER[:-1] + b"x", DIGEST)) as server:
        async with asking(origin.host, conf(origin.host, server.host), tmp_path, settings) as asked:
            assert await asked.read(step=65536) == LAYER


async def test_who_saw_bytes_that_were_wrong_gets_an_error_and_the_next_reader_the_right_ones(
    origin: Registry, tmp_path: Path
) -> None:
    with fault_server(serving(LAYER[:-1] + b"x", DIGEST)) as server:
        async with asking(origin.host, conf(origin.host, server.host), tmp_path) as asked:
            with pytest.raises(IntegrityError):
                await asked.read(step=65536)
            assert await asked.read(step=65536) == LAYER


async def test_a_mirror_whose_blob_has_another_size_is_passed_over(
    origin: Registry, tmp_path: Path
) -> None:
    with fault_server(serving(LAYER + b"more", DIGEST)) as server:
        async with asking(origin.host, conf(origin.host, server.host), tmp_path) as asked:
            assert await asked.read() == LAYER
            assert asked.told(server.host)["wrong"] >= 1


async def test_a_manifest_that_a_mirror_lies_about_comes_from_the_registry(
    origin: Registry, tmp_path: Path
) -> None:
    digest = Digest.of(manifest_bytes())
    with fault_server(serving(b'{"schemaVersion": 2}', digest)) as server:
        async with asking(origin.host, conf(origin.host, server.host), tmp_path) as asked:
            assert (await asked.mirrored.manifest("team/app", digest)).body == manifest_bytes()


async def test_a_mirror_for_digests_only_is_not_asked_what_a_tag_means(
    origin: Registry, tmp_path: Path
) -> None:
    with fault_server(serving(LAYER, DIGEST)) as server:
        routes = conf(origin.host, server.host, more='pull-from-mirror = "digest-only"')
        async with asking(origin.host, routes, tmp_path) as asked:
            await asked.mirrored.resolve("team/app", "v1")
            assert not server.requests
            assert (await asked.mirrored.tagged("team/app", "v1")).body == manifest_bytes()
            assert server.requests[-1].target.endswith(f"/manifests/{Digest.of(manifest_bytes())}")
            assert await asked.read() == LAYER
            assert asked.told(server.host)["bytes_received"] == len(LAYER)


async def test_a_mirror_for_tags_only_gives_by_digest_what_nobody_else_has(
    origin: Registry, tmp_path: Path
) -> None:
    newer = {**IMAGE, "annotations": {"only": "there"}}
    with running_registry(tmp_path) as ahead:
        for content in (b"{}", LAYER):
            push_blob(ahead.url, "team/app", content)
        digest = Digest.parse(push_manifest(ahead.url, "team/app", newer, "v3"))
        routes = conf(origin.host, ahead.host, more='pull-from-mirror = "tag-only"')
        async with asking(origin.host, routes, tmp_path) as asked:
            with pytest.raises(NotFound):
                await asked.mirrored.manifest("team/app", digest)
            assert (await asked.mirrored.resolve("team/app", "v3")).digest == digest
            assert (await asked.mirrored.manifest("team/app", digest)).digest == digest
            assert await asked.read() == LAYER
            assert asked.told(ahead.host)["bytes_received"] == 0


async def test_a_mirror_stands_in_for_a_registry_that_is_down(
    origin: Registry, tmp_path: Path
) -> None:
    routes = conf("127.0.0.1:1", origin.host)
    async with asking("127.0.0.1:1", routes, tmp_path) as asked:
        assert (await asked.mirrored.resolve("team/app", "v1")).size > 0
        assert await asked.read() == LAYER
        with pytest.raises(CatalogUnavailable):
            await asked.mirrored.repositories()
        with pytest.raises(Unreachable):
            await asked.mirrored.tags("team/app")
        with pytest.raises(Unreachable):
            await asked.mirrored.resolve(
                "team/app", "v2"
            )  # that a mirror lacks it does not make it absent


async def test_names_are_rewritten_for_a_location(origin: Registry, tmp_path: Path) -> None:
    text = f'[[registry]]\nprefix = "example.com"\nlocation = "{origin.host}/team"\n'
    routes = RouteTable(parse(text, "conf"), Path("/nonexistent"))
    async with asking("example.com", routes, tmp_path) as asked:
        assert await asked.mirrored.repositories() == ("app",)
        assert await asked.mirrored.tags("app") == ("v1",)
        assert await asked.read(Blob("app", DIGEST, len(LAYER))) == LAYER


async def test_an_insecure_location_is_asked_without_tls_where_it_has_none(
    origin: Registry, tmp_path: Path
) -> None:
    text = f'[[registry]]\nlocation = "{origin.host}"\ninsecure = true\n'
    async with asking(origin.host, RouteTable(parse(text, "conf")), tmp_path) as asked:
        assert await asked.mirrored.tags("team/app") == ("v1",)
        assert await asked.read() == LAYER
        assert asked.told(f"https://{origin.host}")["failures"] == 1


async def test_hosts_toml_says_who_is_asked_and_what_for(origin: Registry, tmp_path: Path) -> None:
    with fault_server(serving(LAYER, DIGEST)) as server:
        host = origin.host.replace(":", "_") + "_"
        (tmp_path / host).mkdir()
        (tmp_path / host / "hosts.toml").write_text(
            f'[host."http://{server.host}/mirror"]\ncapabilities = ["pull"]\n'
            f'[host."http://{server.host}/mirror".header]\nx-key = "1"\n'
        )
        async with asking(origin.host, RouteTable(hosts=tmp_path), tmp_path) as asked:
            await asked.mirrored.resolve("team/app", "v1")
            assert not server.requests
            assert await asked.mirrored.blob_size("team/app", DIGEST) == len(LAYER)
    ns = origin.host.replace(":", "%3A")
    assert [request.target for request in server.requests] == [
        f"/mirror/v2/?ns={ns}",
        f"/mirror/v2/team/app/blobs/{DIGEST}?ns={ns}",
    ]
    assert {request.headers["x-key"] for request in server.requests} == {"1"}


async def test_a_mirror_with_tls_is_believed_by_its_own_authority(
    origin: Registry, tmp_path: Path
) -> None:
    host = origin.host.replace(":", "_") + "_"
    (tmp_path / host).mkdir()
    with through_cache(origin, tmp_path / "mirror") as mirror:
        with tls_front(tmp_path / "front", trustme.CA(), before(mirror.host)) as front:
            for said, mirrored in (
                (f'ca = "{front.ca}"', True),
                ("", False),
                ("skip_verify = true", True),
            ):
                (tmp_path / host / "hosts.toml").write_text(
                    f'[host."https://{front.host}"]\n{said}\n'
                )
                before_it = len(front.asked())
                async with asking(
                    origin.host, RouteTable(hosts=tmp_path), tmp_path / f"cache{len(said)}"
                ) as asked:
                    # From the registry itself if the mirror's certificate is not trusted.
                    assert await asked.read() == LAYER
                assert any("/blobs/" in line for line in front.asked()[before_it:]) is mirrored, (
                    said
                )


async def test_credentials_go_to_the_host_that_they_are_for(
    tmp_path: Path, nobodys_home: Path
) -> None:
    """Both ask for Basic; each gets its own, and the mirror never the registry's."""

    def locked(request: Request) -> Reply:
        if "authorization" not in request.headers:
            return http(401, www_authenticate='Basic realm="x"')
        return http(404)

    with fault_server(locked) as mirror, fault_server(locked) as registry:

        def auth(name: str) -> dict[str, str]:
            return {
                "auth": base64.b64encode(
                    keep_secret(f"{name}:geheimes-wort", "geheimes-wort").encode()
                ).decode()
            }

        (nobodys_home / "config.json").write_text(
            json.dumps({"auths": {registry.host: auth("me")}})
        )
        async with asking(registry.host, conf(registry.host, mirror.host), tmp_path) as asked:
            with pytest.raises(NotFound):
                await asked.mirrored.manifest("team/app", DIGEST)
        assert any("authorization" in request.headers for request in registry.requests)
        assert not any("authorization" in request.headers for request in mirror.requests)


async def test_a_mirror_is_asked_through_its_proxy_and_the_registry_is_not(
    origin: Registry, tmp_path: Path
) -> None:
    def answer(request: Request) -> Reply:
        return http(200) if request.target.endswith("/v2/") else http(404)

    with fault_server(answer) as proxy:
        routes = conf(origin.host, "10.255.255.1:5000/cache", more=f'proxy = "http://{proxy.host}"')
        async with asking(origin.host, routes, tmp_path) as asked:
            assert (await asked.mirrored.resolve("team/app", "v1")).size > 0
        # Asked for TLS, a proxy is asked for a tunnel; it has none, so the mirror is passed over.
        assert [(request.method, request.target) for request in proxy.requests] == [
            ("CONNECT", "10.255.255.1:5000")
        ]


async def test_a_mirror_in_a_mounted_registry_that_is_down_can_be_walked(
    origin: Registry, tmp_path: Path
) -> None:
    text = (
        f'[[registry]]\nlocation = "127.0.0.1:1"\n[[registry.mirror]]\nlocation = "{origin.host}"\n'
    )
    (tmp_path / "conf").write_text(text)
    settings = replace(
        impatient(),
        cache=CacheSettings(directory=tmp_path / "cache"),
        network=NetworkSettings(registries_conf=tmp_path / "conf"),
    )
    with trio.fail_after(60):
        async with open_tree(RegistrySource("127.0.0.1:1"), settings) as root:
            for path in (b"team/app/_manifests/v1", b"team/app:v1", b"team/app/_tags/v1"):
                digest = await walk(root, path + b"/digest")
                assert isinstance(digest, File)
                assert await digest.read(0, 100) == f"{Digest.of(manifest_bytes())}\n".encode()


@pytest.mark.parametrize("server", [True, False])
async def test_dial_timeout_holds_for_the_registry_itself_and_for_a_mirror(
    server: bool, tmp_path: Path
) -> None:
    """containerd docs/hosts.md: `dial_timeout` of any host.

    Without it this would wait for a minute.
    """
    settings = impatient()
    settings = replace(
        settings, timing=replace(settings.timing, connect_timeout=60, mirror_timeout=60, timeout=60)
    )
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        host = f"127.0.0.1:{full.getsockname()[1]}"
        waiting = []
        for _ in range(3):  # the kernel answers no further connection once its queue is full
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        (tmp_path / "r.example").mkdir()
        refused = 'server = "http://127.0.0.1:1"\n'
        table = f'server = "http://{host}"\n' if server else f'{refused}[host."http://{host}"]\n'
        (tmp_path / "r.example" / "hosts.toml").write_text(f'{table}dial_timeout = "100ms"\n')
        async with asking("r.example", RouteTable(hosts=tmp_path), tmp_path, settings) as asked:
            with trio.fail_after(20), pytest.raises(OcifsError):
                await asked.mirrored.resolve("team/app", "v1")
        for each in waiting:
            each.close()


async def test_helpers_of_registries_conf_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = keep_secret("of-the-h3lper", "me:of-the-h3lper")
    program = tmp_path / "bin/docker-credential-kept"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho \'{{"Username": "me", "Secret": "{secret}"}}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    routes = RouteTable(parse('credential-helpers = ["kept"]', "registries.conf"))

    def handler(request: Request) -> Reply:
        known = request.headers.get("authorization", "").startswith("Basic ")
        return (
            http(200, b'{"tags": ["v1"]}')
            if known
            else http(401, www_authenticate='Basic realm="x"')
        )

    with fault_server(handler) as server:
        async with open_mirrored(server.host, routes, Settings()) as mirrored:
            assert await mirrored.tags("a/b") == ("v1",)
