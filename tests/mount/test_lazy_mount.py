"""An image as gzip, zstd:chunked and eStargz has the same tree in a mount, path by path.

The usual tools for the formats write it.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.layers.tars import DIRECTORY, entry, tar
from tests.mount.test_rootfs_mount import AS_IT_IS, BASE, MIDDLE, TOP, unpacked
from tests.support.image import make_layout
from tests.support.mount import mounted
from tests.support.oracle import Facts, differences, facts
from tests.support.registry import Registry, running_registry
from tests.support.stars import push_stars
from tests.support.tools import tool
from tests.support.views import VIEWS, root_of

pytestmark = [
    pytest.mark.mount,
    pytest.mark.servers,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can unpack owners and devices to compare with"
    ),
]
MEBIBYTE = 1 << 20
DICE = random.Random(11)
WANTED = DICE.randbytes(100_000)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def push_chunked(registry: Registry, layout: Path, name: str) -> str:
    """Push a layout's image with zstd:chunked layers, written by skopeo."""
    target = f"docker://{registry.host}/{name}:chunked"
    form = ["--dest-compress-format", "zstd:chunked", "--dest-tls-verify=false"]
    subprocess.run(
        ["skopeo", "copy", "-q", *form, f"oci:{layout}:v1", target], check=True, capture_output=True
    )
    return f"{registry.host}/{name}:chunked"


def push_starred(registry: Registry, tars: list[bytes], name: str, place: Path) -> str:
    """Push tars as an image with eStargz layers, written by go-containerregistry."""
    crane = replace(tool("starcrane", place), environment={"GGCR_EXPERIMENT_ESTARGZ": "1"})
    files = []
    for number, each in enumerate(tars):
        files.append(place / f"{number}.tar")
        files[-1].write_bytes(each)
    layers = [part for file in files for part in ("--new_layer", str(file))]
    target = f"{registry.host}/{name}:starred"
    crane("append", "--insecure", "-t", target, *layers)
    return target


def annotations(source: str) -> list[str]:
    asked = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{source}"],
        check=True,
        capture_output=True,
    )
    return [key for layer in json.loads(asked.stdout)["layers"] for key in layer["annotations"]]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, Facts]:
    place = tmp_path_factory.mktemp("umoci")
    return facts(unpacked(make_layout(place / "layout", [BASE, MIDDLE, TOP]), place / "unpacked"))


def shown(source: str, place: Path, view: str) -> dict[bytes, Facts]:
    if view == "kernel":
        with root_of(view, source, place / "mnt", place / "cache", AS_IT_IS) as (root, _):
            return facts(root)
    with mounted(source, place / "mnt", place / "cache", AS_IT_IS) as mount:
        summary = (mount.path / "summary.txt").read_text()
        assert "[zstd:chunked]" in summary or "[estargz]" in summary
        os.listdir(mount.path / "rootfs")
        return facts(mount.path / "rootfs")


@pytest.mark.parametrize("view", VIEWS)
def test_a_chunked_image_is_what_umoci_unpacks(
    registry: Registry, theirs: dict[bytes, Facts], tmp_path: Path, view: str
) -> None:
    layout = make_layout(tmp_path / "layout", [BASE, MIDDLE, TOP])
    source = push_chunked(registry, layout, "corners")
    assert sum(".zstd-chunked.manifest-checksum" in key for key in annotations(source)) == 3
    assert differences(shown(source, tmp_path, view), theirs) == []


def push_packed(
    registry: Registry, tars: list[bytes], name: str, place: Path, *, apart: bool = False
) -> str:
    """Push tars as eStargz with small files in shared gzip members, an option of its writer."""
    place.mkdir(exist_ok=True)
    files = [place / f"{number}.tar" for number in range(len(tars))]
    for file, each in zip(files, tars, strict=True):
        file.write_bytes(each)
    sizes = {"chunk": 1 << 20, "least": 50_000}
    return f"{registry.host}/{push_stars(registry.url, name, files, place, **sizes, apart=apart)}"


def push_apart(registry: Registry, tars: list[bytes], name: str, place: Path) -> str:
    """Push them with their tables of contents in a separate image."""
    return push_packed(registry, tars, f"{name}-apart", place, apart=True)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("push", [push_starred, push_packed, push_apart])
def test_a_starred_image_is_what_umoci_unpacks(
    registry: Registry,
    theirs: dict[bytes, Facts],
    tmp_path: Path,
    push: Callable[..., str],
    view: str,
) -> None:
    source = push(registry, [BASE, MIDDLE, TOP], "corners", tmp_path / "crane")
    assert annotations(source) == ["containerd.io/snapshot/stargz/toc.digest"] * 3
    # The format rounds times to seconds.
    rounded = {
        path: replace(known, mtime_ns=round(known.mtime_ns, -9)) for path, known in theirs.items()
    }
    assert rounded != theirs
    assert differences(shown(source, tmp_path, view), rounded) == []


