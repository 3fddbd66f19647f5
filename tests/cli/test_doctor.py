"""`ocifs doctor`: its findings, for this machine and for directories and registries made here."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ocifs.settings import CacheSettings, NetworkSettings, Settings
from ocifs.verbs import checks
from ocifs.verbs.checks import BAD, NOTE, OK, WARNING
from tests.support.mount import run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.silent import silent_server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "OCIFS_USERNAME", "OCIFS_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def doctor(place: Path, *arguments: str) -> tuple[int, dict[str, list[tuple[str, str, str]]]]:
    done = run_ocifs("doctor", "--json", *arguments, cache=place / "cache", check=False)
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in json.loads(done.stdout):
        found.setdefault(row["topic"], []).append((row["level"], row["text"], row["todo"]))
    return done.returncode, found


@pytest.mark.servers
def test_all_is_well(registry: Registry, tmp_path: Path) -> None:
    config = push_blob(registry.url, "doctor/app", b"{}")
    kind = "application/vnd.oci.image.manifest.v1+json"
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": config,
        "size": 2,
    }
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": descriptor, "layers": []}
    digest = push_manifest(registry.url, "doctor/app", manifest, "v1")
    status, found = doctor(tmp_path, f"{registry.host}/doctor/app:v1")
    assert status == 0, found
    assert found["fuse"] == [(OK, "/dev/fuse can be opened", "")]
    assert found["source"] == [(OK, f"{registry.host}/doctor/app:v1 is {digest}", "")]
    assert found["registry"][0][1].startswith(f"{registry.url} answers 200")
    assert found["clock"] == [(OK, "the registry's clock agrees with this machine's", "")]
    assert not (tmp_path / "cache").exists()  # checks change nothing
    assert doctor(tmp_path, f"{registry.host}/doctor/app:v2")[1]["source"][0][0] == BAD
    text = run_ocifs("doctor", registry.host, cache=tmp_path / "cache").stdout.decode()
    assert "lists" in text


@pytest.mark.servers
def test_credentials_are_named_and_never_shown(home: Path) -> None:
    (home / "config.json").write_text(
        '{"auths": {"r.example.com": {"auth": "bmFtZTpTM2NyM3Q="}}, '
        '"credHelpers": {"h.example.com": "x"}}'
    )
    (home / "config.json").chmod(0o644)
    done = run_ocifs("doctor", cache=home / "cache", check=False)
    assert b"r.example.com: " in done.stdout and b"h.example.com: " in done.stdout
    assert f"chmod 600 {home}/config.json".encode() in done.stdout
    assert b"S3cr3t" not in done.stdout + done.stderr and b"bmFtZ" not in done.stdout + done.stderr


@pytest.mark.servers
def test_a_registry_that_wants_credentials_says_so(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "htpasswd").write_text(
        "a:$2y$05$0JXn0pGzpZ7c1n9YkRrZ8uE5m9n5sM8p4X1c7Jt8cE2u1k1m5p0rG\n"
    )
    auth = f"auth: {{htpasswd: {{realm: x, path: {tmp_path}/htpasswd}}}}\n"
    with running_registry(tmp_path / "r", more=auth) as private:
        status, found = doctor(tmp_path, f"{private.host}/a/b:c")
    assert status == 1
    assert "requires Basic credentials" in found["registry"][0][1]
    assert found["source"][0][0] == BAD and "log" in found["source"][0][2]


def test_who_does_not_answer(tmp_path: Path) -> None:
    status, found = doctor(tmp_path, "127.0.0.1:1")
    assert (status, found["registry"][0][0]) == (1, BAD)
    assert found["registry"][0][2] == "check that the registry is running, and check the port"
    with silent_server() as host:
        status, found = doctor(tmp_path, host, "--timeout", "1")
    assert (status, found["registry"][0][:2]) == (1, (BAD, f"timed out while waiting for {host}"))


@contextmanager
def clock_of(date: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", date)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_clock_that_is_wrong(tmp_path: Path) -> None:
    with clock_of("Sat, 01 Jan 2000 00:00:00 GMT") as host:
        level, text, todo = doctor(tmp_path, host)[1]["clock"][0]
    assert level == WARNING and text.endswith("s behind this machine's") and "timedatectl" in todo


def test_what_fuse_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    absent, _, other = checks.fuse(tmp_path / "fuse", tmp_path / "fuse.conf")
    assert (absent.level, other.level) == (BAD, NOTE)
    assert absent.todo and other.todo
    program = tmp_path / "fusermount3"
    program.write_text("#!/bin/sh\necho fusermount3 version: 3\n")
    program.chmod(0o755)
    (tmp_path / "fuse").touch()
    (tmp_path / "fuse.conf").write_text("# user_allow_other\nuser_allow_other\n")
    device, helper, other = checks.fuse(tmp_path / "fuse", tmp_path / "fuse.conf")
    assert (device.level, helper.level, other.level) == (OK, BAD, OK)
    assert helper.todo == f"chmod u+s {program}"


def levels(directory: Path) -> list[str]:
    settings = Settings(cache=CacheSettings(directory=directory), network=NetworkSettings())
    return [finding.level for finding in checks.cache(settings)]


def test_what_a_cache_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(tmp_path / "new" / "cache")[0] == OK
    assert not (tmp_path / "new").exists()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert levels(tmp_path / "open")[0] == BAD
    (tmp_path / "file").touch()
    assert levels(tmp_path / "file")[0] == BAD
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (tmp_path / "theirs").mkdir(mode=0o700)
    assert levels(tmp_path / "theirs")[0] == BAD


def test_entries_of_registries_conf_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text('[[registry]]\nlocation = "my_mirror:5000"\n[aliases]\nx = "wrong"\n')
    rows = doctor(tmp_path, "--registries-conf", str(conf))[1]["registries.conf"]
    assert [level for level, _, _ in rows] == [WARNING, WARNING]
    assert "my_mirror:5000" in rows[0][1] and "aliases.x" in rows[1][1]
    conf.write_text("[[registry")
    status, found = doctor(tmp_path, "--registries-conf", str(conf))
    assert (status, found["registries.conf"][0][0]) == (1, BAD)
