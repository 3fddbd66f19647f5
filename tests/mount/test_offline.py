"""With --offline, commands and mounts open no connections, and resolve no names."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_registry_mount import push_files
from tests.support.mount import mounted, run_ocifs
from tests.support.registry import Registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

# Python imports this module, sitecustomize, first in each process with its directory in PYTHONPATH.
WATCH = """
import os, sys

def hook(event, arguments):
    sending = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
    if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
        event in sending and isinstance(arguments[1], tuple)
    ):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {arguments[1:]} {sys.argv}\\n")

sys.addaudithook(hook)
"""


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with a line for each use of the network by ocifs in child processes."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    monkeypatch.setenv("WATCHED", str(tmp_path / "seen"))
    (tmp_path / "seen").touch()
    yield tmp_path / "seen"


def test_offline_does_not_use_the_network(
    registry: Registry, tmp_path: Path, watched: Path
) -> None:
    push_files(registry, "still/app", "v1", b"kept" * 1000, b"unknown" * 1000)
    cache, source = tmp_path / "cache", f"{registry.host}/still/app:v1"
    run_ocifs("cat", source, "layers/0/blob", cache=cache)
    run_ocifs("ls", f"{registry.host}/still/app", "_tags", cache=cache)
    assert "socket.connect" in watched.read_text()  # the hook works
    watched.write_text("")

    said = run_ocifs("cat", "--offline", source, "layers/0/blob", cache=cache).stdout
    assert said == b"kept" * 1000
    named = "a-name.example/some/app:v1"  # a name that must not be resolved
    for command in (
        *(
            ("ls", source),
            ("ls", source, "referrers"),
            ("ls", "-l", f"{registry.host}/still/app"),
            ("ls", named),
        ),
        *(
            ("cat", source, "layers/1/blob"),
            ("cat", named, "kind"),
            ("tree", source),
            ("inspect", source),
        ),
        *(
            ("inspect", named),
            ("find", "--kind", "image", registry.host),
            ("prefetch", source),
            ("doctor", named),
        ),
        ("export", source, str(tmp_path / "exported")),
    ):
        run_ocifs(command[0], "--offline", *command[1:], cache=cache, check=False)
        assert watched.read_text() == "", command

    options = f"offline=True, cache_dir={str(cache / 'ocifs')!r}"
    code = f"import ocifs; print(ocifs.open({source!r}, {options}).__enter__().list())"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    with mounted(registry.host, tmp_path / "mnt", cache, ["--offline"]) as mount:
        assert (mount.path / "still/app:v1/layers/0/blob").read_bytes() == b"kept" * 1000
        for path in ("still/app:v1/layers/1/blob", "still/app:v2/kind", "never/app:v1/kind"):
            with pytest.raises(OSError) as refused:
                (mount.path / path).read_bytes()
            assert refused.value.errno == errno.EHOSTUNREACH
        os.listdir(mount.path)
    with mounted(["a-name.example"], tmp_path / "mnt", cache, ["--offline", "--any"]) as mount:
        with pytest.raises(OSError) as refused:
            (mount.path / "another.example/some/app:v1/kind").read_bytes()
        assert refused.value.errno == errno.EHOSTUNREACH
    assert watched.read_text() == ""
