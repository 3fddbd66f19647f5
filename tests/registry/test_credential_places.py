"""The locations of logins, compared with skopeo in twelve environments (containers-auth.json(5)).

Each location has a login with a different name, and the registry lists the name of the login as its
only tag. So the tag is the location that a client used. Both clients run in a mount namespace with
a password database and a /run/containers of their own.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocifs.directories import cache_home, config_home, home, runtime_directory
from ocifs.registry.auth.places import auth_files
from ocifs.registry.config import registries_conf
from ocifs.registry.http.tls import certificate_directories
from ocifs.settings import default_cache_directory
from tests.support.faults import Reply, Request, fault_server, http
from tests.support.secrets import keep_secret

ROOT = Path(__file__).parents[2]
SECRET = keep_secret("a-login-in-twelve-environments")
PLACES = {
    "passwd": "passwd/.docker/config.json",
    "home": "home/.config/containers/auth.json",
    "docker": "docker/config.json",
    "runtime": "runtime/containers/auth.json",
    "file": "file.json",
}
VARIABLES = {
    "HOME": "home",
    "XDG_RUNTIME_DIR": "runtime",
    "DOCKER_CONFIG": "docker",
    "REGISTRY_AUTH_FILE": "file.json",
}
ENVIRONMENTS = [
    set(),
    {"HOME"},
    {"DOCKER_CONFIG"},
    {"HOME", "XDG_RUNTIME_DIR"},
    {"HOME", "DOCKER_CONFIG"},
    {"XDG_RUNTIME_DIR", "DOCKER_CONFIG"},
    {"REGISTRY_AUTH_FILE"},
    {"HOME", "REGISTRY_AUTH_FILE"},
    {"DOCKER_CONFIG", "REGISTRY_AUTH_FILE"},
    {"HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"},
]
# With a login in /run/containers/UID, which `sudo podman login` writes, and without one.
CASES = [(each, False) for each in ENVIRONMENTS] + [(set(), True), ({"HOME"}, True)]


def echo(request: Request) -> Reply:
    """Lists the name of the caller's login as the only tag."""
    kind, _, packed = request.headers.get("authorization", "").partition(" ")
    if kind != "Basic":
        return http(401, www_authenticate='Basic realm="test"')
    name = base64.b64decode(packed).decode().partition(":")[0]
    body = json.dumps({"name": "team/app", "tags": [name]}).encode()
    return http(200, body, content_type="application/json")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users can enter, which pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="ocifs-places-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def write_logins(place: Path, host: str, user: int) -> None:
    places = {**PLACES, "run": f"run-containers/{user}/auth.json"}
    for name, path in places.items():
        packed = base64.b64encode(f"{name}:{SECRET}".encode()).decode()
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(json.dumps({"auths": {host: {"auth": packed}}}))
    (place / "empty").mkdir()
    (place / "cache").mkdir()
    shutil.chown(place / "cache", user)
    names = {0: "root", 65534: "nobody"}
    (place / "password-database").write_text(
        f"{names[user]}:x:{user}:{user}::{place}/passwd:/bin/sh\n"
    )


def run_in_namespace(
    place: Path, user: int, run: bool, variables: list[str], command: list[str]
) -> str:
    containers = "run-containers" if run else "empty"
    script = (
        f"mkdir -p /run/containers && mount --bind {place}/{containers} /run/containers && "
        f"mount --bind {place}/password-database /etc/passwd && exec setpriv --reuid {user} "
        f'--regid {user} --clear-groups env -i PATH="$PATH" {" ".join(variables)} "$@"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, "sh", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout if done.returncode == 0 else f"status {done.returncode}: {done.stderr}"


@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("user", [0, 65534], ids=["root", "nobody"])
@pytest.mark.parametrize(("named", "run"), CASES)
def test_skopeo_and_ocifs_find_the_same_login(
    place: Path, user: int, named: set[str], run: bool
) -> None:
    with fault_server(echo, plain=True) as server:
        host = server.host
        write_logins(place, host, user)
        variables = [f"{name}={place}/{VARIABLES[name]}" for name in sorted(named)]
        command = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{host}/team/app"]
        [theirs] = json.loads(run_in_namespace(place, user, run, variables, command))["Tags"]
        command = [sys.executable, "-m", "ocifs", "ls", f"{host}/team/app", "_tags"]
        command += ["--cache-dir", f"{place}/cache/ocifs"]
        ours = run_in_namespace(place, user, run, variables, command)
    if user and "Permission denied" in ours:
        pytest.skip("other users may not read this clone")
    assert ours.split() == [theirs]


@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_a_default_location_that_is_closed_to_the_user_is_silent(place: Path) -> None:
    def run(host: str, *variables: str, name: str = "ls") -> str:
        words = [name, host] if name == "doctor" else [name, f"{host}/team/app", "_tags"]
        command = ["sh", "-c", '"$@" 2>&1 || true', "sh", sys.executable, "-m", "ocifs", *words]
        command += ["--cache-dir", f"{place}/cache/ocifs"]
        return run_in_namespace(place, 65534, True, list(variables), command)

    with fault_server(echo, plain=True) as server:
        write_logins(place, server.host, 65534)
        if "Permission denied" in run(server.host):
            pytest.skip("other users may not read this clone")
        (place / "run-containers").chmod(0o700)
        assert run(server.host) == "passwd\n"
        assert "cannot read credentials" not in run(server.host, name="doctor")
        # A file of the user's own, or one that the user has named, is not expected to be closed.
        for variable, path in (
            ("REGISTRY_AUTH_FILE", "run-containers/65534/auth.json"),
            ("DOCKER_CONFIG", "run-containers"),
        ):
            shown = run(server.host, f"{variable}={place}/{path}")
            assert f"cannot read credentials in {place}/{path}" in shown, shown


def test_a_home_that_is_unset_empty_or_relative_is_that_of_the_password_database() -> None:
    found = home({})
    assert found == home({"HOME": ""}) == home({"HOME": "some/where"})
    assert found.is_absolute()
    assert home({"HOME": "/some/where"}) == Path("/some/where")


@pytest.mark.parametrize("value", ["", "relative", "./relative", "../x"])
def test_a_relative_path_in_an_xdg_variable_is_ignored_everywhere(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/h")
    relative = {"HOME": "/h", **dict.fromkeys(names, value)}
    for look in (
        lambda environ: list(auth_files(environ, None)),
        certificate_directories,
        registries_conf.files,
        config_home,
        cache_home,
        runtime_directory,
    ):
        assert look(relative) == look({"HOME": "/h"})
    before = default_cache_directory()
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert default_cache_directory() == before == Path("/h/.cache/ocifs")


def test_every_path_that_is_looked_at_is_absolute() -> None:
    values = (None, "", "relative", "/absolute")
    names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")
    for chosen in itertools.product(values, repeat=len(names)):
        pairs = zip(names, chosen, strict=True)
        environ = {name: value for name, value in pairs if value is not None}
        main, drop_ins = registries_conf.files(environ)
        found = [*auth_files(environ, None), *certificate_directories(environ), main, *drop_ins]
        assert all(path.is_absolute() for path in found)
