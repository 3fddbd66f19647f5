"""Root filesystems that the kernel serves as EROFS: the commands, the mount table, the overlay."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocifs.fuse.kernel import records
from tests.layers.tars import DIRECTORY, entry, tar
from tests.mount.test_rootfs_mount import AS_IT_IS, BASE, BIG, MIDDLE, TOP, unpacked
from tests.support.image import make_layout
from tests.support.mount import mounted, run_ocifs
from tests.support.oracle import differences, facts
from tests.support.views import BY_KERNEL, require_kernel, root_of
from tests.support.waiting import waited

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount EROFS"),
]
LAYERS = [BASE, MIDDLE, TOP]


@pytest.fixture(autouse=True)
def _kernel(tmp_path: Path) -> None:
    require_kernel(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"oci:{make_layout(tmp_path / 'layout', LAYERS)}:v1"


def table(path: Path) -> list[str]:
    """The types and sources of the mounts at a path, from the mount table."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [
        " ".join(line.partition(" - ")[2].split(" ")[:2])
        for line in lines
        if line.split(" ")[4] == str(path)
    ]


def options_of(path: Path) -> set[str]:
    """The flags of the mount at a path."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        flag
        for line in lines
        if line.split(" ")[4] == str(path)
        for flag in line.split(" ")[5].split(",")
    }


def status(path: Path, cache: Path) -> dict[str, object]:
    rows = json.loads(run_ocifs("status", "--json", str(path), cache=cache).stdout)
    assert len(rows) == 1
    row: dict[str, object] = rows[0]
    return row


@contextmanager
def daemon(source: str, where: Path, cache: Path, *options: str) -> Iterator[Path]:
    """A mount whose command has returned."""
    where.mkdir(exist_ok=True)
    run_ocifs("mount", source, str(where), *options, cache=cache)
    try:
        yield where
    finally:
        if os.path.ismount(where):
            run_ocifs("umount", "--lazy", str(where), cache=cache)


def ended(path: Path) -> bool:
    """Wait for the end of a mount's record, the last thing that its daemon removes."""
    return waited(lambda: all(each.mountpoint != str(path) for each in records.all_records()))


def wait_for_end(pid: int) -> None:
    assert waited(lambda: not Path(f"/proc/{pid}").exists())


