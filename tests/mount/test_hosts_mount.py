"""Mounts of several registries, with a directory for each host."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from tests.support.faults import fault_server, http
from tests.support.mount import mounted, run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

CONTENT = b"the same bytes everywhere"


def push(registry: Registry, repository: str, tag: str) -> None:
    for content in (b"{}", CONTENT):
        push_blob(registry.url, repository, content)
    image = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [
            {
                "mediaType": "application/x.text",
                "digest": str(Digest.of(CONTENT)),
                "size": len(CONTENT),
            }
        ],
    }
    push_manifest(registry.url, repository, image, tag)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Registry]]:
    with (
        running_registry(tmp_path_factory.mktemp("a")) as a,
        running_registry(tmp_path_factory.mktemp("b")) as b,
    ):
        push(a, "team/app", "v1")
        push(b, "other/tool", "v2")
        yield a, b


def absent(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    return False


def test_several_sources_are_directories_of_their_hosts(
    two: tuple[Registry, Registry], tmp_path: Path
) -> None:
    a, b = two
    with mounted(
        [a.host, f"{b.host}/other/tool:v2", "127.0.0.1:1"], tmp_path / "mnt", tmp_path / "cache"
    ) as mount:
        assert set(os.listdir(mount.path)) == {".ocifs", a.host, b.host, "127.0.0.1:1"}
        assert os.listdir(mount.path / a.host) == ["team"]
        one = mount.path / a.host / "team/app:v1/layers/0/blob"
        other = mount.path / b.host / "other/tool:v2/layers/0/blob"
        assert one.read_bytes() == other.read_bytes() == CONTENT
        assert one.stat().st_ino != other.stat().st_ino, (
            "one host may be down while the other is read"
        )
        with pytest.raises(OSError) as down:
            os.listdir(mount.path / "127.0.0.1:1")
        assert down.value.errno == errno.ECONNREFUSED
        assert absent(mount.path / "localhost:5000"), "it was not named"
        told = json.loads((mount.path / ".ocifs/status.json").read_text())
        reachable = {each["host"]: each["reachable"] for each in told["registries"]}
        assert reachable == {a.host: True, b.host: True, "127.0.0.1:1": False}


def test_any_host_can_be_looked_up_and_is_listed_after_its_first_answer(
    two: tuple[Registry, Registry], tmp_path: Path
) -> None:
    a, b = two
    with fault_server(lambda request: http(404)) as silent:
        with mounted(["--any", a.host], tmp_path / "mnt", tmp_path / "cache") as mount:
            assert set(os.listdir(mount.path)) == {".ocifs", a.host}
            assert (mount.path / silent.host).is_dir()
            assert set(os.listdir(mount.path)) == {".ocifs", a.host}, (
                "looking at a host asks it nothing"
            )
            assert not silent.requests
            assert (mount.path / b.host / "other/tool:v2/layers/0/blob").read_bytes() == CONTENT
            assert set(os.listdir(mount.path)) == {".ocifs", a.host, b.host}
            for name in ("Makefile", ".git", "HEAD", "a b", "autorun.inf", "team", "x" * 255):
                assert absent(mount.path / name)
            assert os.readlink(mount.path / "registry-1.docker.io") == "docker.io"


def test_without_a_catalog_the_named_repositories_of_a_host_are_listed(tmp_path: Path) -> None:
    with (
        fault_server(lambda request: http(403)) as one,
        fault_server(lambda request: http(403)) as two,
    ):
        repos = [
            f"--repo={one.host}/seed/a",
            f"--repo={one.host}/seed/b",
            f"--repo={two.host}/other",
        ]
        with mounted(
            [*repos, one.host, f"{two.host}/named/c"], tmp_path / "mnt", tmp_path / "cache"
        ) as mount:
            assert os.listdir(mount.path / one.host) == ["seed"]
            assert sorted(os.listdir(mount.path / one.host / "seed")) == ["a", "b"]
            assert sorted(os.listdir(mount.path / two.host)) == ["named", "other"]
            assert (mount.path / one.host / "never/heard/of").is_dir()


def test_a_configured_mount_may_have_several_sources_or_any(
    two: tuple[Registry, Registry], tmp_path: Path
) -> None:
    a, b = two
    place = tmp_path / "mnt"
    place.mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        f'[mounts.two]\nsources = ["{a.host}", "{b.host}"]\nmountpoint = "{place}"\n'
        f'[mounts.all]\nany = true\nmountpoint = "{place}"\n'
    )
    environment = {**os.environ, "OCIFS_CONFIG": str(config), "XDG_CACHE_HOME": str(tmp_path)}
    for name, listed in (("two", {".ocifs", a.host, b.host}), ("all", {".ocifs"})):
        command = [sys.executable, "-m", "ocifs"]
        subprocess.run([*command, "mount", name], env=environment, check=True, timeout=60)
        try:
            assert set(os.listdir(place)) == listed
            assert (place / b.host / "other/tool:v2/layers/0/blob").read_bytes() == CONTENT
        finally:
            subprocess.run([*command, "umount", str(place)], check=True, timeout=60)


def test_commands_take_a_path_that_begins_with_any_host(
    two: tuple[Registry, Registry], tmp_path: Path
) -> None:
    a, b = two
    below = run_ocifs("cat", "--any", f"{a.host}/team/app:v1/layers/0/blob", cache=tmp_path)
    assert below.stdout == CONTENT
    listed = run_ocifs("ls", "--any", f"{b.host}/other/tool", "_tags", cache=tmp_path)
    assert listed.stdout == b"v2\n"
    shown = run_ocifs("tree", "--any", "-L", "1", f"{a.host}/team", cache=tmp_path)
    assert "app" in shown.stdout.decode()
    failed = run_ocifs("ls", "--any", "no-host/x", cache=tmp_path, check=False)
    assert failed.returncode == 1 and b"not a registry host" in failed.stderr


def test_a_short_name_is_resolved_by_its_alias(
    two: tuple[Registry, Registry], tmp_path: Path
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text('[aliases]\nshort = "r.example/team/app"\n')
    conf.write_text(
        '[aliases]\nshort = "r.example/team/app"\n'
        f'[[registry]]\nprefix = "r.example"\nlocation = "{two[0].host}"\n'
    )
    done = run_ocifs(
        "cat", "--registries-conf", str(conf), "short:v1", "layers/0/blob", cache=tmp_path
    )
    assert done.stdout == CONTENT
    conf.write_text("[[registry]]\ninsecure = 7\n")
    wrong = run_ocifs(
        "ls", "--registries-conf", str(conf), two[0].host, cache=tmp_path, check=False
    )
    assert wrong.returncode == 2 and f"{conf}: registry[1].".encode() in wrong.stderr
