"""The same requests to registries of several makers: lists, ranges, absence, referrers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ocifs.content import Blob
from ocifs.errors import CatalogUnavailable, NotFound
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import endpoints
from ocifs.oci.distribution.endpoints import referrers_tag
from ocifs.settings import Settings
from tests.support.clients import open_registry
from tests.support.push import push_blob, push_manifest
from tests.support.registries import KINDS, running

pytestmark = pytest.mark.servers

CONTENT = bytes(range(256)) * 400
HAVE_THE_API = {"referring", "olareg"}
REPOSITORY = "team/app"


@dataclass(frozen=True)
class World:
    kind: str
    host: str
    manifest: Digest
    signatures: tuple[Digest, ...]


@pytest.fixture(scope="module", params=KINDS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as host:
        url = f"http://{host}"
        push_blob(url, REPOSITORY, CONTENT)
        empty = {
            "mediaType": mediatype.OCI_EMPTY,
            "digest": push_blob(url, REPOSITORY, b"{}"),
            "size": 2,
        }
        image = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": empty,
            "layers": [empty],
        }
        for tag in ("a", "b", "c", "d", "e"):
            digest = push_manifest(url, REPOSITORY, image, tag)
        subject = {"mediaType": mediatype.OCI_MANIFEST, "digest": digest, "size": len(str(image))}
        described = []
        for kind in ("application/x.signature", "application/x.sbom"):
            signature = {**image, "artifactType": kind, "subject": subject}
            signed = push_manifest(url, REPOSITORY, signature)
            described.append(
                {
                    "mediaType": mediatype.OCI_MANIFEST,
                    "digest": signed,
                    "size": 1,
                    "artifactType": kind,
                }
            )
        if (
            request.param not in HAVE_THE_API
        ):  # as a client that pushes has to (distribution-spec, "Referrers Tag Schema")
            index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": described}
            push_manifest(url, REPOSITORY, index, referrers_tag(Digest.parse(digest)))
        signatures = tuple(Digest.parse(str(each["digest"])) for each in described)
        yield World(request.param, host, Digest.parse(digest), signatures)


async def test_lists_are_read_to_their_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PAGE", 2)
    async with open_registry(world.host, Settings()) as client:
        shown = [tag for tag in await client.tags(REPOSITORY) if not tag.startswith("sha256-")]
        assert sorted(shown) == ["a", "b", "c", "d", "e"]
        try:
            assert REPOSITORY in await client.repositories()
        except CatalogUnavailable:
            assert world.kind == "olareg"  # which has none


@pytest.mark.parametrize(
    ("start", "stop"), [(0, len(CONTENT)), (0, 10), (100, 5000), (len(CONTENT) - 1, len(CONTENT))]
)
async def test_any_part_of_a_blob_is_read(world: World, start: int, stop: int) -> None:
    blob = Blob(REPOSITORY, Digest.of(CONTENT), len(CONTENT))
    async with open_registry(world.host, Settings()) as client:
        async with client.open_blob(blob, start, stop) as stream:
            got = b"".join([piece async for piece in stream])
            assert stream.total == len(CONTENT)
            assert got[start - stream.start :][: stop - start] == CONTENT[start:stop]
        assert await client.blob_size(REPOSITORY, blob.digest) == len(CONTENT)


async def test_a_tag_is_read_by_either_way(world: World) -> None:
    async with open_registry(world.host, Settings()) as client:
        assert (await client.resolve(REPOSITORY, "a")).digest == world.manifest
        tagged = await client.tagged(REPOSITORY, "a")
        assert tagged == await client.manifest(REPOSITORY, world.manifest)


async def test_what_is_not_there_is_not_found(world: World) -> None:
    absent = Digest.of(b"absent")
    async with open_registry(world.host, Settings()) as client:
        questions = [
            lambda: client.resolve(REPOSITORY, "z"),
            lambda: client.tagged(REPOSITORY, "z"),
            lambda: client.manifest(REPOSITORY, absent),
            lambda: client.blob_size(REPOSITORY, absent),
        ]
        if world.kind != "olareg":  # which has every repository, with nothing in it
            questions.append(lambda: client.tags("no/such"))
        for question in questions:
            with pytest.raises(NotFound):
                await question()


async def test_what_refers_to_a_manifest_is_found_and_how_is_asked_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ocifs.registry")
    async with open_registry(world.host, Settings()) as client:
        for digest in (world.manifest, world.manifest, world.signatures[0]):
            found = await client.referrers(REPOSITORY, digest)
            expected = set(world.signatures) if digest == world.manifest else set()
            assert {each.digest for each in found} == expected
            if found:
                kinds = {"application/x.signature", "application/x.sbom"}
                # This registry reports the media type of the config as the artifact type.
                if world.kind == "referring":
                    kinds = {mediatype.OCI_EMPTY}
                assert {each.artifact_type for each in found} == kinds
    asked = re.findall(r"GET \S+/referrers/", caplog.text)
    assert len(asked) == (3 if world.kind in HAVE_THE_API else 1)


async def test_a_warning_of_the_registry_is_shown(world: World) -> None:
    async with open_registry(world.host, Settings()) as client:
        await client.tags(REPOSITORY)
        await client.tags(REPOSITORY)
        shown = [each["message"] for each in client.facts()["warnings"]]
    assert shown == (["this registry forgets"] if world.kind == "referring" else [])