def test_names_and_attributes_need_no_request(source: str, tmp_path: Path) -> None:
    with root_of("kernel", source, tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as (root, _):
        before = status(root, tmp_path / "cache")["status"]
        listed = subprocess.run(["find", root, "-ls"], check=True, capture_output=True).stdout
        assert len(listed.splitlines()) > 250
        after = status(root, tmp_path / "cache")["status"]
        assert before["operations"] == after["operations"]  # type: ignore[index]
        assert (root / "big").read_bytes() == BIG
        assert status(root, tmp_path / "cache")["status"]["operations"]["read"] < 20  # type: ignore[index]


def test_the_mount_table_shows_the_source_and_the_safe_flags(source: str, tmp_path: Path) -> None:
    options = [*BY_KERNEL, "--noexec", "--nosymfollow"]
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        assert table(mount.path) == [f"erofs {source}"]
        assert {"ro", "nosuid", "nodev", "noexec", "nosymfollow"} <= options_of(mount.path)
        with pytest.raises(OSError) as raised:
            (mount.path / "etc/motd").read_bytes()
        assert raised.value.errno == errno.ELOOP


@pytest.mark.parametrize("name", ["/absolute", "a/../b", "n" * 300, "with space", "comma,name"])
def test_any_name_is_possible_in_the_mount_table(source: str, tmp_path: Path, name: str) -> None:
    options = [*BY_KERNEL, "--fsname", name]
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        assert status(mount.path, tmp_path / "cache")["state"] == "answers"
        assert (mount.path / "bin/sh").read_bytes() == b"through a link\n"


def test_status_and_umount_know_the_mount(source: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with daemon(source, tmp_path / "mnt", cache, *BY_KERNEL) as path:
        row = status(path, cache)
        assert (row["source"], row["state"]) == (source, "answers")
        assert row["status"]["kernel"] == {  # type: ignore[index]
            "requested": "always",
            "served_by": "erofs",
            "reason": "",
        }
        assert b"the kernel serves it as EROFS" in run_ocifs("status", cache=cache).stdout
        again = run_ocifs("mount", source, str(path), cache=cache, check=False)
        assert again.returncode == 2 and b"is already mounted" in again.stderr
        busy = subprocess.Popen(["sleep", "60"], cwd=path)
        try:
            refused = run_ocifs("umount", str(path), cache=cache, check=False)
            assert refused.returncode != 0
            assert f"sleep 60 (pid {busy.pid}".encode() in refused.stderr
        finally:
            busy.kill()
            busy.wait()
        run_ocifs("umount", str(path), cache=cache)
        assert table(path) == [] and ended(path)


def test_the_daemon_ends_with_an_ordinary_umount(source: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with daemon(source, tmp_path / "mnt", cache, *BY_KERNEL) as path:
        pid = status(path, cache)["status"]["pid"]  # type: ignore[index]
        assert Path(f"/proc/{pid}").exists()
        subprocess.run(["umount", path], check=True)
        assert ended(path)


def test_a_detached_mount_is_served_to_its_last_user(source: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with daemon(source, tmp_path / "mnt", cache, *BY_KERNEL) as path:
        with (path / "big").open("rb") as file:
            run_ocifs("umount", "--lazy", str(path), cache=cache)
            assert not os.listdir(path)
            assert file.read() == BIG
        assert ended(path)


def test_auto_uses_fuse_for_other_views_and_says_why(source: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with mounted(source, tmp_path / "mnt", cache, ["--kernel", "auto"]) as mount:
        assert table(mount.path) == [f"fuse.ocifs {source}"]
        found = status(mount.path, cache)["status"]["kernel"]  # type: ignore[index]
        assert found["served_by"] == "fuse" and "--view rootfs" in found["reason"]
        assert b"FUSE serves it: the kernel serves --view rootfs only" in (
            run_ocifs("status", str(mount.path), cache=cache).stdout
        )
    assert b"FUSE serves" in mount.said


def test_auto_uses_erofs_for_a_root_filesystem(source: str, tmp_path: Path) -> None:
    options = ["--view", "rootfs", "--kernel", "auto"]
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        assert table(mount.path) == [f"erofs {source}"]
    assert b"the kernel serves" in mount.said


def test_always_fails_with_the_reason(source: str, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    done = run_ocifs(
        "mount", source, str(tmp_path / "mnt"), "--kernel=always", cache=tmp_path, check=False
    )
    assert done.returncode == 2
    assert b"the kernel serves --view rootfs only" in done.stderr
    assert table(tmp_path / "mnt") == []


def test_an_image_without_content_needs_no_daemon(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [tar(entry("etc", DIRECTORY), entry("etc/empty"))])
    cache = tmp_path / "cache"
    with daemon(f"oci:{layout}:v1", tmp_path / "mnt", cache, *BY_KERNEL) as path:
        assert (path / "etc/empty").read_bytes() == b""
        assert status(path, cache)["state"] == "answers"
        run_ocifs("umount", str(path), cache=cache)
        assert ended(path)


def test_a_prefetched_mount_survives_everything(source: str, tmp_path: Path) -> None:
    cache, theirs = tmp_path / "cache", unpacked(tmp_path / "layout", tmp_path / "unpacked")
    options = [*AS_IT_IS, "--view", "rootfs", "--prefetch"]
    with daemon(source, tmp_path / "mnt", cache, *options) as path:
        row = status(path, cache)
        assert row["state"] == "answers"
        assert b"without a daemon" in run_ocifs("status", str(path), cache=cache).stdout
        wait_for_end(row["status"]["pid"])  # type: ignore[index]
        # Neither the source nor the cache is needed any more.
        subprocess.run(["rm", "-r", cache, tmp_path / "layout"], check=True)
        assert differences(facts(path), facts(theirs)) == []
        run_ocifs("umount", str(path), cache=cache)
        assert table(path) == [] and ended(path)


def test_prefetched_data_that_was_damaged_is_written_again(source: str, tmp_path: Path) -> None:
    cache, options = tmp_path / "cache", ["--view", "rootfs", "--prefetch"]
    with daemon(source, tmp_path / "mnt", cache, *options):
        pass
    [data] = (cache / "ocifs/v1/derived/erofs-data.1").rglob("*/*")
    content = bytearray(data.read_bytes())
    content[5000] ^= 1
    data.write_bytes(content)
    with daemon(source, tmp_path / "mnt", cache, *options) as path:
        assert (path / "big").read_bytes() == BIG


def test_a_prefetched_mount_in_the_foreground_ends_with_its_signal(
    source: str, tmp_path: Path
) -> None:
    options = ["--view", "rootfs", "--prefetch"]
    with mounted(source, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        assert (mount.path / "big").read_bytes() == BIG
        mount.process.terminate()
        assert mount.process.wait(60) == 0
        assert table(mount.path) == [] and ended(mount.path)


@pytest.mark.parametrize("upper", ["directory", "tmpfs"])
def test_an_overlay_is_writable_and_one_unmount_ends_it(
    source: str, tmp_path: Path, upper: str
) -> None:
    cache, changes = tmp_path / "cache", tmp_path / "changes, of : this\\image"
    chosen = str(changes) if upper == "directory" else "tmpfs"
    options = [*AS_IT_IS, "--view", "rootfs", "--overlay", chosen]
    with daemon(source, tmp_path / "mnt", cache, *options) as path:
        assert table(path) == [f"overlay {source}"]
        flags = options_of(path)
        assert {"nosuid", "nodev"} <= flags and "ro" not in flags
        assert path.stat().st_mode & 0o7777 == 0o755
        (path / "etc/new").write_text("new\n")
        (path / "etc/passwd").write_text("changed\n")
        (path / "bin/sh").unlink()
        assert (path / "big").read_bytes() == BIG
        assert status(path, cache)["state"] == "answers"
        run_ocifs("umount", str(path), cache=cache)
        assert table(path) == [] and ended(path)
    if upper == "directory":
        assert (changes / "etc/new").read_text() == "new\n"
        with daemon(source, tmp_path / "mnt", cache, *options) as path:
            assert (path / "etc/passwd").read_text() == "changed\n"
            assert not (path / "bin/sh").exists()


def test_an_overlay_of_a_new_directory_has_the_attributes_of_the_root(tmp_path: Path) -> None:
    root = entry("./", DIRECTORY, mode=0o711, uid=7, gid=8, mtime=1_000_000_000)
    layout = make_layout(tmp_path / "layout", [tar(root, entry("a", content=b"a"))])
    options = [*AS_IT_IS, "--view", "rootfs", "--overlay", str(tmp_path / "upper")]
    with daemon(f"oci:{layout}:v1", tmp_path / "mnt", tmp_path / "cache", *options) as path:
        found = path.stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o711, 7, 8)
        assert found.st_mtime == 1_000_000_000


def test_errors_of_overlays_are_precise_and_leave_nothing(source: str, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/old").write_text("")
    upper = str(tmp_path / "upper")
    cases = {
        (str(tmp_path / "absent/upper"),): "cannot create",
        (str(tmp_path / "file"),): "not a directory",
        (upper, "--overlay-work", str(tmp_path / "used")): "is not empty",
        (upper, "--overlay-work", f"{upper}/work"): "contain one another",
        (upper, "--overlay-work", "/dev/shm/ocifs-test-work"): "on another file system",
    }
    for words, said in cases.items():
        arguments = ("mount", source, str(tmp_path / "mnt"), "--view=rootfs", "--overlay", *words)
        done = run_ocifs(*arguments, cache=tmp_path / "cache", check=False)
        assert done.returncode == 2, words
        assert said in done.stderr.decode(), words
        assert table(tmp_path / "mnt") == [] and not Path(upper).exists()
        assert not Path("/dev/shm/ocifs-test-work").exists()
    assert ended(tmp_path / "mnt")


def test_an_upper_directory_is_used_by_one_overlay_at_a_time(source: str, tmp_path: Path) -> None:
    options = ["--view", "rootfs", "--overlay", str(tmp_path / "upper")]
    with daemon(source, tmp_path / "one", tmp_path / "cache", *options):
        (tmp_path / "two").mkdir()
        arguments = ("mount", source, str(tmp_path / "two"), *options)
        done = run_ocifs(*arguments, cache=tmp_path / "cache", check=False)
        assert done.returncode == 2
        assert f"in use by the overlay at {tmp_path}/one".encode() in done.stderr


def test_two_mounts_of_one_image_share_the_cache_and_end_apart(source: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with daemon(source, tmp_path / "one", cache, *BY_KERNEL) as one:
        with daemon(source, tmp_path / "two", cache, *BY_KERNEL) as two:
            assert one.stat().st_dev != two.stat().st_dev
            run_ocifs("umount", str(one), cache=cache)
            assert (two / "big").read_bytes() == BIG
            assert status(two, cache)["state"] == "answers"
    assert len(list((cache / "ocifs/v1/derived").glob("layer-erofs.*/*/*"))) == 1


def test_fstab_options_and_a_remount_reach_the_mount(source: str, tmp_path: Path) -> None:
    cache, mnt = tmp_path / "cache", tmp_path / "mnt"
    mnt.mkdir()
    helper = [sys.executable, "-c", "from ocifs.cli.mount_helper import main; main()"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}

    def mount(options: str) -> None:
        command = [*helper, source, str(mnt), "-o", options]
        subprocess.run(command, check=True, env=environment, timeout=60)

    mount("view=rootfs,kernel=always,nofail,x-systemd.automount,_netdev")
    try:
        assert table(mnt) == [f"erofs {source}"]
        mount("remount,noexec")
        assert {"ro", "nosuid", "nodev", "noexec"} <= options_of(mnt)
    finally:
        run_ocifs("umount", str(mnt), cache=cache)
    assert ended(mnt)
