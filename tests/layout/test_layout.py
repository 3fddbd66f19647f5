"""OCI image layouts as sources: by skopeo and umoci, and broken, as directories and archives."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ocifs.content import Blob
from ocifs.errors import (
    BlobMissing,
    IntegrityError,
    LimitExceeded,
    Malformed,
    NotFound,
    Unsupported,
    UsageError,
)
from ocifs.fuse.errno import errno_of
from ocifs.layout.contents import ListedManifest
from ocifs.layout.names import NameTable
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import EMPTY_JSON, Digest
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.oci.mediatype import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from ocifs.settings import CacheSettings, Settings
from tests.layout.opened import layer_of, manifest_of, opened
from tests.support.image import make_layout, put
from tests.support.tars import a_tar

ARCHIVE = LocalTransport.OCI_ARCHIVE
EMPTY = {"mediaType": OCI_EMPTY, "digest": str(EMPTY_JSON), "size": 2}
MEBIBYTE = os.urandom(1 << 20)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "layout").mkdir()
    return make_layout(tmp_path / "layout", [a_tar(one=b"1", random=MEBIBYTE)])


def place_of(directory: Path, blob: Blob) -> Path:
    return directory / "blobs" / blob.digest.algorithm / blob.digest.encoded


@pytest.mark.servers
@pytest.mark.parametrize("archive", [False, True], ids=["directory", "archive"])
async def test_what_skopeo_copies_is_read(directory: Path, tmp_path: Path, archive: bool) -> None:
    copy = tmp_path / "copy"
    kind = "oci-archive" if archive else "oci"
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{directory}:v1", f"{kind}:{copy}:other"], check=True
    )
    async with opened(
        LayoutSource(str(copy), ARCHIVE if archive else LocalTransport.OCI)
    ) as layout:
        assert await layout.tags("") == ("other",)
        layer = (await manifest_of(layout, "other")).layers[0]
        content = await layout.read_blob(Blob("", layer.digest, layer.size), 0, layer.size)
        assert Digest.of(content) == layer.digest


@pytest.mark.servers
async def test_what_umoci_adds_while_it_is_open_is_seen(directory: Path) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.tags("") == ("v1",)
        await trio.run_process(
            ["umoci", "tag", "--image", f"{directory}:v1", "v2"], capture_stderr=True
        )
        assert set(await layout.tags("")) == {"v1", "v2"}


async def test_a_manifest_without_a_ref_name_is_listed_by_its_digest(directory: Path) -> None:
    index = json.loads((directory / "index.json").read_text())
    del index["manifests"][0]["annotations"]
    (directory / "index.json").write_text(json.dumps(index))
    async with opened(LayoutSource(str(directory))) as layout:
        digest = index["manifests"][0]["digest"]
        assert await layout.tags("") == (digest,)
        assert str((await layout.resolve("", digest)).digest) == digest
        assert (await manifest_of(layout, digest)).layers


async def test_a_blob_that_a_sparse_layout_does_not_hold_is_an_error_of_reading(
    directory: Path,
) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        blob = await layer_of(layout)
        place_of(directory, blob).unlink()
        with pytest.raises(BlobMissing, match=r"no blob .* in the layout") as raised:
            await layout.read_blob(blob, 0, 10)
        assert "sparse" in raised.value.hint
        assert errno_of(raised.value) == errno.EIO
        with pytest.raises(NotFound):
            await layout.blob_size("", blob.digest)


@pytest.mark.parametrize(
    "text", [f"blake3:{'a' * 64}", f"sha256:{'A' * 64}", "md5:abc", f"sha256:{'a' * 63}"]
)
async def test_content_of_an_unknown_algorithm_is_unsupported_and_not_absent(
    directory: Path, text: str
) -> None:
    """image-spec, descriptor.md "Digests"."""
    async with opened(LayoutSource(str(directory))) as layout:
        digest = Digest.parse(text)
        with pytest.raises(Unsupported, match="cannot verify"):
            await layout.read_blob(Blob("", digest, 3), 0, 3)
        with pytest.raises(Unsupported, match="cannot verify"):
            await layout.blob_size("", digest)
        with pytest.raises(Unsupported, match="cannot verify"):
            await layout.manifest("", digest)


async def test_rot_in_the_last_byte_is_found_where_it_is_read(directory: Path) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        blob = await layer_of(layout)
        flip(place_of(directory, blob), blob.size - 1)
        with pytest.raises(IntegrityError):
            await layout.read_blob(blob, blob.size - 10, 10)


async def test_with_full_verification_nothing_of_a_rotten_blob_is_served(directory: Path) -> None:
    settings = Settings(cache=CacheSettings(verify_full=True))
    async with opened(LayoutSource(str(directory)), settings) as layout:
        blob = await layer_of(layout)
        assert len(await layout.read_blob(blob, 0, 10)) == 10
        flip(place_of(directory, blob), blob.size // 2)
        with pytest.raises(IntegrityError):
            await layout.read_blob(blob, 0, 10)


async def test_a_file_of_another_size_than_its_descriptor_is_refused(directory: Path) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        blob = await layer_of(layout)
        os.truncate(place_of(directory, blob), blob.size - 1)
        with pytest.raises(IntegrityError):
            await layout.read_blob(blob, 0, 10)


async def test_a_manifest_with_other_content_is_refused(directory: Path) -> None:
    async with opened(LayoutSource(str(directory))) as layout:
        result = await layout.resolve("", "v1")
        path = directory / "blobs" / "sha256" / result.digest.encoded
        path.write_bytes(path.read_bytes().replace(b"amd64", b"arm64") + b" ")
        with pytest.raises(IntegrityError):
            await layout.manifest("", result.digest)


@pytest.mark.parametrize(
    "index",
    ['{"schemaVersion": 2, "manifests": null}', '{"schemaVersion": 2}', '{"manifests": []}'],
)
async def test_a_list_of_manifests_that_is_null_is_empty(directory: Path, index: str) -> None:
    (directory / "index.json").write_text(index)
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.tags("") == ()


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"manifests": 3}', '{"manifests": [{"digest": "sha256:.."}]}']
)
async def test_an_index_that_is_none_is_malformed(directory: Path, index: str) -> None:
    (directory / "index.json").write_text(index)
    async with opened(LayoutSource(str(directory))) as layout:
        with pytest.raises(Malformed):
            await layout.tags("")


async def test_an_index_past_the_bound_is_refused(directory: Path) -> None:
    settings = Settings()
    settings = replace(settings, limits=replace(settings.limits, manifest_bytes=100))
    async with opened(LayoutSource(str(directory)), settings) as layout:
        with pytest.raises(LimitExceeded, match="manifest_bytes"):
            await layout.tags("")


@pytest.mark.parametrize("archive", [False, True], ids=["directory", "archive"])
async def test_what_is_no_layout_is_said_to_be_none(tmp_path: Path, archive: bool) -> None:
    place = tmp_path / "something"
    if archive:
        place.write_bytes(a_tar(readme=b"hello"))
    else:
        place.mkdir()
    with pytest.raises(UsageError, match="not an OCI image layout"):
        async with opened(LayoutSource(str(place), ARCHIVE if archive else LocalTransport.OCI)):
            pass


async def test_an_archive_is_the_same_as_its_directory(directory: Path, tmp_path: Path) -> None:
    archive = tmp_path / "layout.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(directory, ".")
    async with (
        opened(LayoutSource(str(directory))) as one,
        opened(LayoutSource(str(archive), ARCHIVE)) as other,
    ):
        assert await one.tags("") == await other.tags("")
        blob = await layer_of(one)
        assert blob == await layer_of(other)
        read = [await item.read_blob(blob, 100, blob.size) for item in (one, other)]
        assert hashlib.sha256(read[0]).digest() == hashlib.sha256(read[1]).digest()


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    "marker",
    [None, "{}", "not json", '{"imageLayoutVersion": "2.0.0"}', '{"imageLayoutVersion": 1}'],
)
async def test_an_oci_layout_file_that_is_missing_or_wrong_is_a_warning(
    directory: Path, marker: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """image-spec, image-layout.md "oci-layout file"."""
    (directory / "oci-layout").unlink()
    if marker is not None:
        (directory / "oci-layout").write_text(marker)
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.tags("") == ("v1",)
    assert [record for record in caplog.records if record.name == "ocifs.layout"]


def named(directory: Path, *annotations: dict[str, str]) -> list[str]:
    """The layout with an entry for each of these annotations, each an image of its own; their
    digests.
    """
    index = json.loads((directory / "index.json").read_text())
    [entry] = index["manifests"]
    body = (directory / "blobs" / entry["digest"].replace(":", "/")).read_bytes()
    index["manifests"] = []
    for number, item in enumerate(annotations):
        added = put(directory, body + b" " * number, entry["mediaType"])
        index["manifests"].append({**added, "annotations": item})
    (directory / "index.json").write_text(json.dumps(index))
    return [item["digest"] for item in index["manifests"]]


REF, NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"


async def test_two_images_of_one_ref_name_are_found_by_their_full_names_and_digests(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = [f"docker.io/library/{name}:latest" for name in ("alpine", "busybox")]
    digests = named(directory, *({REF: "latest", NAME: name} for name in full), {REF: "latest"})
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.tags("") == (*full, digests[2])
        for name, digest in zip((*full, digests[2]), digests, strict=True):
            assert str((await layout.resolve("", name)).digest) == digest
            assert (
                str((await layout.resolve("", name.removeprefix("docker.io/library/"))).digest)
                == digest
            )
        assert str((await layout.resolve("", "busybox")).digest) == digests[1]
        with pytest.raises(NotFound, match="3 images are named 'latest'") as raised:
            await layout.resolve("", "latest")
        assert all(name in raised.value.hint for name in (*full, digests[2]))
    assert "latest" in caplog.text


async def test_a_manifest_is_found_by_its_position(directory: Path) -> None:
    """containers-transports(5), "oci:path[:{image|@source-index}]"."""
    digests = named(directory, {}, {REF: "@0"}, {REF: "b"})
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.tags("") == (digests[0], "@0", "b")
        assert str((await layout.resolve("", "@2")).digest) == digests[2]
        assert (
            str((await layout.resolve("", "@0")).digest) == digests[1]
        )  # a name that is shown leads to what it names
        for text in ("@3", "@-1", "@00", "@", "@x"):
            with pytest.raises(NotFound):
                await layout.resolve("", text)


async def test_a_name_and_a_digest_have_to_mean_the_same(directory: Path) -> None:
    digests = named(directory, {REF: "a"}, {REF: "b"})
    async with opened(LayoutSource(str(directory))) as layout:
        assert await layout.version(f"a@{digests[0]}") == Digest.parse(digests[0])
        assert await layout.version(digests[1]) == Digest.parse(digests[1])
        assert await layout.version("a") == "a"
        with pytest.raises(NotFound):
            await layout.version(f"a@{digests[1]}")


LISTS = st.lists(
    st.dictionaries(
        st.sampled_from([REF, NAME]),
        st.sampled_from(["a", "b", "docker.io/library/a:latest", "@1", "x y"]),
    )
)


@given(LISTS, st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_every_name_that_is_shown_leads_to_its_manifest(
    names: list[dict[str, str]], contents: list[int]
) -> None:
    """Law: each manifest is shown, and each name that is shown is found and is that of one
    manifest.
    """
    listed = []
    for number, (item, content) in enumerate(zip(names, contents, strict=False)):
        descriptor = Descriptor("t", Digest.of(bytes([content])), 1)
        result = dict.fromkeys(filter(None, (item.get(REF), item.get(NAME))))
        listed.append(ListedManifest(number, descriptor, tuple(result)))
    table = NameTable(listed)
    assert {table.find(name).identity for name in table.shown} == {item.identity for item in listed}
    for name in table.ambiguous:
        assert name not in table.shown
        with pytest.raises(NotFound):
            table.find(name)


async def test_what_is_odd_about_a_layout_is_noted_with_its_manifests(directory: Path) -> None:
    """image-spec, descriptor.md "Properties" and image-layout.md "oci-layout file"."""
    index = json.loads((directory / "index.json").read_text())
    size = index["manifests"][0]["size"]
    index["manifests"][0]["size"] = 7
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "9"}')
    async with opened(LayoutSource(str(directory))) as layout:
        raw = await layout.tagged("", "v1")
        assert raw.notes == (
            'the layout has version "9", ocifs supports 1.0.0',
            f"its descriptor in index.json records 7 bytes, it has {size}",
        )


def referring(directory: Path, to: dict[str, object], kind: str) -> dict[str, object]:
    """A manifest about another, in the layout but in no index."""
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": EMPTY,
        "layers": [],
    }
    return put(directory, json.dumps({**body, "subject": to}).encode(), OCI_MANIFEST)


def indexed(directory: Path, *children: dict[str, object]) -> dict[str, object]:
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}
    return put(directory, json.dumps(body).encode(), OCI_INDEX)


async def test_referrers_are_found_in_nested_indices_and_under_the_fallback_tag(
    directory: Path,
) -> None:
    """distribution-spec, "Referrers Tag Schema", as regctl keeps it in layouts."""
    put(directory, b"{}", "")
    index = json.loads((directory / "index.json").read_text())
    image = {name: index["manifests"][0][name] for name in ("mediaType", "digest", "size")}
    top, nested, tagged, sparse = (
        referring(directory, image, f"application/x.{name}") for name in "abcd"
    )
    other = referring(directory, {**image, "digest": f"sha256:{'0' * 64}"}, "application/x.other")
    tag = {REF: str(image["digest"]).replace(":", "-")}
    index["manifests"] += [
        top,
        other,
        indexed(directory, indexed(directory, nested)),
        {
            **indexed(directory, tagged, {**sparse, "artifactType": "application/x.d"}),
            "annotations": tag,
        },
        {**image, "digest": f"sha256:{'1' * 64}"},  # which the layout does not hold
    ]
    (directory / "blobs" / str(sparse["digest"]).replace(":", "/")).unlink()
    (directory / "index.json").write_text(json.dumps(index))
    async with opened(LayoutSource(str(directory))) as layout:
        result = await layout.referrers("", Digest.parse(str(image["digest"])))
        kinds = {str(item.digest): item.artifact_type for item in result}
        assert kinds == {
            str(item["digest"]): f"application/x.{n}"
            for item, n in zip((top, nested, tagged, sparse), "abcd", strict=True)
        }
        assert await layout.referrers("", Digest.parse(f"sha256:{'2' * 64}")) == ()


async def test_indices_that_hold_each_other_many_times_are_looked_into_once(
    directory: Path,
) -> None:
    """2^8 paths lead to one manifest. Work is counted in files that are read."""
    index = json.loads((directory / "index.json").read_text())
    child = index["manifests"][0]
    for _ in range(7):
        child = indexed(directory, *[child] * 50)
    index["manifests"].append(child)
    (directory / "index.json").write_text(json.dumps(index))
    async with opened(LayoutSource(str(directory))) as layout:
        with trio.fail_after(30):
            assert await layout.referrers("", Digest.parse(f"sha256:{'2' * 64}")) == ()