def image_of_parts(place: Path) -> list[bytes]:
    """Three layers with 4 MiB and many small files each, with a deletion.

    There are a file of 100 kB, a git repository and a database.
    """
    root = place / "root"
    (root / "data").mkdir(parents=True)
    with sqlite3.connect(root / "data/numbers.db") as database:
        database.execute("create table numbers (n integer)")
        database.executemany("insert into numbers values (?)", [(n,) for n in range(5000)])
    git = ["git", "-C", root / "data/code", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", root / "data/code"], check=True)
    (root / "data/code/file").write_text("needle\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "the first"], check=True)
    facts_of = {"mtime": 1_700_000_000}
    made = subprocess.run(
        ["tar", "--format=posix", "--mtime=@1700000000", "-C", root, "-c", "data"],
        check=True,
        capture_output=True,
    )
    layers = [made.stdout]
    for number in range(2):
        files = [
            entry(f"many/{number}-{n}", content=DICE.randbytes(500), **facts_of) for n in range(400)
        ]
        big = entry(f"big{number}", content=DICE.randbytes(4 * MEBIBYTE), **facts_of)
        more = (
            [entry("wanted", content=WANTED, **facts_of)]
            if number == 0
            else [entry("many/.wh.0-7")]
        )
        layers.append(tar(entry("many", DIRECTORY, **facts_of), *files, big, *more))
    return layers


@pytest.fixture(scope="module")
def parts(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The image in both formats."""
    place = tmp_path_factory.mktemp("parts")
    layers = image_of_parts(place)
    return {
        "zstd:chunked": push_chunked(registry, make_layout(place / "layout", layers), "parts"),
        "estargz": push_starred(registry, layers, "parts", place / "crane"),
        "estargz, packed": push_packed(registry, layers, "parts", place / "stars"),
        "estargz, apart": push_apart(registry, layers, "parts", place / "apart"),
    }


def fetched(registry: Registry, after: int = 0) -> tuple[int, int]:
    """The numbers of requests and of bytes in the registry's log, after an offset."""
    lines = registry.log.read_text(errors="replace")[after:].splitlines()
    written = [
        re.search(r"http.response.written=(\d+)", line)
        for line in lines
        if "response completed" in line
    ]
    return len(written), sum(int(match[1]) for match in written if match)


@pytest.mark.parametrize("form", ["zstd:chunked", "estargz", "estargz, packed", "estargz, apart"])
def test_a_listing_fetches_tables_and_a_file_its_chunks(
    registry: Registry, parts: dict[str, str], tmp_path: Path, form: str
) -> None:
    before = len(registry.log.read_text(errors="replace"))
    with mounted(parts[form], tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as mount:
        listed = subprocess.run(
            ["find", mount.path / "rootfs", "-ls"], check=True, capture_output=True
        ).stdout
        assert len(listed.splitlines()) > 800
        assert not (mount.path / "rootfs/many/0-7").exists()
        assert fetched(registry, before)[1] < 1.5 * MEBIBYTE
        assert (mount.path / "rootfs/wanted").read_bytes() == WANTED
        requests, size = fetched(registry, before)
        assert (
            3 < requests < (16 if form == "estargz, apart" else 10)
        )  # the three tables are found by a separate tag
        assert len(WANTED) < size < 3_000_000


@pytest.mark.parametrize("form", ["zstd:chunked", "estargz", "estargz, packed"])
def test_programs_find_everything(parts: dict[str, str], tmp_path: Path, form: str) -> None:
    def out(*command: str | Path) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    with mounted(parts[form], tmp_path / "mnt", tmp_path / "cache", AS_IT_IS) as mount:
        root = mount.path / "rootfs"
        assert out("grep", "-rl", "needle", root / "data") == f"{root}/data/code/file\n"
        code = ["git", f"--git-dir={root}/data/code/.git", "-c", "safe.directory=*"]
        assert out(*code, "log", "--format=%s") == "the first\n"
        assert (
            out("sqlite3", f"file:{root}/data/numbers.db?immutable=1", "select sum(n) from numbers")
            == "12497500\n"
        )
        assert out("find", root, "-newermt", "@1700000001") == ""
        expected = facts(root)
        out("rsync", "-aHX", f"{root}/", tmp_path / "rsync")
        out("cp", "-a", root, tmp_path / "cp")
        assert differences(facts(tmp_path / "rsync"), expected) == []
        assert differences(facts(tmp_path / "cp"), expected) == []
