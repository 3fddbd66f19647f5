"""A private registry with a real token server, and only docker's configuration file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from ocifs.errors import AccessDenied
from ocifs.oci import mediatype
from ocifs.settings import NetworkSettings, Settings
from tests.support.clients import open_registry
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.secrets import keep_secret
from tests.support.tokens import TokenServer, token_server

pytestmark = pytest.mark.servers

SECRET = keep_secret("s3cr3t-of-the-token-server")


@pytest.fixture(scope="module")
def private(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Registry, TokenServer, Settings]]:
    open_to_all, guarded = tmp_path_factory.mktemp("open"), tmp_path_factory.mktemp("private")
    with running_registry(open_to_all, guarded / "data") as registry:
        for repository in ("team/one", "team/two"):
            digest = push_blob(registry.url, repository, b"{}")
            empty = {"mediaType": mediatype.OCI_EMPTY, "digest": digest, "size": 2}
            manifest = {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                "config": empty,
                "layers": [empty],
            }
            push_manifest(registry.url, repository, manifest, "v1")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(guarded / "ca.pem"))
    with token_server(guarded, TokenServer("me", SECRET), authority) as tokens:
        with running_registry(guarded, more=tokens.config) as registry:
            yield registry, tokens, Settings(network=NetworkSettings(ca_file=guarded / "ca.pem"))


def log_in(host: str, home: Path, password: str) -> None:
    packed = base64.b64encode(f"me:{password}".encode()).decode()
    (home / "config.json").write_text(json.dumps({"auths": {host: {"auth": packed}}}))


def asked(registry: Registry, tokens: TokenServer) -> int:
    """Requests to both so far.

    Those for `/v2/` alone are of the fixture, which waits for the registry with them.
    """
    return len(re.findall(r'"(?:GET|HEAD) /v2/[^ ]+ HTTP/', registry.log.read_text())) + len(
        tokens.asked
    )


async def test_the_first_manifest_costs_three_requests_and_that_of_a_second_repository_two(
    private: tuple[Registry, TokenServer, Settings], nobodys_home: Path
) -> None:
    registry, tokens, settings = private
    log_in(registry.host, nobodys_home, SECRET)
    async with open_registry(registry.host, settings) as client:
        for repository, most in (("team/one", 3), ("team/two", 2)):
            before = asked(registry, tokens)
            assert (await client.tagged(repository, "v1")).media_type == mediatype.OCI_MANIFEST
            assert asked(registry, tokens) - before == most
    assert tokens.asked[-2:] == [("repository:team/one:pull",), ("repository:team/two:pull",)]


async def test_a_wrong_password_is_denied_and_never_shown(
    private: tuple[Registry, TokenServer, Settings],
    nobodys_home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry, _, settings = private
    caplog.set_level("DEBUG")
    log_in(registry.host, nobodys_home, keep_secret("wr0ng-one", "me:wr0ng-one"))
    async with open_registry(registry.host, settings) as client:
        with pytest.raises(AccessDenied) as caught:
            await client.tags("team/one")
    assert "wr0ng-one" not in f"{caught.value}{caught.value.hint}{caplog.text}"


async def test_a_password_that_was_changed_meanwhile_is_read_anew(
    private: tuple[Registry, TokenServer, Settings],
    nobodys_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock,
) -> None:
    autojump_clock.autojump_threshold = float("inf")  # time moves by hand
    registry, tokens, settings = private
    log_in(registry.host, nobodys_home, SECRET)
    async with open_registry(registry.host, settings) as client:
        assert await client.tags("team/one") == ("v1",)
        monkeypatch.setattr(tokens, "password", keep_secret("the-n3xt-one", "me:the-n3xt-one"))
        log_in(registry.host, nobodys_home, tokens.password)
        autojump_clock.jump(400)  # the token is over
        assert await client.tags("team/one") == ("v1",)
        # The new password is not in the file.
        monkeypatch.setattr(tokens, "password", keep_secret("0ne-more", "me:0ne-more"))
        autojump_clock.jump(400)
        with pytest.raises(AccessDenied):
            await client.tags("team/one")
