"""The table of what POSIX and Linux promise, on every flavour of mount, as root and as an ordinary
user.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ocifs
from tests.layers.tars import DIRECTORY, SYMLINK, entry, tar
from tests.posix import table
from tests.support.image import make_layout
from tests.support.mount import Mounted, mounted
from tests.support.registry import running_registry
from tests.support.views import BY_KERNEL, require_kernel

pytestmark = [pytest.mark.mount, pytest.mark.servers]

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
ROOT = os.geteuid() == 0
CHECKS = [check.__name__ for check in table.CHECKS]


@dataclass(frozen=True)
class Flavour:
    """A kind of mount, and where the table is run: a directory that contains a file and a link."""

    source: str
    directory: str
    file: str
    link: str
    options: tuple[str, ...] = ()


# EROFS itself differs in these, whatever it is mounted from (docs/semantics.md).
EROFS = {
    "direct_reads_are_the_same": "OSError: [Errno 22]",  # no O_DIRECT from a file
    "statx_tells_what_stat_tells": "AssertionError",  # no time of access, since there is none
    "sync_and_advice_do_no_harm": "OSError: [Errno 22]",  # no fsync of a read-only file
}
FLAVOURS = {
    "registry": Flavour("{host}", "posix/image/_manifests/v1", "layers/0/blob", "../../_tags/v1"),
    "repository": Flavour("{host}/posix/image", "_tags", "../_manifests/v1/layers/0/blob", "v1"),
    "manifest": Flavour("{host}/posix/image:v1", ".", "layers/0/blob", "layers/0/tree/etc/link"),
    "layer": Flavour("{host}/posix/image:v1", "layers/0/tree/etc", "../usr/big", "link"),
    "rootfs": Flavour("{host}/posix/image:v1", "rootfs", "usr/big", "etc/link"),
    "kernel": Flavour("{host}/posix/image:v1", ".", "usr/big", "etc/link", BY_KERNEL),
    "layout": Flavour("oci:{layout}", "_manifests/v1", "layers/0/blob", "../../_tags/v1"),
}


def a_small_system(content: bytes) -> bytes:
    """A plain tar with a large file, a link, attributes and something below something."""
    big, _ = entry("usr/big", content=content, pax_headers={"SCHILY.xattr.user.note": "kept"})
    return tar(
        entry("usr", DIRECTORY),
        entry("etc", DIRECTORY),
        entry("etc/inner", DIRECTORY),
        entry("etc/link", SYMLINK, linkname="../usr/big"),
        (big, content),
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A registry and a layout with the same image."""
    place = tmp_path_factory.mktemp("posix")
    (place / "layout").mkdir()
    (place / "registry").mkdir()
    layout = make_layout(place / "layout", [a_small_system(random.Random(7).randbytes(300_000))])
    with running_registry(place / "registry") as registry:
        target = f"docker://{registry.host}/posix/image:v1"
        copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:v1", target]
        subprocess.run(copy, check=True, timeout=60)
        subprocess.run([*copy[:-1], target.replace(":v1", ":v2")], check=True, timeout=60)
        yield {"host": registry.host, "layout": str(layout)}


def run_table(mount: Mounted, flavour: Flavour, *, user: list[str], python: str) -> dict[str, str]:
    """What each check of the table saw."""
    here = mount.path / flavour.directory
    arguments = [str(here), str(here / flavour.file), str(here / flavour.link)]
    with Path(table.__file__).open("rb") as program:
        command = [*user, python, "-", *arguments]
        done = subprocess.run(
            command, stdin=program, capture_output=True, timeout=60, check=False, cwd="/"
        )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=list(FLAVOURS))
def results(
    request: pytest.FixtureRequest,
    sources: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, str]]:
    """What the mount's own user saw, and where that can be tried, what another one saw whom it lets
    in.
    """
    flavour, place = FLAVOURS[request.param], tmp_path_factory.mktemp("mount")
    place.chmod(0o711)
    for above in list(place.parents)[:3]:  # pytest keeps its directories to their owner
        if above.owner() == place.owner() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    if request.param == "kernel":
        require_kernel(place)
    options = [*flavour.options, *["--allow-other"] * ROOT]
    with mounted(
        flavour.source.format(**sources), place / "mnt", place / "cache", options
    ) as mount:
        found = {"owner": run_table(mount, flavour, user=[], python=sys.executable)}
        if ROOT:
            found["other"] = run_table(mount, flavour, user=NOBODY, python="/usr/bin/python3")
        return found


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "user",
    [
        "owner",
        pytest.param(
            "other", marks=pytest.mark.skipif(not ROOT, reason="only root may become another")
        ),
    ],
)
def test_the_table_holds(
    results: dict[str, dict[str, str]], user: str, check: str, request: pytest.FixtureRequest
) -> None:
    flavour = request.node.callspec.params["results"]
    expected = EROFS.get(check, "") if flavour == "kernel" else ""
    assert bool(results[user][check]) == bool(expected)
    assert results[user][check].startswith(expected)


# Everything that an ordinary user does, one after the other. A container may keep /dev/fuse from
# users, which no desktop or server does, so they get it in a mount namespace of their own.
SESSION = """
set -e
mknod -m 666 "$PLACE/fuse" c 10 229
mount --bind "$PLACE/fuse" /dev/fuse
ocifs() { $USER_IS /usr/bin/python3 -m ocifs "$@"; }
ocifs mount "$SOURCE" "$HOME/mnt" >&2
ocifs status >&2
$USER_IS /usr/bin/python3 - "$@" < "$TABLE"
ocifs umount "$HOME/mnt" >&2
! mountpoint -q "$HOME/mnt"
"""


@pytest.mark.skipif(not ROOT, reason="only root may become another")
def test_an_ordinary_user_mounts_reads_and_unmounts(sources: dict[str, str]) -> None:
    """The whole way without root, with a copy of the program that an ordinary user can read."""
    flavour = FLAVOURS["registry"]
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        code, home = Path(place, "code"), Path(place, "home")
        Path(place).chmod(0o755)
        (home / "mnt").mkdir(parents=True)
        for path in (home, home / "mnt"):
            os.chown(path, 65534, 65534)
        for path in (
            *filter(os.path.isdir, site.getsitepackages()),
            str(Path(ocifs.__file__).parent),
        ):
            name = "" if path.endswith("-packages") else "ocifs"
            shutil.copytree(
                path,
                code / name,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("mypy*", "hypothesis*"),
            )
        environment = {
            **{"HOME": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(code)},
            **{"PLACE": place, "USER_IS": " ".join(NOBODY), "TABLE": table.__file__},
            "SOURCE": flavour.source.format(**sources),
        }
        here = home / "mnt" / flavour.directory
        arguments = [str(here), str(here / flavour.file), str(here / flavour.link)]
        command = ["unshare", "--mount", "sh", "-c", SESSION, "session", *arguments]
        done = subprocess.run(
            command,
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert str(home / "mnt") in done.stderr  # ocifs status
        assert {check: saw for check, saw in json.loads(done.stdout).items() if saw} == {}
