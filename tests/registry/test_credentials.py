"""Credential sources: files, keys, the environment, and helpers that fail."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.helpers import CredentialHelper, HelperRunner
from ocifs.registry.auth.source import CredentialSources, find_credential
from ocifs.registry.auth.sources import standard_sources
from ocifs.settings import NetworkSettings, Settings, Timing
from tests.support.secrets import keep_secret

SECRET = keep_secret("s3cr3t-of-the-credentials", "me:s3cr3t-of-the-credentials")
WELL = f"""#!/bin/sh
read server
echo "$1 $server" >>"$(dirname "$0")/asked"
echo '{{"ServerURL": "x", "Username": "me", "Secret": "{SECRET}"}}'
"""
ME = Credential("me", SECRET)


def packed(user: str, secret: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.fixture
def bin_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory


def helper(directory: Path, script: str, name: str = "test") -> None:
    path = directory / f"docker-credential-{name}"
    path.write_text(script)
    path.chmod(0o755)


@dataclass(frozen=True)
class Search:
    """The search through a list of sources."""

    sources: CredentialSources

    async def find(self, host: str, repository: str, anew: bool = False) -> Credential | None:
        return await find_credential(self.sources, host, repository, refresh=anew)


def search(
    environ: dict[str, str],
    authfile: Path | None = None,
    named: str = "",
    order: tuple[str, ...] = (),
    timeout: float = 10.0,
) -> Search:
    network = NetworkSettings(authfile=authfile, named_host=named)
    settings = Settings(network=network, timing=Timing(helper_timeout=timeout))
    return Search(standard_sources(settings, environ, order))


def sources(
    home: Path,
    timeout: float = 10.0,
    order: tuple[str, ...] = (),
    authfile: Path | None = None,
) -> Search:
    environ = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}
    return search(environ, authfile, order=order, timeout=timeout)


def docker(home: Path, **members: object) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps(members))


async def user(found: Search, host: str, repository: str = "") -> str:
    credential = await found.find(host, repository)
    return credential.username if credential else ""


async def test_the_longest_key_is_the_entry(tmp_path: Path) -> None:
    keys = {
        "r.example": "host",
        "r.example/team": "team",
        "r.example/team/app": "app",
        "r.example:5000": "port",
    }
    docker(tmp_path, auths={key: packed(name) for key, name in keys.items()})
    found = sources(tmp_path)
    asked = ["team/app", "team/other", "teams/app", "team/app/below", ""]
    assert [await user(found, "r.example", each) for each in asked] == [
        "app",
        "team",
        "host",
        "app",
        "host",
    ]
    assert await user(found, "r.example:5000", "team/app") == "port"
    assert await user(found, "example", "team/app") == ""


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io"),
        ("https://r.example/v1/", "r.example"),
        ("http://r.example:5000", "r.example:5000"),
        ("https://r.example/some/path", "r.example"),
        ("r.example/v2/", "r.example"),
        ("r.example/", "r.example"),
        ("r.example/v1", "r.example"),
        ("https://r.example/v1", "r.example"),
        ("R.Example", "r.example"),
        ("HTTPS://r.example:5000/", "r.example:5000"),
        ("r.example", "R.EXAMPLE"),
        ("index.docker.io/v1/", "docker.io"),
    ],
)
async def test_keys_of_old_are_understood(tmp_path: Path, key: str, host: str) -> None:
    docker(tmp_path, auths={key: packed("me")})
    assert await user(sources(tmp_path), host, "team/app") == "me"


async def test_a_key_that_is_written_as_it_should_be_beats_one_of_old(tmp_path: Path) -> None:
    docker(tmp_path, auths={"r.example": packed("new"), "https://r.example/v1/": packed("old")})
    assert await user(sources(tmp_path), "r.example") == "new"


async def test_a_key_that_may_be_a_namespace_is_both(tmp_path: Path) -> None:
    docker(tmp_path, auths={"r.example/v1": packed("v1")})
    assert [await user(sources(tmp_path), "r.example", name) for name in ("v1/app", "app")] == [
        "v1",
        "v1",
    ]
    docker(tmp_path, auths={"r.example/v1": packed("v1"), "r.example": packed("host")})
    assert [await user(sources(tmp_path), "r.example", name) for name in ("v1/app", "app")] == [
        "v1",
        "host",
    ]


@pytest.mark.parametrize("host", ["docker.io", "r.example"])
@pytest.mark.parametrize("word", ["access-token", "refresh-token", "refresh-token/"])
@pytest.mark.parametrize("first", [True, False])
async def test_tokens_of_a_login_by_browser_are_not_the_registrys(
    tmp_path: Path, host: str, word: str, first: bool
) -> None:
    server = "index.docker.io" if host == "docker.io" else host
    session, own = (
        (f"https://{server}/v1/{word}", packed("session")),
        (f"https://{server}/v1/", packed("me")),
    )
    docker(tmp_path, auths=dict([session, own] if first else [own, session]))
    assert await user(sources(tmp_path), host) == "me"
    docker(tmp_path, auths=dict([session]))
    assert await sources(tmp_path).find(host, "") is None


@pytest.mark.parametrize("auth", ["bWU", "bWU6cHc", "=", "bWU=", "\u00fc", "/w=="])
async def test_an_auth_that_cannot_be_read_is_a_warning_with_file_and_key(
    tmp_path: Path, auth: str, caplog: pytest.LogCaptureFixture
) -> None:
    docker(tmp_path, auths={"r.example": {"auth": auth}})
    assert await sources(tmp_path).find("r.example", "") is None
    assert f"{tmp_path}/.docker/config.json: the entry of r.example cannot be read" in caplog.text
    docker(tmp_path, auths={"r.example": {"auth": auth, "username": "me", "password": SECRET}})
    assert await sources(tmp_path).find("r.example", "") == ME


async def test_files_are_believed_in_their_order_and_read_anew(tmp_path: Path) -> None:
    places = [
        "first.json",
        "registry.json",
        "run/containers/auth.json",
        ".config/containers/auth.json",
        ".docker/config.json",
    ]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(json.dumps({"auths": {"r.example": packed(place)}}))
    (tmp_path / ".dockercfg").write_text(json.dumps({"https://r.example": packed(".dockercfg")}))
    environ = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "REGISTRY_AUTH_FILE": str(tmp_path / "registry.json"),
    }
    found = search(environ, tmp_path / "first.json")
    for place in [*places, ".dockercfg"]:
        assert await user(found, "r.example") == place
        (tmp_path / place).unlink()
    assert await found.find("r.example", "") is None


@pytest.mark.parametrize(
    "content", ["", "[", "[]", '{"auths": 3}', '{"auths": {"r.example": 1}}', "[" * 100_000]
)
async def test_a_file_that_makes_no_sense_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "run/containers").mkdir(parents=True)
    (tmp_path / "run/containers/auth.json").write_text(content)
    docker(tmp_path, auths={"r.example": packed("me")})
    assert await user(sources(tmp_path), "r.example") == "me"


async def test_the_environments_credential_is_for_the_host_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET + "\n")
    environ = {
        "HOME": str(tmp_path),
        "OCIFS_USERNAME": "me",
        "OCIFS_PASSWORD_FILE": str(tmp_path / "password"),
    }
    found = search(environ, named="r.example")
    assert await found.find("r.example", "") == ME
    assert await found.find("other.example", "") is None


async def test_entries_of_every_kind(tmp_path: Path) -> None:
    docker(
        tmp_path,
        auths={
            "identity.example": {**packed("me"), "identitytoken": SECRET},
            "token.example": packed("<token>"),
            "registry.example": {"registrytoken": SECRET},
            "plain.example": {"username": "me", "password": SECRET},
        },
    )
    found = [
        await sources(tmp_path).find(f"{each}.example", "")
        for each in ("identity", "token", "registry", "plain")
    ]
    assert [each and each.kind for each in found] == [
        "identity",
        "identity",
        "registry",
        "password",
    ]
    assert {each and each.secret for each in found} == {SECRET}
    assert SECRET not in repr(found)


async def test_a_store_is_asked_for_the_host(tmp_path: Path, bin_directory: Path) -> None:
    helper(bin_directory, WELL)
    docker(tmp_path, credsStore="test", auths={"r.example:5000": {}})
    assert await sources(tmp_path).find("r.example:5000", "team/app") == ME
    assert await sources(tmp_path).find("docker.io", "library/alpine") == ME
    assert (
        bin_directory / "asked"
    ).read_text() == "get r.example:5000\nget https://index.docker.io/v1/\n"


async def test_a_helper_for_the_host_beats_what_is_written_and_that_the_store(
    tmp_path: Path, bin_directory: Path
) -> None:
    helper(bin_directory, WELL.replace('"me"', '"own"'), "own")
    helper(bin_directory, WELL.replace('"me"', '"store"'), "store")
    docker(
        tmp_path,
        credsStore="store",
        credHelpers={"a.example": "own"},
        auths={"a.example": packed("written"), "b.example": packed("written")},
    )
    found = sources(tmp_path)
    assert [await user(found, f"{each}.example") for each in "abc"] == ["own", "written", "store"]


@pytest.mark.parametrize("nothing", ["", None])
async def test_an_empty_entry_keeps_the_store_from_being_asked(
    tmp_path: Path, bin_directory: Path, nothing: object
) -> None:
    helper(bin_directory, WELL)
    docker(
        tmp_path,
        credsStore="test",
        credHelpers={"a.example": nothing, "b.example": nothing},
        auths={"b.example": packed("b")},
    )
    found = sources(tmp_path)
    assert [await user(found, f"{each}.example") for each in "abc"] == ["", "b", "me"]


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io"])
async def test_a_helper_is_asked_for_docker_hub_under_both_of_its_keys(
    tmp_path: Path, bin_directory: Path, key: str
) -> None:
    message = "credentials not found in native keychain"
    lacking = f'test "$server" = "{key}" || {{ echo {message}; exit 1; }}\n'
    helper(bin_directory, WELL.replace("echo '{", lacking + "echo '{"))
    for place in ({"credsStore": "test"}, {"credHelpers": {"docker.io": "test"}}):
        docker(tmp_path, **place)
        assert await sources(tmp_path).find("docker.io", "library/alpine") == ME


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ((), "file"),
        (("containers-auth.json",), "file"),
        (("test",), "me"),
        (("test", "containers-auth.json"), "me"),
        (("containers-auth.json", "test"), "file"),
        (("lacking", "containers-auth.json"), "file"),
        (("lacking", "test"), "me"),
        (("lacking",), ""),
        (("../x", "containers-auth.json"), "file"),
    ],
)
async def test_registries_conf_says_where_credentials_are_looked_for(
    tmp_path: Path, bin_directory: Path, order: tuple[str, ...], found: str
) -> None:
    helper(bin_directory, WELL)
    helper(
        bin_directory,
        "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n",
        "lacking",
    )
    docker(tmp_path, auths={"r.example": packed("file")})
    assert await user(sources(tmp_path, order=order), "r.example") == found
    (tmp_path / "named.json").write_text(json.dumps({"auths": {"r.example": packed("named")}}))
    named = sources(tmp_path, order=order, authfile=tmp_path / "named.json")
    assert await user(named, "r.example") == (
        "me" if order[:1] == ("test",) and len(order) == 2 else "named"
    )


@pytest.mark.parametrize(
    ("script", "logged"),
    [
        ("echo credentials not found in native keychain; exit 1", ""),
        ("echo pass is not initialized; exit 1", "failed for r.example: pass is not initialized;"),
        ("echo; exit 3", "failed for r.example: status 3;"),
        (f'echo \'{{"Secret": "{SECRET}"}}\'; exit 1', "failed for r.example: status 1;"),
    ],
)
async def test_a_helper_that_fails_is_logged_and_one_that_lacks_the_host_is_not(
    tmp_path: Path, bin_directory: Path, script: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    helper(bin_directory, f"#!/bin/sh\n{script}\n")
    docker(tmp_path, credsStore="test")
    assert await sources(tmp_path).find("r.example", "") is None
    assert (logged or "has no credential for r.example") in caplog.text
    assert bool(logged) == ("retrying in" in caplog.text)
    assert SECRET not in caplog.text


async def test_an_identity_token_of_a_helper_is_one(tmp_path: Path, bin_directory: Path) -> None:
    helper(bin_directory, WELL.replace('"me"', '"<token>"'))
    docker(tmp_path, credsStore="test")
    assert await sources(tmp_path).find("r.example", "") == Credential(
        "<token>", SECRET, "identity"
    )


BAD = {
    "hangs": "#!/bin/sh\nsleep 1000 & wait\n",
    "hangs and holds its output": "#!/bin/sh\nsleep 1000\n",
    "rubbish": f"#!/bin/sh\necho 'panic: {SECRET}'\necho '{SECRET}' >&2\n",
    "no object": f"#!/bin/sh\necho '[\"{SECRET}\"]'\n",
    "wrong types": '#!/bin/sh\necho \'{"Username": 1, "Secret": []}\'\n',
    "fails": "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n",
    "endless": "#!/bin/sh\nexec yes\n",
    "deaf": f'#!/bin/sh\nexec <&-\necho "{SECRET}"\n',
    "not a program": "\x7fELF rubbish",
    "nothing": "#!/bin/sh\n",
}


@pytest.mark.parametrize("script", BAD.values(), ids=BAD)
async def test_a_helper_that_goes_wrong_is_passed_over_in_time_and_says_no_secret(
    tmp_path: Path, bin_directory: Path, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    helper(bin_directory, script)
    docker(tmp_path, credHelpers={"r.example": "test"}, auths={"r.example": packed("written")})
    with trio.fail_after(30):
        assert await user(sources(tmp_path, timeout=0.5), "r.example") == "written"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["../evil", "/bin/evil", "a/b", "", "-x", "a b", 3, ["x"]])
async def test_a_helpers_name_is_no_path(tmp_path: Path, bin_directory: Path, name: object) -> None:
    docker(tmp_path, credHelpers={"r.example": name}, auths={"r.example": packed("written")})
    assert await user(sources(tmp_path), "r.example") == "written"


async def test_a_helper_is_run_once_for_all_who_wait_and_again_when_it_is_refused(
    tmp_path: Path, bin_directory: Path
) -> None:
    helper(bin_directory, WELL)
    helpers = HelperRunner(10)
    asked = CredentialHelper("docker-credential-test", "r.example")

    async def ask(anew: bool) -> None:
        assert await helpers.get(asked, refresh=anew) == ME

    for anew, runs in ((False, 1), (False, 1), (True, 2)):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, anew)
        assert len((bin_directory / "asked").read_text().splitlines()) == runs


async def test_a_helper_that_failed_is_left_alone_for_a_while(
    tmp_path: Path, bin_directory: Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = float(
        "inf"
    )  # time moves by hand: the helper lives in real time
    helper(bin_directory, "#!/bin/sh\necho rubbish\n")
    docker(tmp_path, credsStore="test")
    found = sources(tmp_path)
    assert await found.find("r.example", "") is None
    helper(bin_directory, WELL)
    assert await found.find("r.example", "", anew=True) is None
    autojump_clock.jump(61)
    assert await found.find("r.example", "") == ME
