"""Real mounts in an outage of the registry, offline, and while content changes under readers."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.mount.test_registry_mount import push_files
from tests.support.mount import mounted, run_ocifs
from tests.support.registry import Registry, running_registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

NOW = ["--tag-ttl", "0"]  # names are not cached


@contextmanager
def counting(port: int) -> Iterator[list[object]]:
    """A silent server on a port, with a list of its connections."""
    seen: list[object] = []
    listener = socket.create_server(("127.0.0.1", port))

    def accept() -> None:
        while True:
            try:
                seen.append(listener.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection, _ in seen:  # type: ignore[misc]
            connection.close()


def refusal(path: Path) -> int | None:
    """The errno of a read, or None."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno
    return None


def registry_of(mount: Path) -> dict[str, object]:
    found = json.loads((mount / ".ocifs/status.json").read_bytes())["registries"][0]
    assert isinstance(found, dict)
    return found


def test_offline_makes_no_connections(tmp_path: Path) -> None:
    kept, other = random.Random(1).randbytes(300_000), random.Random(2).randbytes(300_000)
    cache = tmp_path / "cache"
    with running_registry(tmp_path) as registry:
        push_files(registry, "off/app", "v1", kept, other)
        run_ocifs("prefetch", f"{registry.host}/off/app:v1", "layers/0/blob", cache=cache)
        port = int(registry.host.rpartition(":")[2])
    with counting(port) as seen:
        with mounted(f"127.0.0.1:{port}", tmp_path / "mnt", cache, ["--offline"]) as mount:
            app = mount.path / "off/app:v1"
            assert (app / "layers/0/blob").read_bytes() == kept
            assert (app / "kind").read_text() == "artifact\n"
            unknown = (
                app / "layers/1/blob",
                mount.path / "off/app:v2/digest",
                mount.path / "never/app:v1/digest",
                mount.path / f"off/app/_blobs/sha256:{'0' * 64}",
                mount.path / f"off/app/_manifests/sha256:{'0' * 64}/digest",
            )
            for path in unknown:
                assert refusal(path) == errno.EHOSTUNREACH
            with pytest.raises(OSError) as refused:
                os.listdir(app / "referrers")
            assert refused.value.errno == errno.EHOSTUNREACH
        for command in (
            ["ls", "SOURCE", "layers"],
            ["inspect", "SOURCE"],
            ["tree", "-L", "1", "SOURCE"],
        ):
            words = [
                f"127.0.0.1:{port}/off/app:v1" if word == "SOURCE" else word for word in command
            ]
            run_ocifs(words[0], "--offline", *words[1:], cache=cache, check=False)
        assert not seen


def test_an_outage_is_logged_once_and_ends_without_a_restart(
    tmp_path: Path,
) -> None:
    first, second = random.Random(3).randbytes(300_000), random.Random(4).randbytes(300_000)
    with running_registry(tmp_path) as registry:
        push_files(registry, "away/app", "v1", first, second)
        port = int(registry.host.rpartition(":")[2])
        mount_of = mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", NOW)
        mount = mount_of.__enter__()
        app = mount.path / "away/app:v1"
        assert (app / "layers/0/blob").read_bytes() == first
        assert os.listdir(mount.path / "away/app/_tags") == ["v1"]
    try:
        for _ in range(5):
            assert refusal(mount.path / "away/app:v1/layers/1/blob") in (
                errno.ECONNREFUSED,
                errno.EHOSTUNREACH,
            )
            assert (mount.path / "away/app:v1/layers/0/blob").read_bytes() == first
            assert os.listdir(mount.path / "away/app/_tags") == ["v1"]
            assert refusal(mount.path / "away/app:v2/digest") == errno.ECONNREFUSED
        told = registry_of(mount.path)
        assert (told["reachable"], told["stale"]) == (False, True)
        with running_registry(tmp_path, port=port) as registry:
            push_files(registry, "away/app", "v2", b"new")
            eventually(lambda: refusal(mount.path / "away/app:v2/digest") is None)
            assert (mount.path / "away/app:v1/layers/1/blob").read_bytes() == second
            told = registry_of(mount.path)
            assert (told["reachable"], told["stale"]) == (True, False)
    finally:
        mount_of.__exit__(None, None, None)
    log = mount.said.decode()
    assert log.count("cannot be reached") == 1
    assert log.count("is reachable again") == 1


