"""The number of requests to a registry and to the daemon.

Each byte is fetched once, in few requests. For content in the kernel's caches there are none.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ocifs.oci import mediatype
from tests.layers.tars import DIRECTORY, entry, tar
from tests.mount.test_lazy_mount import push_chunked, push_starred
from tests.support.faultproxy import FaultProxy, fault_proxy, twice
from tests.support.image import make_layout
from tests.support.kernel import with_kernel_caches
from tests.support.mount import mounted, run_ocifs
from tests.support.ports import free_port
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

DICE = random.Random(23)
T = {"mtime": 1_700_000_000}
WORDS = [bytes(DICE.choices(b"etaoin shrdlu\n", k=40)) for _ in range(500)]


def content(size: int) -> bytes:
    """Bytes that compress to about a third, as programs do."""
    return b"".join(DICE.choices(WORDS, k=size // 80)) + DICE.randbytes(size // 4)


SMALL = {
    f"small/{number % 7}/{number}": content(DICE.randrange(200, 20_000)) for number in range(600)
}
BIG = {f"big/{number}": content(1_500_000) for number in range(6)}
BASE = tar(
    entry("small", DIRECTORY, **T),
    *[entry(f"small/{number}", DIRECTORY, **T) for number in range(7)],
    *[entry(name, content=SMALL[name], **T) for name in sorted(SMALL)],
    entry("big", DIRECTORY, **T),
    *[entry(name, content=BIG[name], **T) for name in sorted(BIG)],
)
FILES = {**SMALL, **BIG}
UPPERS = [tar(entry("release", content=b"%d\n" % number, **T)) for number in (1, 2)]
LAST = "big/5"  # the last file of its layer, so nothing follows that could be read ahead
FORMS = ("gzip", "zstd:chunked", "estargz")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def images(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The path of an image in the registry, by its format."""
    place = tmp_path_factory.mktemp("images")
    push_gzip(registry, "counts/app", 1)
    layout = make_layout(place / "layout", [BASE, UPPERS[0]])
    sources = {
        "gzip": f"{registry.host}/counts/app:1",
        "zstd:chunked": push_chunked(registry, layout, "counts"),
        "estargz": push_starred(registry, [BASE, UPPERS[0]], "counts", place / "crane"),
    }
    return {form: source.partition("/")[2] for form, source in sources.items()}


def push_gzip(registry: Registry, repository: str, release: int, base: bytes = BASE) -> None:
    tars = [base, UPPERS[release - 1]]
    diff_ids = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in tars]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }

    def pushed(data: bytes, media_type: str) -> dict[str, object]:
        return {
            "mediaType": media_type,
            "digest": push_blob(registry.url, repository, data),
            "size": len(data),
        }

    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": pushed(json.dumps(config).encode(), mediatype.OCI_CONFIG),
        "layers": [
            pushed(gzip.compress(each, 6, mtime=0), mediatype.OCI_LAYER_GZIP) for each in tars
        ],
    }
    push_manifest(registry.url, repository, manifest, str(release))


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultProxy]:
    with fault_proxy(registry.host) as running:
        yield running


def without_bytes(cache: Path) -> None:
    """Remove everything from a cache except derived data."""
    for kind in ("blobs", "partial"):
        shutil.rmtree(cache / "ocifs/v1" / kind)


def operations(port: int) -> dict[str, int]:
    """The number of the kernel's requests of each kind, from a mount's metrics.

    Reading status.json would count its own requests.
    """
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    lines = (line for line in text.splitlines() if line.startswith("ocifs_operations_total{"))
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}


@pytest.mark.parametrize("form", FORMS)
def test_a_second_open_asks_the_registry_for_nothing_and_the_daemon_for_no_byte(
    images: dict[str, str], proxy: FaultProxy, tmp_path: Path, form: str
) -> None:
    port = free_port()
    options = ["--metrics", str(port)]
    with mounted(
        f"{proxy.host}/{images[form]}", tmp_path / "mnt", tmp_path / "cache", options
    ) as mount:
        root = mount.path / "rootfs"

        def use() -> tuple[dict[str, bytes], list[int]]:
            read = {name: (root / name).read_bytes() for name in ("small/3/3", LAST)}
            return read, [path.stat().st_size for path in (root / "small/3").iterdir()]

        def law(_: int) -> None:
            first = use()
            assert first[0] == {name: FILES[name] for name in first[0]}
            asked, before = proxy.requests, operations(port)
            assert use() == first
            after = operations(port)
            assert proxy.requests == asked
            assert after["open"] - before["open"] == 2
            for name in ("read", "lookup", "getattr"):
                assert after.get(name, 0) == before.get(name, 0), name

        with_kernel_caches(law)


