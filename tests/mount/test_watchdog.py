"""A watchdog over many workers on one mount. None may stall while the others load it."""

from __future__ import annotations

import faulthandler
import gzip
import hashlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.layers.tars import DIRECTORY, entry, tar
from tests.mount.test_registry_mount import push_files
from tests.support.mount import Mounted, mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

# seconds: long, for a busy machine. A stalled worker waits for the timeout of 300 s, or for ever.
STALL = 60.0
SECONDS, LOOPS = 8.0, 2  # the length of the load, and the minimum of loops of each worker
DICE = random.Random(7)
BLOBS = [DICE.randbytes(8 << 20) for _ in range(3)]
FILES = {f"d/{number}": DICE.randbytes(20_000).hex().encode() for number in range(150)}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push_files(running, "watched/blobs", "v1", *BLOBS)
        push_image(running)
        yield running


def push_image(registry: Registry) -> None:
    data = tar(
        entry("d", DIRECTORY), *[entry(name, content=content) for name, content in FILES.items()]
    )
    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}"]
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    )

    def pushed(content: bytes, media_type: str) -> dict[str, object]:
        digest = push_blob(registry.url, "watched/image", content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": pushed(config.encode(), mediatype.OCI_CONFIG),
        "layers": [pushed(gzip.compress(data, 1, mtime=0), mediatype.OCI_LAYER_GZIP)],
    }
    push_manifest(registry.url, "watched/image", manifest, "v1")


class Worker(threading.Thread):
    """A thread that repeats one action.

    `since` is the start of the current loop, and `loops` the number of complete loops.
    """

    def __init__(self, name: str, work: Callable[[], None], over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.since, self.loops, self.error = time.monotonic(), 0, ""
        self._work, self._over = work, over

    def run(self) -> None:
        while self.loops < LOOPS or not self._over.is_set():
            self.since = time.monotonic()
            try:
                self._work()
            except Exception as error:
                self.error = f"{self.name}: {error!r}"
                return
            self.loops += 1


def forget(descriptor: int) -> None:
    """Drop the file's pages, so that the kernel reads them from the daemon again."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def tasks(mount: Mounted) -> dict[str, Callable[[], None]]:
    blobs, image = (
        mount.path / "watched/blobs/_manifests/v1",
        mount.path / "watched/image/_manifests/v1",
    )

    def read_blob(number: int) -> None:
        with (blobs / f"layers/{number}/blob").open("rb") as file:
            forget(file.fileno())
            assert file.read() == BLOBS[number]

    def read_files() -> None:
        for name, content in FILES.items():
            with (image / "rootfs" / name).open("rb") as file:
                forget(file.fileno())
                assert file.read() == content

    def read_by_chance() -> None:
        with (blobs / "layers/0/blob").open("rb", buffering=0) as file:
            for _ in range(50):
                start = random.randrange(len(BLOBS[0]) - 4096)
                forget(file.fileno())
                assert os.pread(file.fileno(), 4096, start) == BLOBS[0][start : start + 4096]

    def walk() -> None:
        assert sum(len(files) for _, _, files in os.walk(image / "rootfs")) == len(FILES)

    def look_at_tags() -> None:
        assert os.listdir(mount.path / "watched/blobs/_tags") == ["v1"]
        assert (blobs / "digest").read_text().startswith("sha256:")

    def look_at_status() -> None:
        assert json.loads((mount.path / ".ocifs/status.json").read_bytes())["unexpected"] == 0
        os.statvfs(mount.path)

    return {
        **{
            f"reads blob {number}": lambda number=number: read_blob(number)
            for number in range(len(BLOBS))
        },
        **{"reads files": read_files, "reads by chance": read_by_chance, "walks": walk},
        **{"looks at tags": look_at_tags, "looks at the status": look_at_status},
    }


@pytest.mark.parametrize("size", ["1G", "12M"], ids=["a large cache", "a small cache"])
def test_no_worker_stalls_while_others_load_the_mount(
    registry: Registry, tmp_path: Path, size: str
) -> None:
    options = ["--timeout=300", f"--cache-size={size}"]
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        over = threading.Event()
        workers = [Worker(name, work, over) for name, work in tasks(mount).items()]
        end = time.monotonic() + SECONDS
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers):
                if time.monotonic() > end:
                    over.set()
                stalled = [
                    each
                    for each in workers
                    if each.is_alive() and time.monotonic() - each.since > STALL
                ]
                if stalled:
                    faulthandler.dump_traceback()
                    mount.process.send_signal(
                        signal.SIGKILL
                    )  # wakes the threads that wait in the kernel
                assert not stalled, [
                    f"{each.name} for {time.monotonic() - each.since:.0f} s" for each in stalled
                ]
                over.wait(0.1)
                time.sleep(0.1)  # the interval of the watchdog
        finally:
            over.set()
        assert [worker.error for worker in workers if worker.error] == []
        assert {worker.name: worker.loops for worker in workers if worker.loops < LOOPS} == {}