def eventually(condition: object) -> None:
    """Wait until a condition holds, for at most the longest back-off after a few failures."""
    assert callable(condition)
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)  # there is no event for the end of a back-off


def test_a_mount_made_in_an_outage_shows_the_registry_after_it(
    tmp_path: Path,
) -> None:
    with running_registry(tmp_path) as registry:
        push_files(registry, "late/app", "v1", b"content")
        port = int(registry.host.rpartition(":")[2])
    with mounted(f"127.0.0.1:{port}", tmp_path / "mnt", tmp_path / "cache", NOW) as mount:
        with pytest.raises(OSError) as refused:
            os.listdir(mount.path)
        assert refused.value.errno == errno.ECONNREFUSED
        with running_registry(tmp_path, port=port):
            eventually(lambda: refusal(mount.path / "late/app:v1/layers/0/blob") is None)


def test_a_registry_that_falls_silent_leaves_known_names_as_they_were(tmp_path: Path) -> None:
    with running_registry(tmp_path) as registry:
        push_files(registry, "mute/app", "v1", b"content")
        port = int(registry.host.rpartition(":")[2])
        run_ocifs("ls", f"{registry.host}/mute/app", "_tags", cache=tmp_path / "cache")
        run_ocifs("cat", f"{registry.host}/mute/app:v1", "layers/0/blob", cache=tmp_path / "cache")
    with (
        counting(port),
        mounted(
            f"127.0.0.1:{port}", tmp_path / "mnt", tmp_path / "cache", [*NOW, "--timeout", "3"]
        ) as mount,
    ):
        assert (mount.path / "mute/app:v1/layers/0/blob").read_bytes() == b"content"
        assert os.listdir(mount.path / "mute/app/_tags") == ["v1"]
        assert registry_of(mount.path)["stale"]


def test_a_tag_that_moves_mixes_nothing(registry: Registry, tmp_path: Path) -> None:
    old, new = random.Random(5).randbytes(400_000), random.Random(6).randbytes(400_000)
    before = push_files(registry, "moves/app", "v1", old)
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", NOW) as mount:
        app = mount.path / "moves/app:v1"
        directory = os.open(app, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with (app / "layers/0/blob").open("rb", buffering=0) as file:
                assert file.read(1000) == old[:1000]
                after = push_files(registry, "moves/app", "v1", new)
                eventually(lambda: (app / "digest").read_text().strip() == after)
                assert (app / "layers/0/blob").read_bytes() == new
                assert os.pread(file.fileno(), len(old), 0) == old

                def inside(name: str) -> bytes:
                    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
                    with os.fdopen(descriptor, "rb") as found:
                        return found.read()

                assert inside("digest").decode().strip() == before
                assert inside("layers/0/blob") == old
                assert (
                    inside("manifest.json")
                    == (mount.path / f"moves/app@{before}/manifest.json").read_bytes()
                )
        finally:
            os.close(directory)


def test_deleted_content_stays_readable_while_open_and_is_absent_for_new_lookups(
    tmp_path: Path,
) -> None:
    content = random.Random(7).randbytes(400_000)
    with running_registry(tmp_path) as registry:
        digest = push_files(registry, "gone/app", "v1", content)
        push_files(registry, "gone/app", "v2", b"other")
        with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", NOW) as mount:
            app = mount.path / "gone/app:v1"
            with (app / "layers/0/blob").open("rb", buffering=0) as file:
                assert file.read(10) == content[:10]
                assert os.pread(file.fileno(), len(content), 0) == content
                httpx.delete(
                    f"{registry.url}/v2/gone/app/manifests/{digest}", trust_env=False
                ).raise_for_status()
                eventually(lambda: refusal(app / "digest") == errno.ENOENT)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.pread(file.fileno(), len(content), 0) == content
            assert (mount.path / "gone/app:v2/layers/0/blob").read_bytes() == b"other"
            assert "v1" not in os.listdir(mount.path / "gone/app/_tags")
