"""A real Debian in three layers with real deletions, in every format of layers.

1. mmdebstrap's tar: the essential packages, perl and python.
2. dpkg in a chroot purged three packages and installed one. The documentation was removed and came
   back with one file, and attributes were set.
3. A directory became a file, and a file became a directory. An old file got a second hard link, and
   translations were removed.

Rules that hold here:
- The image is built once, and cached for later runs. The cached files are complete, because they
  are renamed into place.
- A change of the recipe builds it again.
- If the mirrors of the system cannot be reached, the test is skipped by name, and fails in CI.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.image import make_layout
from tests.support.registry import Registry, running_registry
from tests.support.tools import tool

FORMS = ("gzip", "zstd", "zstd:chunked", "estargz")
PURGED = ("hostname", "diffutils", "libtext-glob-perl")
_DAY = 86_400
_KEPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocifs-dev"


@dataclass(frozen=True)
class Debian:
    """The image in all formats.

    `layout` is the image `v1` as umoci wrote it, which umoci can unpack. `data` is the directory of
    a registry with all formats.
    """

    layout: Path
    data: Path

    def source(self, registry: Registry, form: str) -> str:
        """The source to mount, in a registry that serves `data`."""
        return f"{registry.host}/debian:{_tag(form)}"


def debian_image() -> Debian:
    """The image. Building it takes about 90 seconds.

    Skips the test if Debian's mirrors cannot be reached.
    """
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    place = _KEPT / f"debian-in-layers-{made_by}"
    if not place.exists():
        for older in _KEPT.glob("debian-in-layers-*"):
            if (
                time.time() - older.stat().st_mtime > _DAY
            ):  # another checkout's tests may be using it
                shutil.rmtree(older)
        making = _KEPT / f"debian-in-layers.making-{os.getpid()}"
        making.mkdir(parents=True)
        try:
            _make(making)
            making.rename(place)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return Debian(place / "layout", place / "data")


def _make(place: Path) -> None:
    system = place / "system.tar"
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    packages = "perl-base,python3-minimal"
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=essential",
        f"--include={packages}",
        release,
        str(system),
    ]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=300)
    except FileNotFoundError:
        done = subprocess.CompletedProcess(command, 1, b"", b"mmdebstrap is not installed")
    if done.returncode:
        assert not os.environ.get("CI"), done.stderr.decode()
        pytest.skip(f"mmdebstrap makes no Debian here: {done.stderr.decode()[-300:]}")
    layout = make_layout(place / "layout", [system.read_bytes()])
    system.unlink()
    _change(layout, place / "work")
    shutil.rmtree(place / "work")
    _push(layout, place)


def _change(layout: Path, work: Path) -> None:
    """The second and the third layer."""
    root = work / "rootfs"
    _run("umoci", "unpack", "--image", f"{layout}:v1", work)
    _run("chroot", root, "dpkg", "--purge", "--force-all", *PURGED)
    _install(root, work)
    shutil.rmtree(root / "usr/share/doc")
    (root / "usr/share/doc").mkdir(mode=0o750)
    (root / "usr/share/doc/README").write_text("What was here is gone.\n")
    os.setxattr(
        root / "usr/bin/mawk",
        "security.capability",
        bytes.fromhex("0100000200200000000000000000000000000000"),
    )
    os.setxattr(root / "etc/passwd", "user.binary", bytes(range(256)))
    _run("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:v1", work)
    shutil.rmtree(root / "usr/share/locale", ignore_errors=True)
    shutil.rmtree(root / "etc/pam.d")
    (root / "etc/pam.d").write_text("a file now\n")
    (root / "etc/passwd-").unlink(missing_ok=True)
    (root / "etc/passwd-").mkdir()
    (root / "etc/passwd-/kept").write_text("a directory now\n")
    os.link(root / "usr/bin/sed", root / "usr/bin/sed-too")
    _run("umoci", "repack", "--image", f"{layout}:v1", work)


def _install(root: Path, work: Path) -> None:
    """Let dpkg install a package with a hard link, modes, and a device made by its script."""
    package = work / "package"
    (package / "DEBIAN").mkdir(parents=True)
    control = (
        "Package: ocifs-sample",
        "Version: 1",
        "Architecture: all",
        "Maintainer: nobody",
        "Description: a sample",
    )
    (package / "DEBIAN/control").write_text("\n".join(control) + "\n")
    script = package / "DEBIAN/postinst"
    steps = ("mknod null c 1 3", "chmod 640 null", "chown 7:9 tool", "chmod 4711 tool")
    script.write_text("\n".join(("#!/bin/sh", "set -e", "cd /opt/sample", *steps)) + "\n")
    script.chmod(0o755)
    sample = package / "opt/sample"
    sample.mkdir(parents=True)
    (sample / "tool").write_text("#!/bin/sh\n")
    (sample / "tool-too").hardlink_to(sample / "tool")
    os.mkfifo(sample / "pipe")
    _run("dpkg-deb", "--root-owner-group", "--build", package, root / "sample.deb")
    _run("chroot", root, "dpkg", "--install", "--force-all", "/sample.deb")
    (root / "sample.deb").unlink()


def _push(layout: Path, place: Path) -> None:
    """Push every format to a registry with a cached directory."""
    plain = _plain_layers(layout)
    zstd = make_layout(place / "zstd", plain, ["+zstd"])
    with running_registry(place, place / "data") as registry:
        starred(registry, "debian:estargz", plain, place)
        # The order matters: skopeo reuses a zstd blob that it has pushed before, in place of the
        # requested format.
        for form, source, options in (
            ("zstd:chunked", layout, ["--dest-compress-format", "zstd:chunked"]),
            ("gzip", layout, ["--preserve-digests"]),
            ("zstd", zstd, ["--preserve-digests"]),
        ):
            target = f"docker://{registry.host}/debian:{_tag(form)}"
            _run(
                "skopeo",
                "copy",
                "-q",
                "--dest-tls-verify=false",
                *options,
                f"oci:{source}:v1",
                target,
            )
    shutil.rmtree(place / "zstd")
    (place / "config.yml").unlink()
    (place / "log").unlink()


def starred(registry: Registry, name: str, tars: list[bytes], place: Path) -> None:
    """Push tars as an image with eStargz layers, written by go-containerregistry."""
    home = place / "crane"
    crane = replace(tool("starcrane", home), environment={"GGCR_EXPERIMENT_ESTARGZ": "1"})
    layers: list[str] = []
    for number, each in enumerate(tars):
        (home / f"{number}.tar").write_bytes(each)
        layers += ["--new_layer", f"{home}/{number}.tar"]
    crane("append", "--insecure", "-t", f"{registry.host}/{name}", *layers)
    shutil.rmtree(home)


def _plain_layers(layout: Path) -> list[bytes]:
    def blob(described: Mapping[str, str]) -> bytes:
        return (layout / "blobs/sha256" / described["digest"].partition(":")[2]).read_bytes()

    [listed] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return [gzip.decompress(blob(layer)) for layer in json.loads(blob(listed))["layers"]]


def _tag(form: str) -> str:
    return form.replace(":", "-")


def _run(*command: str | Path) -> None:
    environment = {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "PATH": "/usr/local/sbin:/usr/sbin:/sbin:" + os.environ["PATH"],
    }
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
