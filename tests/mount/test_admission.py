"""`ocifs mount` checks once whether the mount can work.

A refusal of the registry is an error with a hint, and an outage is a warning.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faults import FaultServer, Handler, Reply, Request, fault_server, http
from tests.support.mount import run_ocifs
from tests.support.secrets import keep_secret
from tests.support.tools import tool

pytestmark = pytest.mark.mount

PASSWORD = keep_secret("wr0ng-at-the-door", "me:wr0ng-at-the-door")


def registry(request: Request) -> Reply:
    path = request.target.partition("?")[0]
    if path == "/v2/":
        return http(200)
    if path == "/v2/_catalog":
        return http(200, b'{"repositories": ["team/app"]}')
    return http(200, b'{"tags": ["v1"]}') if path == "/v2/team/app/tags/list" else http(404)


def without_catalog(request: Request) -> Reply:
    return http(404) if "_catalog" in request.target else registry(request)


def with_basic(request: Request) -> Reply:
    return http(401, www_authenticate='Basic realm="x"')


def with_tokens(status: int, server: Callable[[], FaultServer]) -> Handler:
    """A registry that requires tokens. Its token server answers with `status`."""

    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(status, b'{"token": "t0ken"}')
        if request.headers.get("authorization") == "Bearer t0ken":
            return registry(request)
        return http(
            401, www_authenticate=f'Bearer realm="http://{server().host}/token",service="x"'
        )

    return handler


@contextmanager
def mounting(tmp_path: Path, *arguments: str) -> Iterator[subprocess.CompletedProcess[bytes]]:
    """`ocifs mount` as a user types it. Its mount, if any, ends with the block."""
    place = tmp_path / "mnt"
    place.mkdir(exist_ok=True)
    done = run_ocifs("mount", *arguments, str(place), cache=tmp_path / "cache", check=False)
    try:
        yield done
    finally:
        if done.returncode == 0:
            run_ocifs("umount", str(place), cache=tmp_path / "cache")


REFUSED: dict[str, tuple[Handler, str, str]] = {
    "a repository that is not there": (registry, "/team/nope", "ocifs ls"),
    "a name that is neither a repository nor a namespace": (registry, "/nope", "ocifs ls"),
    "a repository that is not there, and no catalog": (without_catalog, "/team/nope", "ocifs ls"),
    "a registry that wants a login": (with_basic, "", "log in"),
    "a repository that wants a login": (with_basic, "/team/app", "log in"),
    "a registry that lets nobody in": (lambda _: http(403), "", "credentials"),
    "a server that is not a registry": (lambda _: http(404, b"<html>"), "", "ocifs doctor"),
}


def test_a_registry_that_wants_a_login_is_mounted_for_the_repositories_that_are_named(
    tmp_path: Path,
) -> None:
    with (
        fault_server(with_basic) as server,
        mounting(tmp_path, server.host, "--repo", "team/app") as done,
    ):
        assert done.returncode == 0, done.stderr
        assert b"team/app" in done.stderr and b"login" in done.stderr
        assert [
            path.name for path in (tmp_path / "mnt").iterdir() if not path.name.startswith(".")
        ] == ["team"]
        with pytest.raises(PermissionError):
            (tmp_path / "mnt/team/app/_manifests/v1/manifest.json").read_bytes()


@pytest.mark.parametrize("name", REFUSED)
def test_a_denied_source_is_not_mounted(tmp_path: Path, name: str) -> None:
    handler, path, hint = REFUSED[name]
    with fault_server(handler) as server, mounting(tmp_path, server.host + path) as done:
        assert done.returncode == 1
        assert hint in done.stderr.decode()
    assert not (tmp_path / "mnt").is_mount()


@pytest.mark.servers
def test_skopeo_and_crane_are_denied_the_same(tmp_path: Path) -> None:
    for name in ("a repository that is not there", "a repository that wants a login"):
        handler, path, _ = REFUSED[name]
        with fault_server(handler, plain=True) as server:
            place = f"{server.host}{path}"
            assert not tool("skopeo", tmp_path)(
                "list-tags", "--tls-verify=false", f"docker://{place}", check=False
            )
            assert not tool("crane", tmp_path)("ls", "--insecure", place, check=False)


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_not_accepted_are_an_error(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    monkeypatch.setenv("OCIFS_USERNAME", "me")
    monkeypatch.setenv("OCIFS_PASSWORD_FILE", str(tmp_path / "password"))
    with (
        fault_server(with_tokens(status, lambda: server)) as server,
        mounting(tmp_path, server.host) as done,
    ):
        assert done.returncode == 1
        assert "rejects the credentials of me from OCIFS_USERNAME" in done.stderr.decode()


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (400, 0), (403, 0), (401, 1)])
def test_a_denied_anonymous_token_without_a_scope_is_not_a_verdict(
    tmp_path: Path, status: int, expected: int
) -> None:
    """GitLab denies anonymous tokens without a scope, but grants them for public repositories."""
    with (
        fault_server(with_tokens(status, lambda: server)) as server,
        mounting(tmp_path, server.host) as done,
    ):
        assert done.returncode == expected, done.stderr.decode()
        assert len(server.requests) == 2


MOUNTED: dict[str, tuple[Handler, str]] = {
    "a registry": (registry, ""),
    "a repository": (registry, "/team/app"),
    "a namespace": (registry, "/team"),
}


@pytest.mark.parametrize("name", MOUNTED)
def test_an_existing_source_is_mounted_without_a_message(tmp_path: Path, name: str) -> None:
    handler, path = MOUNTED[name]
    with fault_server(handler) as server, mounting(tmp_path, server.host + path) as done:
        assert (done.returncode, done.stderr) == (0, b"")


TROUBLED: dict[str, tuple[Handler, str, str]] = {
    "a registry that fails": (lambda _: http(503), "", "503"),
    "a repository of a registry that fails": (lambda _: http(500), "/team/app", "500"),
    "a name that may be a namespace": (without_catalog, "/team", "namespace"),
}


@pytest.mark.parametrize("name", TROUBLED)
def test_an_unknown_verdict_is_a_warning_and_the_mount_stays(tmp_path: Path, name: str) -> None:
    handler, path, words = TROUBLED[name]
    with fault_server(handler) as server, mounting(tmp_path, server.host + path) as done:
        assert done.returncode == 0
        assert words in done.stderr.decode()
        assert words in (tmp_path / "mnt/.ocifs/errors").read_text()


def test_a_namespace_of_a_registry_without_a_catalog_is_mounted_with_repo(tmp_path: Path) -> None:
    with fault_server(without_catalog) as server:
        with mounting(tmp_path, f"{server.host}/team", "--repo", "team/app") as done:
            assert (done.returncode, done.stderr) == (0, b"")


def test_a_registry_that_is_down_is_a_warning_and_one_that_does_not_exist_an_error(
    tmp_path: Path,
) -> None:
    with mounting(tmp_path, "127.0.0.1:1") as done:
        assert done.returncode == 0
        assert "refuses connections" in done.stderr.decode()
    with mounting(tmp_path, "no-such-host.invalid") as done:
        if b"cannot be resolved" in done.stderr and done.returncode == 0:
            pytest.skip(
                "the resolver of this machine reports an outage for names that do not exist"
            )
        assert done.returncode == 1
        assert "check the spelling" in done.stderr.decode()
    with mounting(tmp_path, "no-such-host.invalid", "--offline") as done:
        assert (done.returncode, done.stderr) == (0, b"")


def test_each_of_several_hosts_is_checked_once_and_a_refusal_is_a_warning_that_names_it(
    tmp_path: Path,
) -> None:
    with fault_server(registry) as good, fault_server(lambda _: http(403)) as refusing:
        with mounting(
            tmp_path, good.host, f"{good.host}/team/nope", refusing.host, "127.0.0.1:1"
        ) as done:
            assert done.returncode == 0
            said = done.stderr.decode().splitlines()
            assert len(said) == 3, said
            assert f"cannot read {good.host}/team/nope" in said[0]
            assert f"cannot read {refusing.host}" in said[1]
            assert "refuses connections" in said[2]
            assert "403" in (tmp_path / "mnt/.ocifs/errors").read_text()
            assert [request.target for request in refusing.requests] == [
                "/v2/",
                "/v2/",
            ]  # the second request fetches the message
            assert sorted(
                request.target for request in good.requests if "catalog" not in request.target
            ) == [
                "/v2/",
                "/v2/team/nope/tags/list?n=1",
            ]
            assert [
                each.name for each in (tmp_path / "mnt" / good.host / "team/app/_tags").iterdir()
            ] == ["v1"]


def test_several_sources_that_are_all_refused_are_an_error_that_names_them(tmp_path: Path) -> None:
    with fault_server(lambda _: http(403)) as one, fault_server(registry) as other:
        with mounting(tmp_path, one.host, f"{other.host}/team/nope") as done:
            assert done.returncode == 1
            assert (
                one.host in done.stderr.decode()
                and f"{other.host}/v2/team/nope" in done.stderr.decode()
            )
        assert not (tmp_path / "mnt").is_mount()


def test_a_mount_of_any_host_stays_when_the_named_hosts_fail(tmp_path: Path) -> None:
    with fault_server(lambda _: http(403)) as server:
        with mounting(tmp_path, "--any", server.host) as done:
            assert done.returncode == 0
            assert f"cannot read {server.host}" in done.stderr.decode()


def test_hosts_that_do_not_answer_are_waited_for_side_by_side(tmp_path: Path) -> None:
    """Five silent hosts with deadlines of 2 s would take 10 s in sequence. The timeout is 6 s."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(fault_server(lambda _: Reply(b"", "stall"))) for _ in range(5)
        ]
        with mounting(tmp_path, "--timeout", "6", *(server.host for server in servers)) as done:
            assert done.returncode == 0, done.stderr.decode()
            assert done.stderr.count(b"has not answered yet") == 5
            assert [len(server.requests) for server in servers] == [1] * 5


def test_no_check_is_made_for_any_host_or_offline(tmp_path: Path) -> None:
    with mounting(tmp_path, "--any") as done:
        assert (done.returncode, done.stderr) == (0, b"")
    with fault_server(lambda _: http(403)) as one, fault_server(lambda _: http(403)) as other:
        with mounting(tmp_path, "--offline", one.host, other.host) as done:
            assert (done.returncode, done.stderr) == (0, b"")
        assert not one.requests + other.requests
