"""Every kind of local source works in every command, the Python API, fsspec and mounts.

None of them uses the network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

import ocifs
from tests.support import starter
from tests.support.archives import OUTER, archive_of, files_of, saved
from tests.support.image import make_layout
from tests.support.mount import mounted, run_ocifs
from tests.support.tars import a_tar

# Ends the process if any thread connects a socket, sends from one, or resolves a name. The socket
# of a mount's daemon, whose address is a path, is not the network.
GUARD = """
import os, sys
def hook(event, arguments):
    resolving = ("socket.getaddrinfo", "socket.gethostbyname")
    if event == "socket.connect" and isinstance(arguments[1], str):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", *resolving):
        os.write(2, f"NETWORK {event} {arguments}\\n".encode())
        os._exit(99)
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A source of each kind, with one image that has a file `hello`."""
    root = tmp_path_factory.mktemp("sources")
    (root / "layout").mkdir()
    make_layout(root / "layout", [a_tar(hello=b"hello\n")])
    layout = archive_of(files_of(root / "layout"))
    docker = archive_of(saved([("hello\n", ["app:v1"])]))
    files = {"layout.tar": layout, "docker.tar": docker}
    files |= {
        f"layout.tar.{name}": compress(layout) for name, compress in OUTER.items() if name != "tar"
    }
    files |= {
        f"docker.tar.{name}": compress(docker) for name, compress in OUTER.items() if name != "tar"
    }
    for name, body in files.items():
        (root / name).write_bytes(body)
    subprocess.run(["skopeo", "copy", "-q", f"oci:{root}/layout:v1", f"dir:{root}/dir"], check=True)
    return {
        "oci": f"oci:{root}/layout",
        "oci-archive": f"oci-archive:{root}/layout.tar",
        "docker-archive": f"docker-archive:{root}/docker.tar",
        "dir": f"dir:{root}/dir",
        "path-dir": f"{root}/dir",
        "path-layout": f"{root}/layout",
        **{f"path-{name}": f"{root}/{name}" for name in files},
    }


KINDS = [
    "oci",
    "oci-archive",
    "docker-archive",
    "dir",
    "path-layout",
    "path-dir",
    "path-docker.tar.zst",
    "path-layout.tar.xz",
]


def guarded(*arguments: str, cache: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command that must not use the network."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return starter.run(arguments, environment, seconds=100, before=GUARD)


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_read_the_only_image_and_touch_no_network(
    sources: dict[str, str], tmp_path: Path, kind: str
) -> None:
    source = sources[kind]
    for arguments, wanted in (
        (("ls", source), b"_tags"),
        (("ls", source, "rootfs"), b"hello"),
        (("cat", source, "rootfs/hello"), b"hello\n"),
        (("tree", source, "rootfs"), b"hello"),
        (("find", source), b"image\t"),
        (("inspect", source), b"Kind:"),
        (("doctor", source), b"on this machine"),
        (("prefetch", source), b""),
        (("export", source, f"oci:{tmp_path}/{kind}-copy:v1"), b"sha256:"),
        (("cat", f"oci:{tmp_path}/{kind}-copy:v1", "rootfs/hello"), b"hello\n"),
    ):
        done = guarded(*arguments, cache=tmp_path / "cache")
        assert done.returncode == 0, (arguments, done.stderr.decode())
        assert wanted in done.stdout, (arguments, done.stdout, done.stderr)
    subprocess.run(
        ["skopeo", "inspect", f"oci:{tmp_path}/{kind}-copy:v1"], check=True, capture_output=True
    )


@pytest.mark.parametrize(
    "source", ["docker-daemon:app", "containers-storage:app", "oci-layout:x", "ocidir://x", "sif:x"]
)
@pytest.mark.parametrize("command", ["ls", "inspect", "find", "tree", "doctor", "prefetch"])
def test_transports_of_other_tools_are_refused_without_network(
    tmp_path: Path, source: str, command: str
) -> None:
    done = guarded(command, source, cache=tmp_path / "cache")
    assert done.returncode == 2
    assert b"unsupported transport" in done.stderr


@pytest.mark.parametrize("name", ["image.tar", "image.tar.gz", "image.tgz", "some/image.tar.xz"])
def test_the_name_of_an_archive_without_a_slash_before_it_is_not_sent_to_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    done = guarded("ls", name, cache=tmp_path / "cache")
    assert done.returncode == 2
    assert f"./{name}".encode() in done.stderr


@pytest.mark.mount
@pytest.mark.parametrize("kind", [*KINDS[:4], "path-docker.tar.gz"])
def test_a_mount_shows_the_only_image_and_its_names(
    sources: dict[str, str], tmp_path: Path, kind: str
) -> None:
    with mounted(sources[kind], tmp_path / "mnt", tmp_path / "cache") as mount:
        assert (mount.path / "rootfs" / "hello").read_bytes() == b"hello\n"
        [name] = os.listdir(mount.path / "_tags")
        assert (mount.path / "_tags" / name / "rootfs" / "hello").read_bytes() == b"hello\n"
        assert json.loads((mount.path / "config.json").read_bytes())["os"] == "linux"
        assert (mount.path / "layers" / "0" / "tree" / "hello").read_bytes() == b"hello\n"
        derived = (mount.path / "annotations" / "dev.ocifs.derived").exists()
        assert derived is ("docker" in kind)
        assert ("dev.ocifs.derived" in (mount.path / "summary.txt").read_text()) is derived


@pytest.mark.mount
def test_a_view_of_the_only_image_needs_no_name(sources: dict[str, str], tmp_path: Path) -> None:
    with mounted(
        sources["docker-archive"], tmp_path / "mnt", tmp_path / "cache", ["--view", "rootfs"]
    ) as mount:
        assert (mount.path / "hello").read_bytes() == b"hello\n"


def test_a_view_of_several_images_names_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(archive_of(saved([("a", ["a:1"]), ("b", ["b:1"])])))
    (tmp_path / "mnt").mkdir()
    source, place = f"{tmp_path}/two.tar", str(tmp_path / "mnt")
    done = run_ocifs(
        "mount", source, place, "--view", "rootfs", cache=tmp_path / "cache", check=False
    )
    assert done.returncode == 2
    assert b"a:1, b:1" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_python_api_reads_it(sources: dict[str, str], tmp_path: Path, kind: str) -> None:
    with ocifs.open(sources[kind], cache_dir=tmp_path / "cache") as tree:
        assert tree.read("rootfs/hello") == b"hello\n"


@pytest.mark.parametrize("kind", KINDS)
def test_fsspec_reads_it(sources: dict[str, str], tmp_path: Path, kind: str) -> None:
    system = fsspec.filesystem(
        "oci-registry", source=sources[kind], cache_dir=str(tmp_path / "cache")
    )
    assert system.cat("rootfs/hello") == b"hello\n"
    assert "rootfs/hello" in system.ls("rootfs", detail=False)
    with fsspec.open(
        "oci-registry://rootfs/hello", source=sources[kind], cache_dir=str(tmp_path / "cache")
    ) as file:
        assert file.read() == b"hello\n"
    system.close()


@pytest.mark.mount
@pytest.mark.parametrize("name", ["layout", "image.tar"])
def test_a_source_on_a_file_system_that_hangs_is_an_error_within_the_deadlines(
    tmp_path: Path, name: str
) -> None:
    """The file system is a mount of ocifs with a stopped daemon."""
    (tmp_path / "inner").mkdir()
    make_layout(tmp_path / "inner", [a_tar(hello=b"hello")])
    members = [(f"layout/{path}", body) for path, body in files_of(tmp_path / "inner")]
    (tmp_path / "outer").mkdir()
    make_layout(
        tmp_path / "outer",
        [archive_of([*members, ("image.tar", archive_of(files_of(tmp_path / "inner")))])],
    )
    view = ["--view", "rootfs"]
    with mounted(f"oci:{tmp_path}/outer", tmp_path / "mnt", tmp_path / "cache", view) as mount:
        mount.process.send_signal(signal.SIGSTOP)
        try:
            limits = ("--timeout", "2", "--max-wait", "3")
            done = guarded("ls", *limits, f"{mount.path}/{name}", cache=tmp_path / "other")
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert done.returncode == 1
        assert b"no data for" in done.stderr


@pytest.mark.mount
def test_mount_ocifs_takes_a_path_of_fstab(sources: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    helper = [
        str(Path(sys.executable).parent / "mount.ocifs"),
        sources["path-docker.tar.gz"],
        str(tmp_path / "mnt"),
    ]
    subprocess.run(
        [*helper, "-o", "ro,view=rootfs,noauto"], env=environment, check=True, timeout=60
    )
    try:
        assert (tmp_path / "mnt" / "hello").read_bytes() == b"hello\n"
    finally:
        run_ocifs("umount", str(tmp_path / "mnt"), cache=tmp_path / "cache")


def test_a_tar_of_a_root_filesystem_is_not_mistaken_for_an_image(tmp_path: Path) -> None:
    (tmp_path / "rootfs.tar").write_bytes(archive_of([("etc/passwd", b""), ("usr/bin/su", b"")]))
    done = run_ocifs("ls", f"{tmp_path}/rootfs.tar", cache=tmp_path / "cache", check=False)
    assert done.returncode == 2
    assert b"docker save" in done.stderr