def test_content_shared_by_two_tags_is_in_the_kernel_once(
    registry: Registry, proxy: FaultProxy, tmp_path: Path
) -> None:
    for release in (1, 2):
        push_gzip(registry, "counts/shared", release)
    port = free_port()
    with mounted(
        f"{proxy.host}/counts", tmp_path / "mnt", tmp_path / "cache", ["--metrics", str(port)]
    ) as mount:
        one, two = (mount.path / f"shared:{release}/rootfs" for release in (1, 2))

        def law(_: int) -> None:
            assert (one / "big/4").read_bytes() == FILES["big/4"]
            assert [(root / "release").read_bytes() for root in (one, two)] == [b"1\n", b"2\n"]
            asked, before = proxy.requests, operations(port)
            assert (two / "big/4").read_bytes() == FILES["big/4"]
            assert (mount.path / "shared:2/layers/0/tree/big/4").read_bytes() == FILES["big/4"]
            assert (proxy.requests, operations(port)["read"]) == (asked, before["read"])

        with_kernel_caches(law)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "command", [["tar", "-C", "{}", "-c", "."], ["grep", "-rac", "e", "{}"]], ids=["tar", "grep"]
)
def test_a_walk_that_reads_everything_fetches_each_byte_once_in_few_requests(
    images: dict[str, str], proxy: FaultProxy, tmp_path: Path, form: str, command: list[str]
) -> None:
    cache, source = tmp_path / "cache", f"{proxy.host}/{images[form]}"
    run_ocifs("prefetch", source, cache=cache)
    without_bytes(cache)
    proxy.parts.clear()
    with mounted(source, tmp_path / "mnt", cache) as mount:
        words = [word.format(mount.path / "rootfs") for word in command]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
        assert twice(proxy.parts) == []
        assert len(proxy.parts) < len(FILES) / 25
    if command[0] == "tar":
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            found = {
                each.name.removeprefix("./"): archive.extractfile(each)
                for each in archive
                if each.isreg()
            }
            assert {name: file.read() for name, file in found.items() if file} == {
                **FILES,
                "release": b"1\n",
            }
    else:
        assert len(done.stdout.splitlines()) == len(FILES) + 1


def test_listing_a_manifest_and_its_layers_with_attributes_fetches_no_layer(
    registry: Registry, proxy: FaultProxy, tmp_path: Path
) -> None:
    push_gzip(registry, "counts/listed", 1)
    with mounted(f"{proxy.host}/counts", tmp_path / "mnt", tmp_path / "cache") as mount:
        app = mount.path / "listed:1"
        for place in (app, app / "layers", app / "layers/0"):
            inside = list(place.iterdir())
            for command in (
                ["ls", "-la", place],
                ["find", place, "-maxdepth", "1", "-ls"],
                ["stat", *inside],
                ["getfattr", "-d", "-m", "-", *inside],
            ):
                subprocess.run(command, capture_output=True, check=True)
        assert sum(part.stop - part.start for part in proxy.parts) < 1000, (
            "the config, and nothing more"
        )


def test_sequential_reads_of_files_need_few_requests_and_an_open_file_is_not_waited_for(
    registry: Registry, tmp_path: Path
) -> None:
    """Ten files of one span, in the order of the tar.

    After 64 KiB of sequential reads, opening a file hands its content to the kernel.
    """
    files = {f"row/{number}": content(27_000) for number in range(10)}
    layer = tar(
        entry("row", DIRECTORY, **T),
        *[entry(name, content=each, **T) for name, each in sorted(files.items())],
    )
    push_gzip(registry, "counts/row", 1, layer)
    source = f"{registry.host}/counts/row:1"

    def law(number: int) -> None:
        port, cache = free_port(), tmp_path / f"cache{number}"
        with mounted(source, tmp_path / "mnt", cache, ["--metrics", str(port)]) as mount:
            root = mount.path / "rootfs"
            asked = []
            with (root / "row/6").open("rb"):
                for name in sorted(files):
                    before = operations(port).get("read", 0)
                    assert (root / name).read_bytes() == files[name]
                    asked.append(operations(port)["read"] - before)
            assert [number for number, reads in enumerate(asked) if reads] == [0, 1, 2, 3, 6]
            subprocess.run(
                ["grep", "-rac", "e", root / "row"], stdout=subprocess.DEVNULL, check=True
            )
            assert operations(port)["read"] == before + asked[-1]

    with_kernel_caches(law)
