"""A real registry and a real mount, used as by users."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.support.mount import mounted, run_ocifs, wait_until_blocked
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.silent import silent_server

pytestmark = [pytest.mark.mount, pytest.mark.servers]


def push_files(registry: Registry, repository: str, tag: str, *contents: bytes) -> str:
    """Push an artifact with a layer for each content, and return the manifest's digest."""
    config = push_blob(registry.url, repository, b"{}")
    layers = [
        {
            "mediaType": mediatype.OCTET_STREAM,
            "digest": push_blob(registry.url, repository, content),
            "size": len(content),
        }
        for content in contents
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": "application/vnd.example.thing",
        "config": {"mediaType": mediatype.OCI_EMPTY, "digest": config, "size": 2},
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": "2024-01-02T03:04:05Z"},
    }
    return push_manifest(registry.url, repository, manifest, tag)


def blob_requests(registry: Registry) -> int:
    """The number of requests for blobs in the registry's log."""
    return registry.log.read_text(errors="replace").count("/blobs/sha256:")


def manifest_requests(registry: Registry) -> int:
    return sum(
        line.count('"GET /v2/')
        for line in registry.log.read_text(errors="replace").splitlines()
        if "/manifests/" in line
    )


def test_a_registry_is_browsed_with_everyday_tools(registry: Registry, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3_000_000)
    digest = push_files(registry, "browse/app", "v1", content)
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        app = mount.path / "browse" / "app"
        assert sorted(os.listdir(app)) == ["_blobs", "_manifests", "_tags"]
        assert os.readlink(app / "_tags" / "v1") == "../_manifests/v1"
        shown = subprocess.run(
            ["sha256sum", mount.path / "browse/app:v1/manifest.json"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.split()[0] == digest.removeprefix("sha256:")
        assert (app / "_tags/v1/digest").read_text() == f"{digest}\n"
        assert (app / f"_manifests/{digest}/kind").read_text() == "artifact\n"
        assert (app / "_tags/v1/layers/0/blob").read_bytes() == content
        blob = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert (app / "_blobs" / blob).stat().st_ino == (
            app / "_tags/v1/layers/0/blob"
        ).stat().st_ino
        assert os.getxattr(app / "_tags/v1/", "user.oci.digest") == digest.encode()
        assert (app / "_tags/v1/manifest.json").stat().st_mtime == 1704164645
        subprocess.run(["cp", "-rL", app / "_tags/v1", tmp_path / "copy"], check=True)
        assert (tmp_path / "copy/layers/0/blob").read_bytes() == content


def test_nothing_can_be_written(registry: Registry, tmp_path: Path) -> None:
    push_files(registry, "write/app", "v1", b"x")
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        app = mount.path / "write/app"
        for attempt in (
            lambda: (app / "new").write_text("x"),
            lambda: (app / "_tags/v1/kind").write_text("x"),
            lambda: (app / "dir").mkdir(),
            lambda: (app / "_tags/v1").unlink(),
            lambda: (app / "_tags/v1/kind").chmod(0o600),
            lambda: os.rename(app / "_tags/v1", app / "_tags/v2"),
        ):
            with pytest.raises(OSError) as refused:
                attempt()
            assert refused.value.errno == errno.EROFS


def test_a_walk_over_everything_fetches_neither_manifest_nor_blob(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with running_registry(tmp_path / "data") as registry:
        for name in ("a", "a/b", "c/d/e"):
            push_files(registry, name, "v1", name.encode())
        before = manifest_requests(registry), blob_requests(registry)
        with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            for command in (
                ["find"],
                ["du", "-s"],
                ["grep", "-r", "nothing-is-called-this"],
                ["ls", "-lR"],
                ["ls", "--color=always", "-R"],
            ):
                subprocess.run(
                    [*command, str(mount.path)], capture_output=True, check=False, timeout=60
                )
            assert (manifest_requests(registry), blob_requests(registry)) == before


def test_cached_content_is_readable_without_the_registry(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(1_000_000)
    (tmp_path / "data").mkdir()
    cache = tmp_path / "cache"
    with running_registry(tmp_path / "data") as registry:
        push_files(registry, "keep/app", "v1", content)
        with mounted(registry.host, tmp_path / "mnt", cache) as mount:
            assert (mount.path / "keep/app:v1/layers/0/blob").read_bytes() == content
            assert os.listdir(mount.path / "keep/app/_tags") == ["v1"]
            before = blob_requests(registry)
        with mounted(registry.host, tmp_path / "mnt", cache) as mount:
            assert (mount.path / "keep/app:v1/layers/0/blob").read_bytes() == content
            assert blob_requests(registry) == before
    with mounted(registry.host, tmp_path / "mnt", cache) as mount:
        assert (mount.path / "keep/app:v1/layers/0/blob").read_bytes() == content
        assert os.listdir(mount.path / "keep/app/_tags") == ["v1"]
        with pytest.raises(OSError) as refused:
            (mount.path / "keep/app:v2/digest").read_bytes()
        assert refused.value.errno == errno.ECONNREFUSED
        assert "ECONNREFUSED" in (mount.path / ".ocifs/errors").read_text()


def test_many_readers_get_the_right_bytes_and_each_byte_is_fetched_once(tmp_path: Path) -> None:
    contents = [random.Random(n).randbytes(700_000) for n in range(8)]
    (tmp_path / "data").mkdir()
    with running_registry(tmp_path / "data") as registry:
        push_files(registry, "many/app", "v1", *contents)
        with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            paths = [mount.path / f"many/app:v1/layers/{n}/blob" for n in range(8)] * 8
            with ThreadPoolExecutor(64) as pool:
                read = list(pool.map(Path.read_bytes, paths))
            assert read == contents * 8
        # 700,000 bytes are eleven blocks. Windows of at least 128 KiB need at most six requests.
        assert registry.log.read_text().count('"GET /v2/many/app/blobs/') <= 8 * 6


def test_random_reads_fetch_little(tmp_path: Path) -> None:
    content = random.Random(3).randbytes(40_000_000)
    (tmp_path / "data").mkdir()
    with running_registry(tmp_path / "data") as registry:
        push_files(registry, "random/app", "v1", content)
        with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            chance = random.Random(4)
            with (mount.path / "random/app:v1/layers/0/blob").open("rb", buffering=0) as file:
                for _ in range(20):
                    offset = chance.randrange(len(content) - 4096)
                    assert os.pread(file.fileno(), 4096, offset) == content[offset : offset + 4096]
            partial = next((tmp_path / "cache/ocifs/v1/partial/sha256").glob("*[!p]"))
            assert partial.stat().st_blocks * 512 < 20 * 150_000


def test_one_reference_is_a_mount_of_its_own(registry: Registry, tmp_path: Path) -> None:
    digest = push_files(registry, "single/app", "v1", b"payload")
    for source in (f"{registry.host}/single/app:v1", f"{registry.host}/single/app@{digest}"):
        with mounted(source, tmp_path / "mnt", tmp_path / "cache") as mount:
            assert (mount.path / "digest").read_text() == f"{digest}\n"
            assert (mount.path / "layers/0/blob").read_bytes() == b"payload"
            assert (mount.path / f"_manifests/{digest}/kind").read_text() == "artifact\n"


def test_a_reference_that_does_not_exist_is_an_error_of_the_command(
    registry: Registry, tmp_path: Path
) -> None:
    push_files(registry, "missing/app", "v1", b"x")
    (tmp_path / "mnt").mkdir()
    done = run_ocifs(
        "mount",
        f"{registry.host}/missing/app:nope",
        str(tmp_path / "mnt"),
        cache=tmp_path / "cache",
        check=False,
    )
    assert done.returncode == 1
    assert b"has no tag nope" in done.stderr
    assert not os.path.ismount(tmp_path / "mnt")


def test_the_daemon_returns_when_the_mount_answers_and_umount_ends_it(
    registry: Registry, tmp_path: Path, monkeypatch
) -> None:
    push_files(registry, "daemon/app", "v1", b"x")
    (tmp_path / "mnt").mkdir()
    monkeypatch.chdir(tmp_path)  # a relative mount point is relative to the user's directory
    run_ocifs("mount", registry.host, "mnt", cache=tmp_path / "cache")
    try:
        assert "daemon" in os.listdir(tmp_path / "mnt")
        status = run_ocifs("status", "--json", cache=tmp_path / "cache")
        rows = json.loads(status.stdout)
        row = next(each for each in rows if each["mountpoint"] == str(tmp_path / "mnt"))
        assert (row["source"], row["state"]) == (registry.host, "answers")
        told = row["status"]["registries"][0]
        assert (told["host"], told["reachable"], told["stale"], told["failures"]) == (
            registry.host,
            True,
            False,
            0,
        )
        assert (
            f"{registry.host}: reachable"
            in run_ocifs("status", cache=tmp_path / "cache").stdout.decode()
        )
    finally:
        run_ocifs("umount", str(tmp_path / "mnt"), cache=tmp_path / "cache")
    assert not os.path.ismount(tmp_path / "mnt")


def test_a_dead_mount_is_replaced(registry: Registry, tmp_path: Path) -> None:
    push_files(registry, "dead/app", "v1", b"x")
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache") as mount:
        mount.kill()
        with pytest.raises(OSError) as refused:
            os.listdir(mount.path)
        assert refused.value.errno == errno.ENOTCONN
        run_ocifs("mount", registry.host, str(mount.path), cache=tmp_path / "cache")
        try:
            assert "dead" in os.listdir(mount.path)
        finally:
            run_ocifs("umount", str(mount.path), cache=tmp_path / "cache")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", [["ls"], ["stat", "-c", "%i"], ["cat"]])
def test_a_caller_is_freed_from_a_silent_registry(
    tmp_path: Path, number: signal.Signals, command: list[str]
) -> None:
    path = {"ls": "", "stat": "some/app:v1", "cat": "some/app:v1/kind"}[command[0]]
    options = ["--timeout", "300"]
    with (
        silent_server() as host,
        mounted(host, tmp_path / "mnt", tmp_path / "cache", options) as mount,
    ):
        caller = subprocess.Popen(
            [*command, str(mount.path / path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_blocked(caller)
        caller.send_signal(number)
        caller.wait(60)  # an unkillable reader would wait for the timeout of 300 s
        assert os.listdir(mount.path / ".ocifs")


def test_a_silent_registry_is_a_time_out_and_the_mount_lives(tmp_path: Path) -> None:
    with (
        silent_server() as host,
        mounted(host, tmp_path / "mnt", tmp_path / "cache", ["--timeout", "0.5"]) as mount,
    ):
        with pytest.raises(OSError) as refused:
            os.listdir(mount.path)
        assert refused.value.errno == errno.ETIMEDOUT
        assert "ETIMEDOUT" in (mount.path / ".ocifs/errors").read_text()
        os.statvfs(mount.path)


@pytest.mark.parametrize(
    "command",
    [["ls", "{}/cli/app", "_tags"], ["cat", "{}/cli/app:v1", "kind"], ["tree", "{}/cli", ""]],
)
def test_the_same_paths_work_without_a_mount(
    registry: Registry, tmp_path: Path, command: list[str]
) -> None:
    push_files(registry, "cli/app", "v1", b"x")
    done = run_ocifs(*(word.format(registry.host) for word in command), cache=tmp_path / "cache")
    assert (
        done.stdout.decode().split()[-1] in ("v1", "artifact", "_blobs")
        or "v1" in done.stdout.decode()
    )


def test_inspect_shows_the_kind_of_a_manifest(registry: Registry, tmp_path: Path) -> None:
    digest = push_files(registry, "inspect/app", "v1", b"x")
    cache = tmp_path / "cache"
    said = json.loads(
        run_ocifs("inspect", "--json", f"{registry.host}/inspect/app:v1", cache=cache).stdout
    )
    assert (said["kind"], said["decided_by"], said["digest"]) == (
        "artifact",
        "artifactType",
        digest,
    )
    page = run_ocifs("inspect", f"{registry.host}/inspect/app:v1", cache=cache).stdout.decode()
    assert page.startswith("Kind:") and "application/vnd.example.thing" in page
    refused = run_ocifs("inspect", f"{registry.host}/inspect/app", cache=cache, check=False)
    assert refused.returncode == 2 and b"add :TAG" in refused.stderr
