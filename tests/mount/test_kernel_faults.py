"""Faults under root filesystems that the kernel serves: registry, daemon, cache, kernel, user."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ocifs.fuse.kernel.probe import probe
from tests.layers.tars import DIRECTORY, entry, tar
from tests.mount.test_kernel_mount import daemon, ended, status, table
from tests.mount.test_rootfs_mount import push_image
from tests.support.faultproxy import FaultProxy, fault_proxy
from tests.support.image import make_layout
from tests.support.mount import Mounted, mounted, run_ocifs, wait_until_blocked
from tests.support.registry import Registry, running_registry
from tests.support.views import BY_KERNEL, require_kernel
from tests.support.waiting import unmount, waited

pytestmark = [
    pytest.mark.mount,
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount EROFS"),
]
DICE = random.Random(26)
SMALL = {f"small/{number}": DICE.randbytes(3000) for number in range(40)}
LARGE = {f"large/{number}": DICE.randbytes(3 << 20) for number in range(3)}
IMAGE = tar(
    entry("small", DIRECTORY),
    *[entry(name, content=content) for name, content in SMALL.items()],
    entry("large", DIRECTORY),
    *[entry(name, content=content) for name, content in LARGE.items()],
)
SOON = 60.0  # seconds: long, but far below the deadlines of stuck readers
PATIENT = ("--timeout", "300", "--max-wait", "300")


@pytest.fixture(autouse=True)
def _kernel(tmp_path: Path) -> None:
    require_kernel(tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push_image(running, "fault/app", IMAGE)
        yield running


def drop_blobs(cache: Path) -> None:
    """Remove the content from a cache, but neither names nor indexes."""
    for kind in ("blobs", "partial", "sums"):
        shutil.rmtree(cache / "ocifs/v1" / kind, ignore_errors=True)


@contextmanager
def known(registry: Registry, place: Path, *options: str) -> Iterator[tuple[Mounted, FaultProxy]]:
    """A mount of the image through a proxy; the image is known, and none of its content cached."""
    cache, mnt = place / "cache", place / "mnt"
    with fault_proxy(registry.host) as proxy:
        source = f"{proxy.host}/fault/app:v1"
        with mounted(source, mnt, cache, BY_KERNEL):
            pass
        drop_blobs(cache)
        with mounted(source, mnt, cache, [*BY_KERNEL, *options]) as mount:
            # The mount is visible before it is complete.
            assert waited(
                lambda: not run_ocifs("status", str(mnt), cache=cache, check=False).returncode
            )
            yield mount, proxy


def states(processes: list[subprocess.Popen[bytes]]) -> list[str]:
    """The states of processes that have not ended (proc_pid_stat(5))."""
    found = []
    for process in processes:
        with suppress(OSError):
            text = Path(f"/proc/{process.pid}/stat").read_text()
            found.append(text.rpartition(")")[2].split()[0])
    return found


@pytest.mark.parametrize("fault", ["silent", "stall"])
def test_a_stalled_registry_stops_neither_listing_nor_signals(
    registry: Registry, tmp_path: Path, fault: str
) -> None:
    with known(registry, tmp_path, *PATIENT) as (mount, proxy):
        proxy.fault = fault
        readers = [subprocess.Popen(["cat", mount.path / name]) for name in LARGE]
        readers.append(subprocess.Popen(["cat", mount.path / "small/1"]))
        try:
            for reader in readers:
                wait_until_blocked(reader)
            listed = subprocess.run(
                ["find", mount.path, "-ls"], capture_output=True, timeout=SOON, check=True
            )
            assert len(listed.stdout.splitlines()) == 1 + 2 + len(SMALL) + len(LARGE)
            for number, reader in enumerate(readers):
                reader.send_signal((signal.SIGINT, signal.SIGKILL)[number % 2])
                assert reader.wait(SOON) < 0
        finally:
            for reader in readers:
                reader.kill()


def test_no_reader_waits_longer_than_max_wait(registry: Registry, tmp_path: Path) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "try: open(sys.argv[1], 'rb').read()\n"
        "except OSError as error: sys.exit(error.errno)"
    )
    with known(registry, tmp_path, "--timeout", "2", "--max-wait", "2") as (mount, proxy):
        proxy.fault = "silent"
        paths = [mount.path / name for name in [*LARGE, *list(SMALL)[:5]]]
        readers = [subprocess.Popen([sys.executable, "-c", program, path]) for path in paths]
        try:
            assert {reader.wait(SOON) for reader in readers} == {errno.EIO}
            assert states(readers) == []
        finally:
            for reader in readers:
                reader.kill()
        errors = status(mount.path, mount.cache)["status"]["errors"]  # type: ignore[index]
        assert set(errors) <= {"ETIMEDOUT", "EHOSTUNREACH"} and errors
        # The next reader asks again.
        proxy.fault = ""
        proxy.again = 0.0
        assert waited(lambda: can_read(mount.path / "small/7", SMALL["small/7"]))


def can_read(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError as error:
        assert error.errno == errno.EIO
        return False


def test_a_killed_daemon_leaves_names_and_cached_content(
    registry: Registry, tmp_path: Path
) -> None:
    with known(registry, tmp_path) as (mount, _):
        name, cached = next(iter(LARGE.items()))
        assert (mount.path / name).read_bytes() == cached
        mount.kill()
        assert len(list(mount.path.rglob("*"))) == 2 + len(SMALL) + len(LARGE)
        assert (mount.path / name).read_bytes() == cached
        with pytest.raises(OSError) as raised:
            (mount.path / "large/2").read_bytes()
        assert raised.value.errno == errno.EIO
        assert status_of(mount.path, mount.cache) == "dead"
        assert b"the daemon has died" in run_ocifs("status", cache=mount.cache).stdout
        # A mount at the same place replaces it.
        source = f"{registry.host}/fault/app:v1"
        with daemon(source, mount.path, mount.cache, *BY_KERNEL):
            assert (mount.path / "large/2").read_bytes() == LARGE["large/2"]
            assert len(table(mount.path)) == 1
        assert table(mount.path) == [] and ended(mount.path)


def status_of(path: Path, cache: Path) -> str:
    done = run_ocifs("status", "--json", str(path), cache=cache, check=False)
    assert done.returncode == 1
    return "dead" if b'"state": "dead"' in done.stdout else done.stdout.decode()


def test_auto_unmount_detaches_the_mount_of_a_killed_daemon(
    registry: Registry, tmp_path: Path
) -> None:
    with known(registry, tmp_path, "--auto-unmount") as (mount, _):
        assert len(table(mount.path)) == 1
        mount.kill()
        assert waited(lambda: table(mount.path) == []) and ended(mount.path)


def test_auto_unmount_leaves_the_next_mount_alone(registry: Registry, tmp_path: Path) -> None:
    source, cache = f"{registry.host}/fault/app:v1", tmp_path / "cache"
    with daemon(source, tmp_path / "mnt", cache, *BY_KERNEL, "--auto-unmount") as path:
        run_ocifs("umount", str(path), cache=cache)
        assert ended(path)
        with daemon(source, path, cache, *BY_KERNEL):
            assert (path / "small/1").read_bytes() == SMALL["small/1"]
            assert len(table(path)) == 1


def test_corrupt_content_is_an_error_and_the_rest_is_served(
    registry: Registry, tmp_path: Path
) -> None:
    with known(registry, tmp_path) as (mount, proxy):
        proxy.fault = "corrupt"
        for name in ("large/0", "small/3"):
            with pytest.raises(OSError) as raised:
                (mount.path / name).read_bytes()
            assert raised.value.errno == errno.EIO
        assert status(mount.path, mount.cache)["status"]["errors"]["EIO"] > 0  # type: ignore[index]
        proxy.fault = ""
        for name, content in {**SMALL, **LARGE}.items():
            assert waited(lambda: can_read(mount.path / name, content)), name  # noqa: B023


def test_content_that_was_evicted_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    with known(registry, tmp_path) as (mount, _):
        assert (mount.path / "large/0").read_bytes() == LARGE["large/0"]
        run_ocifs("cache", "clear", cache=mount.cache, check=False)
        # The image is in use, and stays.
        assert list((mount.cache / "ocifs/v1/derived").glob("layer-erofs.*/*/*"))
        for name, content in {**SMALL, **LARGE}.items():
            assert (mount.path / name).read_bytes() == content


@contextmanager
def file_system(kind: str, place: Path, tmpfs: str = "size=64m") -> Iterator[Path]:
    """A directory on a file system of its own."""
    place.mkdir()
    options = ["-o", tmpfs] if kind == "tmpfs" else []
    if kind == "overlay":
        for name in ("lower", "upper", "work"):
            (place.parent / name).mkdir()
        parent = place.parent
        options = [
            "-o",
            f"lowerdir={parent}/lower,upperdir={parent}/upper,workdir={parent}/work",
        ]
    subprocess.run(["mount", "-t", kind, kind, *options, place], check=True)
    try:
        yield place
    finally:
        unmount(place)


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_a_cache_on_another_file_system_is_served_or_has_a_reason(
    registry: Registry, tmp_path: Path, kind: str
) -> None:
    source = f"{registry.host}/fault/app:v1"
    with file_system(kind, tmp_path / "cache") as cache:
        options = ["--view", "rootfs", "--kernel", "auto"]
        with mounted(source, tmp_path / "mnt", cache, options) as mount:
            found = status(mount.path, cache)["status"]["kernel"]  # type: ignore[index]
            method = probe(cache).method
            assert found["served_by"] == ("erofs" if method else "fuse")
            assert bool(found["reason"]) == (method != "file")
            for name, content in {**SMALL, **LARGE}.items():
                assert (mount.path / name).read_bytes() == content
        assert ended(mount.path)
        assert not subprocess.run(["losetup", "-j", cache], capture_output=True, check=True).stdout


def test_without_room_for_the_image_auto_falls_back_to_fuse(tmp_path: Path) -> None:
    names = [entry(f"names/{number}", content=b"x") for number in range(3000)]
    source = f"oci:{make_layout(tmp_path / 'layout', [tar(entry('names', DIRECTORY), *names)])}:v1"
    mnt, cache = tmp_path / "mnt", tmp_path / "cache"
    mnt.mkdir()
    with file_system("tmpfs", cache, "size=64k"):
        arguments = ("mount", source, str(mnt), *BY_KERNEL)
        done = run_ocifs(*arguments, cache=cache, check=False)
        assert done.returncode != 0 and b"full" in done.stderr
        assert table(mnt) == []
        with mounted(source, mnt, cache, ["--view", "rootfs", "--kernel", "auto"]) as mount:
            found = status(mnt, cache)["status"]["kernel"]  # type: ignore[index]
            assert found["served_by"] == "fuse" and "full" in found["reason"]
            assert (mount.path / "names/7").read_bytes() == b"x"


@pytest.mark.parametrize("where", ["/proc", "/sys"])
def test_a_probe_of_a_file_system_that_refuses_has_a_reason(where: str) -> None:
    found = probe(Path(where))
    assert not found.method and "cannot write" in found.reason


def test_a_user_namespace_gets_the_reason(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [IMAGE])
    (tmp_path / "mnt").mkdir()
    words = [sys.executable, "-m", "ocifs", "mount", f"oci:{layout}:v1", str(tmp_path / "mnt")]
    command = ["unshare", "--user", "--map-root-user", "--mount", *words, *BY_KERNEL]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=SOON, check=False)
    assert done.returncode == 2
    assert b"this process may not mount EROFS" in done.stderr


def test_another_namespace_keeps_the_daemon(registry: Registry, tmp_path: Path) -> None:
    source, cache = f"{registry.host}/fault/app:v1", tmp_path / "cache"
    with daemon(source, tmp_path / "mnt", cache, *BY_KERNEL) as path:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        script = 'echo; read -r line; cat "$0"'
        other = subprocess.Popen(
            [*command, script, path / "large/1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == b"\n"
        pid = status(path, cache)["status"]["pid"]  # type: ignore[index]
        run_ocifs("umount", str(path), cache=cache)
        assert Path(f"/proc/{pid}").exists()
        assert other.communicate(b"\n", timeout=SOON)[0] == LARGE["large/1"]
        assert ended(path)


def test_a_busy_directory_is_hidden_and_comes_back(registry: Registry, tmp_path: Path) -> None:
    source, cache, place = f"{registry.host}/fault/app:v1", tmp_path / "cache", tmp_path / "mnt"
    place.mkdir()
    (place / "below").write_text("below")
    user = subprocess.Popen(["sleep", "600"], cwd=place)
    try:
        with daemon(source, place, cache, *BY_KERNEL):
            assert not (place / "below").exists()
        assert (place / "below").read_text() == "below"
    finally:
        user.kill()
        user.wait()


def test_a_mount_on_top_has_to_go_first(registry: Registry, tmp_path: Path) -> None:
    source, cache = f"{registry.host}/fault/app:v1", tmp_path / "cache"
    with daemon(source, tmp_path / "mnt", cache, *BY_KERNEL) as path:
        subprocess.run(["mount", "--bind", path / "small", path / "large"], check=True)
        try:
            done = run_ocifs("umount", str(path), cache=cache, check=False)
            assert done.returncode == 2
            assert f"in use by the mount at {path}/large".encode() in done.stderr
        finally:
            unmount(path / "large")
        run_ocifs("umount", str(path), cache=cache)
        assert ended(path)
