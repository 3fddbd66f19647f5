"""A private registry over TLS with a token server, and only the files that docker writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from ocifs.content import Blob
from ocifs.errors import AccessDenied, OcifsError, Unreachable
from ocifs.oci.digest import Digest
from ocifs.settings import NetworkSettings, Settings
from tests.registry.private import LAYER, House, private_house
from tests.support.clients import open_registry
from tests.support.mount import mounted, run_ocifs
from tests.support.nginx import tls_front
from tests.support.tokens import TokenServer

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    tokens = TokenServer("me", "s3cr3t-of-the-house", identity="1dentity-of-the-house")
    with private_house(tmp_path_factory.mktemp("house"), tokens) as running:
        yield running


@pytest.fixture
def home(nobodys_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(nobodys_home))
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return nobodys_home


def trusted(host: str, ca: Path, home: Path, directory: str = ".config/containers/certs.d") -> Path:
    place = home / directory / host
    place.mkdir(parents=True)
    shutil.copy(ca, place / "ca.crt")
    return place


@pytest.mark.mount
def test_a_private_repository_mounts_with_nothing_but_dockers_file(
    house: House, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.log_in(home)
    monkeypatch.setenv("SSL_CERT_FILE", str(house.front.ca))
    with mounted(f"{house.host}/team", tmp_path / "mnt", tmp_path / "cache") as mount:
        assert (mount.path / "one:v1/layers/0/blob").read_bytes() == LAYER
        assert (mount.path / "two/_manifests/v1/kind").read_text() == "image\n"


@pytest.mark.mount
@pytest.mark.parametrize("source", ["/team/one:v1", "/team", ""])
def test_the_first_look_at_a_manifest_costs_four_requests_and_one_in_a_second_repository_three(
    house: House, home: Path, tmp_path: Path, source: str
) -> None:
    """Each with its config, which has its time."""
    house.log_in(home)
    trusted(house.host, house.front.ca, home)
    before = house.asked()
    with mounted(house.host + source, tmp_path / "mnt", tmp_path / "cache") as mount:
        if source.endswith("v1"):
            (mount.path / "manifest.json").read_bytes()
            assert house.asked() - before == 4  # refused, token, manifest, config
            return
        base = mount.path if source else mount.path / "team"
        (base / "one:v1/manifest.json").read_bytes()
        # `/v2/` or the repository that it is not: refused, token, and of a namespace absent; of it
        # also token and catalog.
        assert (
            house.asked() - before == (2 if not source else 3 + 2) + 3
        )  # and token, manifest, config
        before = house.asked()
        (base / "two:v1/manifest.json").read_bytes()
        assert house.asked() - before == 3  # token, manifest, config


@pytest.mark.parametrize("directory", [".config/containers/certs.d", ".config/docker/certs.d"])
async def test_an_authority_kept_for_the_host_is_believed_and_that_of_its_token_server(
    house: House, home: Path, directory: str
) -> None:
    house.log_in(home)
    trusted(house.host, house.front.ca, home, directory)
    before = len(house.front.asked())
    async with open_registry(house.host, Settings()) as client:
        assert await client.tags("team/one") == ("v1",)
    assert not [
        line for line in house.front.asked()[before:] if " 400 " in line
    ]  # never spoken to without TLS


async def test_a_registry_on_loopback_that_has_tls_is_found_out_at_the_price_of_one_request(
    house: House, home: Path
) -> None:
    house.log_in(home)
    before = len(house.front.asked())
    async with open_registry(
        house.host, Settings(network=NetworkSettings(ca_file=house.front.ca))
    ) as client:
        assert await client.tags("team/one") == ("v1",)
        assert await client.tags("team/two") == ("v1",)
    statuses = [line.split()[3] for line in house.front.asked()[before:]]
    assert statuses == [
        "400",
        "401",
        "401",
        "200",
        "200",
    ]  # the plain one, the ping for TLS, the challenge, two lists
    assert 'auth="Bearer' not in "".join(line for line in house.front.asked() if " 400 " in line)


async def test_a_certificate_that_nobody_vouches_for_is_said_to_be_one(
    house: House, home: Path
) -> None:
    house.log_in(home)
    async with open_registry(house.host, Settings()) as client:
        with pytest.raises(Unreachable, match="TLS") as caught:
            await client.tags("team/one")
    assert "--ca-file" in caught.value.hint


async def test_a_certificate_is_not_checked_where_the_user_says_so_and_nowhere_else(
    house: House, home: Path
) -> None:
    house.log_in(home)
    async with open_registry(
        house.host, Settings(network=NetworkSettings(insecure_tls=frozenset({house.host})))
    ) as client:
        with pytest.raises(Unreachable, match="TLS") as caught:  # the token server is another host
            await client.tags("team/one")
    assert house.tokens.realm.split("/")[2] in str(caught.value)


async def test_an_identity_token_is_exchanged(house: House, home: Path) -> None:
    house.log_in(home, {"auth": "bWU6", "identitytoken": house.tokens.identity})
    before = len(house.tokens.methods)
    async with open_registry(
        house.host, Settings(network=NetworkSettings(ca_file=house.front.ca))
    ) as client:
        assert await client.tags("team/one") == ("v1",)
    assert house.tokens.methods[before:] == ["POST"]


async def test_a_registry_token_is_sent_as_it_is(house: House, home: Path) -> None:
    house.log_in(home)
    settings = Settings(network=NetworkSettings(ca_file=house.front.ca))
    async with open_registry(house.host, settings) as client:
        await client.tags("team/one")
    house.log_in(home, {"registrytoken": house.tokens.given[-1]})
    before = len(house.tokens.asked)
    async with open_registry(house.host, settings) as client:
        assert await client.tags("team/one") == ("v1",)
        with pytest.raises(AccessDenied):
            await client.tags("team/two")  # for which that token is not
    assert len(house.tokens.asked) == before


def test_a_catalog_is_asked_for_with_credentials(house: House, home: Path, tmp_path: Path) -> None:
    house.log_in(home)
    listed = run_ocifs(
        "ls", "--ca-file", str(house.front.ca), f"{house.host}/", cache=tmp_path / "cache"
    )
    assert listed.stdout == b"team\n"
    assert ("registry:catalog:*",) in house.tokens.asked


def refused(house: House, token: str) -> bool:
    """Whether the registry refuses a token that it took before."""
    request = {"Authorization": f"Bearer {token}"}
    return (
        httpx.get(
            f"{house.registry.url}/v2/team/one/tags/list", headers=request, trust_env=False
        ).status_code
        == 401
    )


async def test_a_token_that_ends_in_the_middle_of_a_read_is_not_noticed(
    house: House, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.log_in(home)
    monkeypatch.setattr(house.tokens, "lasts", 1)  # and says that it lasts for 300 s
    blob = Blob("team/one", Digest.of(LAYER), len(LAYER))
    got = b""
    async with open_registry(
        house.host, Settings(network=NetworkSettings(ca_file=house.front.ca))
    ) as client:
        for start in range(0, len(LAYER), len(LAYER) // 2):
            async with client.open_blob(blob, start, start + len(LAYER) // 2) as stream:
                got += b"".join([piece async for piece in stream])
            with trio.fail_after(30):
                while not refused(house, house.tokens.given[-1]):
                    await trio.sleep(0.1)  # the clock of the registry decides
    assert got == LAYER
    statuses = [line.split()[3] for line in house.front.asked() if "/blobs/" in line]
    assert statuses[-4:] == ["401", "206", "401", "206"]


@pytest.mark.parametrize(("lasts", "tokens"), [(300.0, 1), (12.0, 2)], ids=["long", "short"])
async def test_a_token_is_replaced_before_its_end(
    house: House,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock,
    lasts: float,
    tokens: int,
) -> None:
    autojump_clock.autojump_threshold = float("inf")  # time moves by hand
    house.log_in(home)
    monkeypatch.setattr(house.tokens, "says", lasts)
    before = len(house.tokens.asked)
    async with open_registry(
        house.host, Settings(network=NetworkSettings(ca_file=house.front.ca))
    ) as client:
        await client.tags("team/one")
        autojump_clock.jump(8)
        await client.tags("team/one")
    assert len(house.tokens.asked) - before == tokens
    assert [line.split()[3] for line in house.front.asked()][-2:] == ["200", "200"]


async def test_one_token_is_asked_for_however_many_wait(house: House, home: Path) -> None:
    house.log_in(home)
    before = len(house.tokens.asked)
    async with open_registry(
        house.host, Settings(network=NetworkSettings(ca_file=house.front.ca))
    ) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.tags, "team/one")
    assert len(house.tokens.asked) - before == 1


@pytest.mark.parametrize("member", ["token", "access_token"])
async def test_a_token_has_either_name(
    house: House, home: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    house.log_in(home)
    monkeypatch.setattr(house.tokens, "member", member)
    async with open_registry(
        house.host, Settings(network=NetworkSettings(ca_file=house.front.ca))
    ) as client:
        assert await client.tags("team/one") == ("v1",)


async def test_a_client_certificate_kept_for_the_host_lets_us_in(
    tmp_path: Path, home: Path
) -> None:
    clients, server = trustme.CA(), trustme.CA()
    serve = 'return 200 \'{"tags": ["v1"]}\';'
    (tmp_path / "open").mkdir()
    with tls_front(tmp_path / "front", server, serve, client_ca=clients) as front:
        place = trusted(front.host, front.ca, home)
        async with open_registry(front.host, Settings()) as client:
            with pytest.raises(OcifsError):
                await client.tags("team/one")
        mine = clients.issue_cert("me@example.com")
        mine.cert_chain_pems[0].write_to_path(str(place / "client.cert"))
        mine.private_key_pem.write_to_path(str(place / "client.key"))
        async with open_registry(front.host, Settings()) as client:
            assert await client.tags("team/one") == ("v1",)
        assert front.asked()[-1].endswith("client=SUCCESS")
