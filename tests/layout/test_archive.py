"""Tars as sources: those of common tools, a comparison with tarfile, and hostile ones."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import LimitExceeded, Malformed, NotFound, OcifsError, UsageError
from ocifs.layout.archive import ArchiveFiles
from ocifs.layout.unpacked import KIND
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.settings import Limits, Settings
from tests.layout.opened import layer_of, opened
from tests.support.archives import OUTER, archive_of, files_of, link
from tests.support.image import make_layout
from tests.support.tars import a_tar

ARCHIVE = LocalTransport.OCI_ARCHIVE


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    directory = tmp_path_factory.mktemp("layout")
    make_layout(directory, [a_tar(one=b"1" * 3000)])
    return files_of(directory)


def nothing() -> None:
    """Of progress."""


def files_in(body: bytes, tmp_path: Path, limits: Limits | None = None) -> ArchiveFiles:
    path = tmp_path / "archive.tar"
    path.write_bytes(body)
    return ArchiveFiles(os.open(path, os.O_RDONLY), str(path), limits or Limits(), nothing)


async def read_all(
    source: LayoutSource, settings: Settings | None = None, cache: Path | None = None
) -> bytes:
    async with opened(source, settings, cache) as layout:
        assert await layout.tags("") == ("v1",)
        layer = await layer_of(layout)
        content = await layout.read_blob(layer, 0, layer.size)
        assert layer.digest.matches(content)
        return content


def linked(
    members: list[tuple[str, bytes]], *, hard: bool
) -> list[tuple[str, bytes] | tarfile.TarInfo]:
    result: list[tuple[str, bytes] | tarfile.TarInfo] = []
    for name, body in members:
        if not name.startswith("blobs/"):
            result.append((name, body))
            continue
        stored = "store/" + name.rpartition("/")[2]
        result += [(stored, body), link(name, stored if hard else f"../../{stored}", hard=hard)]
    return result


def shapes(members: list[tuple[str, bytes]]) -> dict[str, bytes]:
    top = [(f"some/{name}", body) for name, body in members]
    directory = tarfile.TarInfo("some")
    directory.type = tarfile.DIRTYPE
    return {
        "plain": archive_of(members),
        "gnu": archive_of(members, tarfile.GNU_FORMAT),
        "ustar": archive_of(members, tarfile.USTAR_FORMAT),
        "dot": archive_of([(f"./{name}", body) for name, body in members]),
        "absolute": archive_of([(f"/{name}", body) for name, body in members]),
        "below": archive_of(top),
        "below-with-its-directory": archive_of([directory, *top]),
        "below-hard-links": archive_of(
            [
                link(f"some/{item.name}", f"some/{item.linkname}", hard=True)
                if isinstance(item, tarfile.TarInfo)
                else (f"some/{item[0]}", item[1])
                for item in linked(members, hard=True)
            ]
        ),
        "symbolic": archive_of(linked(members, hard=False)),
        "hard": archive_of(linked(members, hard=True)),
        "linked-directory": archive_of(
            [
                *((name.replace("blobs/", "b/"), body) for name, body in members),
                link("blobs", "./b"),
            ]
        ),
        "reversed": archive_of(members[::-1]),
        "twice": archive_of([("index.json", b"{}"), *members]),
        "no-marker": archive_of([item for item in members if item[0] != "oci-layout"]),
    }


@pytest.mark.parametrize(
    "shape",
    [
        "plain", "gnu", "ustar", "dot", "absolute", "below", "below-with-its-directory",
        "below-hard-links", "symbolic",
        "hard", "linked-directory", "reversed", "twice", "no-marker",
    ],
)  # fmt: skip
@pytest.mark.parametrize("transport", [ARCHIVE, LocalTransport.ANY])
async def test_a_layout_is_read_from_a_tar_of_any_shape(
    members: list[tuple[str, bytes]], tmp_path: Path, shape: str, transport: LocalTransport
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(shapes(members)[shape])
    await read_all(LayoutSource(str(path), transport))


@pytest.mark.parametrize("outer", OUTER)
async def test_a_compressed_archive_is_unpacked_once(
    members: list[tuple[str, bytes]], tmp_path: Path, outer: str
) -> None:
    path = tmp_path / "image"
    path.write_bytes(OUTER[outer](archive_of(members)))
    first = await read_all(LayoutSource(str(path), ARCHIVE), cache=tmp_path / "cache")
    stored = list((tmp_path / "cache").rglob(f"{KIND}/sha256/*"))
    assert len(stored) == (outer != "tar")
    before = [item.stat().st_ino for item in stored]
    assert (
        await read_all(LayoutSource(str(path), LocalTransport.ANY), cache=tmp_path / "cache")
        == first
    )
    assert [item.stat().st_ino for item in (tmp_path / "cache").rglob(f"{KIND}/sha256/*")] == before
    for item in stored:  # as eviction does
        item.unlink()
    assert await read_all(LayoutSource(str(path), ARCHIVE), cache=tmp_path / "cache") == first


async def test_an_unpacked_archive_may_be_evicted_while_it_is_read(
    members: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar.gz"
    path.write_bytes(OUTER["gz"](archive_of(members)))
    async with opened(LayoutSource(str(path), ARCHIVE), cache=tmp_path / "cache") as layout:
        for item in (tmp_path / "cache").rglob(f"{KIND}/sha256/*"):
            os.utime(item)  # as another process does that uses it
            item.unlink()
        layer = await layer_of(layout)
        assert layer.digest.matches(await layout.read_blob(layer, 0, layer.size))


async def test_progress_is_reported_while_an_archive_is_unpacked(
    members: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar.xz"
    path.write_bytes(OUTER["xz"](archive_of(members)))
    seen: list[tuple[str, int, int]] = []
    source = LayoutSource(str(path), ARCHIVE)
    async with opened(
        source, on_progress=lambda name, done, total: seen.append((name, done, total))
    ):
        pass
    assert seen
    assert {(name, total) for name, _, total in seen} == {(str(path), path.stat().st_size)}


@pytest.mark.parametrize("outer", [item for item in OUTER if item != "tar"])
async def test_a_damaged_compressed_archive_is_an_error_and_leaves_nothing(
    members: list[tuple[str, bytes]], tmp_path: Path, outer: str
) -> None:
    body = OUTER[outer](archive_of(members))
    path = tmp_path / "image"
    for damaged in (
        body[: len(body) // 2],
        body[:20] + bytes([body[20] ^ 255]) + body[21 : len(body) // 2] + b"x" * 99,
    ):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="cannot decompress"):
            await read_all(LayoutSource(str(path), ARCHIVE), cache=tmp_path / "cache")
    assert not [
        item
        for item in (tmp_path / "cache").rglob("*")
        if item.is_file() and "archive" in str(item)
    ]


async def test_what_an_archive_unpacks_to_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(OUTER["gz"](archive_of([("zeros", bytes(1 << 20))])))
    settings = Settings(limits=replace(Limits(), layer_bytes=1 << 19))
    with pytest.raises(
        LimitExceeded, match=r"the archive unpacks to more than limits\.layer_bytes"
    ):
        await read_all(LayoutSource(str(path), ARCHIVE), settings)


async def test_an_archive_that_is_replaced_stays_as_it_was(
    members: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(archive_of(members))
    async with opened(LayoutSource(str(path), ARCHIVE)) as layout:
        layer = await layer_of(layout)
        (tmp_path / "new").write_bytes(archive_of([("other", b"")]))
        (tmp_path / "new").rename(path)
        assert layer.digest.matches(await layout.read_blob(layer, 0, layer.size))


async def test_an_archive_that_is_written_to_is_an_error(
    members: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(archive_of(members))
    async with opened(LayoutSource(str(path), ARCHIVE)) as layout:
        layer = await layer_of(layout)
        path.write_bytes(archive_of([("other", b"")]))
        with pytest.raises(OcifsError, match="changed after it was opened"):
            await layout.read_blob(layer, 0, layer.size)


@pytest.mark.parametrize(
    ("member", "error"),
    [
        (link("index.json", "/etc/passwd"), NotFound),
        (link("index.json", "../../etc/passwd"), Malformed),
        (link("index.json", "a/../../etc/passwd"), Malformed),
        (link("index.json", "etc/passwd", hard=True), NotFound),
        (link("index.json", "../etc/passwd", hard=True), Malformed),
        (link("index.json", "index.json"), Malformed),
        (link("index.json", ""), Malformed),
    ],
)
def test_a_link_never_leads_out_of_an_archive(
    tmp_path: Path, member: tarfile.TarInfo, error: type[Exception]
) -> None:
    files = files_in(archive_of([member]), tmp_path)
    with pytest.raises(error):
        files.find("index.json")


def test_links_in_circles_end(tmp_path: Path) -> None:
    files = files_in(
        archive_of([link("a", "b/c"), link("b", "a"), link("x", "y"), link("y", "x")]), tmp_path
    )
    for name in ("a", "b", "x", "y", "a/d/e", "x/y"):
        with pytest.raises(OcifsError):
            files.find(name)


@pytest.mark.parametrize(
    "kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_not_a_file_is_not_found(tmp_path: Path, kind: bytes) -> None:
    special = tarfile.TarInfo("index.json")
    special.type = kind
    with pytest.raises(NotFound):
        files_in(archive_of([special]), tmp_path).find("index.json")


def test_a_sparse_member_is_refused_and_the_others_are_found(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        for place in range(12):
            file.seek(place << 20)
            file.write(b"x")
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar"
        (tmp_path / "after").write_bytes(b"after")
        subprocess.run(
            ["tar", "-C", tmp_path, f"--format={form}", "-Scf", archive, "big", "after"], check=True
        )
        files = files_in(archive.read_bytes(), tmp_path)
        with pytest.raises(Malformed, match="sparse"):
            files.find("big")
        assert files.find("after").read(0, 10) == b"after"


def test_members_are_bounded(tmp_path: Path) -> None:
    """limits.archive_members, layer_header_bytes and layer_index_bytes."""
    body = archive_of([(f"file{number}", b"") for number in range(10)])
    assert files_in(body, tmp_path, replace(Limits(), archive_members=10)).has("file9")
    with pytest.raises(LimitExceeded, match="archive_members"):
        files_in(body, tmp_path, replace(Limits(), archive_members=9))
    with pytest.raises(LimitExceeded, match="layer_index_bytes"):
        files_in(body, tmp_path, replace(Limits(), layer_index_bytes=20))
    long = archive_of([("n" * 3000, b"")])
    assert files_in(long, tmp_path).has("n" * 3000)
    with pytest.raises(LimitExceeded, match="layer_header_bytes"):
        files_in(long, tmp_path, replace(Limits(), layer_header_bytes=1000))


def test_a_header_that_claims_terabytes_is_truncation(tmp_path: Path) -> None:
    info = tarfile.TarInfo("index.json")
    info.size = 1 << 50
    with pytest.raises(Malformed, match="truncated"):
        files_in(info.tobuf(tarfile.GNU_FORMAT), tmp_path)


def test_the_headers_of_an_archive_are_read_and_nothing_between_them(tmp_path: Path) -> None:
    """Of a large archive only headers are read, each once: work is counted in bytes."""
    body = archive_of([(f"file{number}", bytes(100_000)) for number in range(50)])
    path = tmp_path / "archive.tar"
    path.write_bytes(body)
    reads: list[int] = []
    real = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        reads.append(length)
        return real(descriptor, length, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", counted)
        ArchiveFiles(os.open(path, os.O_RDONLY), str(path), Limits(), nothing)
    assert sum(reads) <= 52 * tarfile.BLOCKSIZE


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)),
    min_size=1,
    max_size=300,
)


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=8),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_members_are_where_tarfile_finds_them(members: list[tuple[str, bytes]], form: int) -> None:
    """Law: the same names and contents as tarfile's, for names that stay within the archive."""
    body = archive_of(members, form)
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        expected = {}
        for info in tar:
            name = os.path.normpath(info.name.lstrip("/"))
            if info.isreg() and not name.startswith("..") and name != ".":
                file = tar.extractfile(info)
                assert file is not None
                expected[name] = file.read()
    descriptor = os.memfd_create("archive")
    os.write(descriptor, body)
    files = ArchiveFiles(descriptor, "archive", Limits(), nothing)
    for name, content in expected.items():
        if not ({"index.json", "manifest.json"} & {item.rpartition("/")[2] for item in expected}):
            assert files.find(name).read(0, 2000) == content


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_a_damaged_tar_is_an_error_of_ours_or_a_list(noise: bytes, place: int) -> None:
    body = bytearray(
        archive_of(
            [
                ("index.json", b"{}" * 300),
                link("a", "b"),
                ("n" * 200, b"x"),
                link("c", "a", hard=True),
            ]
        )
    )
    place = min(place, len(body))
    body[place : place + len(noise)] = noise
    descriptor = os.memfd_create("archive")
    os.write(descriptor, body)
    try:
        files = ArchiveFiles(
            descriptor, "archive", replace(Limits(), layer_header_bytes=4096), nothing
        )
        for name in ("index.json", "a", "c", "n" * 200):
            files.find(name).read(0, 1000)
    except OcifsError:
        pass


@pytest.mark.servers
@pytest.mark.parametrize("tool", ["tar", "bsdtar", "skopeo"])
async def test_archives_of_other_tools_are_read(
    members: list[tuple[str, bytes]], tmp_path: Path, tool: str
) -> None:
    directory = tmp_path / "layout"
    for name, body in members:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(body)
    path = tmp_path / "image.tar"
    if tool == "skopeo":
        subprocess.run(
            ["skopeo", "copy", "-q", f"oci:{directory}:v1", f"oci-archive:{path}:v1"], check=True
        )
    else:
        subprocess.run([tool, "-C", directory, "-cf", path, "."], check=True)
    await read_all(LayoutSource(str(path), LocalTransport.ANY))
