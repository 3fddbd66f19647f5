"""Each bound on untrusted input admits an input within it, and is named in the error otherwise."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zstandard

from ocifs.errors import LimitExceeded, OcifsError
from ocifs.layers.merge.apply import merge
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.registry.client import RegistryClient
from ocifs.registry.http.etags import EtagStore, RegistryResponse
from ocifs.settings import Limits, Settings
from ocifs.tree.manifest.reachable import reachable
from ocifs.tree.node import Directory, File
from ocifs.tree.registry.single import SingleManifest, open_single
from ocifs.tree.walk import walk
from tests.layers.stacks import file, layer, symlink
from tests.layers.tars import DIRECTORY, SYMLINK, entry, inflate, members, tar
from tests.support.clients import open_registry
from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.tree.memory import MemoryRegistry
from tests.tree.test_semantics import context_of

SETTINGS = Settings()


def limited(**bounds: float) -> Settings:
    return replace(SETTINGS, limits=replace(SETTINGS.limits, **bounds))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """One bound: a response, a request, a value that admits the response, and one that does not."""

    handler: Handler
    ask: Callable[[RegistryClient], Awaitable[object]]
    enough: int
    little: int


def tags_in_pages(count: int) -> Handler:
    """A list of tags with one tag on each page."""

    def handler(request: Request) -> Reply:
        number = int(request.target.partition("last=v")[2] or 0)
        body = json.dumps({"tags": [f"v{number}"]}).encode()
        if number + 1 == count:
            return http(200, body)
        return http(200, body, link=f'</v2/a/b/tags/list?last=v{number + 1}>; rel="next"')

    return handler


def always(status: int, body: bytes, **headers: str) -> Handler:
    return lambda request: http(status, body, **headers)


def referrers(count: int) -> bytes:
    digest = "sha256:" + "0" * 64
    one = {"mediaType": mediatype.OCI_MANIFEST, "digest": digest, "size": 2}
    listed = [{**one, "digest": f"sha256:{number:064x}"} for number in range(count)]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": listed}
    ).encode()


MANIFEST = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}'
DIGEST = Digest.of(MANIFEST)
REGISTRY: dict[str, Row] = {
    "pages": Row(tags_in_pages(5), lambda client: client.tags("a/b"), 5, 4),
    "names": Row(always(200, b'{"tags": ["a","b","c"]}'), lambda client: client.tags("a/b"), 3, 2),
    "answer_bytes": Row(always(200, b'{"tags": ["a"]}'), lambda client: client.tags("a/b"), 15, 14),
    "manifest_bytes": Row(
        always(200, MANIFEST, content_type=mediatype.OCI_MANIFEST),
        lambda client: client.manifest("a/b", DIGEST),
        len(MANIFEST),
        len(MANIFEST) - 1,
    ),
    "referrers": Row(
        always(200, referrers(3), content_type=mediatype.OCI_INDEX),
        lambda client: client.referrers("a/b", DIGEST),
        3,
        2,
    ),
}


@pytest.mark.parametrize("name", REGISTRY)
async def test_a_response_above_a_bound_is_an_error(name: str) -> None:
    row = REGISTRY[name]
    with fault_server(row.handler) as server:
        async with open_registry(server.host, limited(**{name: row.enough})) as client:
            await row.ask(client)
        async with open_registry(server.host, limited(**{name: row.little})) as client:
            with pytest.raises(LimitExceeded, match=rf"\b{name}\b"):
                await row.ask(client)


async def test_the_body_of_an_error_is_bounded() -> None:
    """The body is cut and not rejected, because the status is enough."""
    said = json.dumps({"errors": [{"code": "DENIED", "message": "x" * 10_000}]}).encode()
    with fault_server(always(403, said)) as server:
        async with open_registry(server.host, limited(error_bytes=100)) as client:
            with pytest.raises(OcifsError) as caught:
                await client.tags("a/b")
    assert "xxxx" not in str(caught.value)


async def test_redirects_are_bounded() -> None:
    def handler(request: Request) -> Reply:
        number = int(request.target.partition("hop=")[2] or 0)
        if number == 3:
            return http(200, b'{"tags": ["a"]}')
        return http(307, location=f"/v2/a/b/tags/list?hop={number + 1}")

    with fault_server(handler) as server:
        async with open_registry(server.host, limited(redirects=3)) as client:
            assert await client.tags("a/b") == ("a",)
        async with open_registry(server.host, limited(redirects=2)) as client:
            with pytest.raises(OcifsError, match="redirects"):
                await client.tags("a/b")


async def test_tries_are_bounded() -> None:
    with fault_server(always(503, b"")) as server:
        async with open_registry(server.host, limited(retries=2)) as client:
            with pytest.raises(OcifsError):
                await client.tags("a/b")
    assert len(server.requests) == 2


SOME = tar(entry("a", DIRECTORY), entry("a/b", content=b"x" * 5000), entry("a/c", content=b"y"))
HOLES = [
    entry(
        "holes",
        pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)},
        content=b"x",
    )
]
SKIPPED = b"\x50\x2a\x4d\x18" + bytes(4)  # a zstd frame that decoders skip (RFC 8878, 3.1.2)
LAYER: dict[str, tuple[Callable[[Limits], object], int, int]] = {
    "layer_bytes": (lambda limits: inflate(SOME, limits), len(SOME), len(SOME) - 1),
    "layer_members": (lambda limits: members(SOME, limits), 3, 2),
    "implied_directories": (lambda limits: merge([layer(file("a/b/c/d"))], limits), 3, 2),
    "layer_index_bytes": (lambda limits: members(SOME, limits), 10_000, 3),
    "layer_file_bytes": (lambda limits: members(tar(*HOLES), limits), 1 << 40, (1 << 40) - 1),
    "layer_header_bytes": (lambda limits: members(tar(entry("n" * 5000)), limits), 20_000, 1000),
    "layer_link_bytes": (
        lambda limits: members(tar(entry("a", SYMLINK, linkname="b" * 4095)), limits),
        4095,
        4094,
    ),
    "layer_link_steps": (
        lambda limits: merge([layer(symlink("a", "./" * 9 + "b"), file("a/c"))], limits),
        10,
        9,
    ),
    "layer_streams": (
        lambda limits: inflate(b"".join(map(gzip.compress, (SOME, b"", b""))), limits),
        3,
        2,
    ),
    "layer_empty_streams": (
        lambda limits: inflate(zstandard.compress(SOME) + SKIPPED * 3, limits),
        2,
        1,
    ),
}


@pytest.mark.parametrize("name", LAYER)
def test_a_layer_that_unpacks_to_more_than_a_bound_allows(name: str) -> None:
    work, enough, little = LAYER[name]
    work(replace(SETTINGS.limits, **{name: enough}))  # type: ignore[arg-type]
    with pytest.raises(LimitExceeded, match=rf"\b{name}\b"):
        work(replace(SETTINGS.limits, **{name: little}))  # type: ignore[arg-type]


def test_the_deepest_path_of_a_header_is_harmless() -> None:
    """Code that walks a tree must not recurse.

    A header of half a MiB can have a path of 200,000 directories.
    """
    deep = "/".join(["d"] * 200_000)
    found = members(tar(entry(deep)), SETTINGS.limits)
    assert len(found) == 1
    try:
        tree = merge([layer(file(deep))], SETTINGS.limits)
    except LimitExceeded:
        return
    del tree


async def test_a_manifest_of_more_layers_than_a_bound_allows_lists_none() -> None:
    registry = MemoryRegistry()
    many = [registry.put_blob(bytes([number])) for number in range(3)]
    registry.put_manifest(
        "a", "v1", {"config": registry.put_blob(b"{}", "application/x"), "layers": many}
    )
    for allowed in (3, 2):
        context = replace(context_of(registry), limits=Limits(layers=allowed))
        layers = await walk(await open_single(context, "a", "v1"), b"layers")
        assert isinstance(layers, Directory)
        if allowed == 3:
            assert len(await layers.entries()) == 3
        else:
            with pytest.raises(LimitExceeded, match=r"limits\.layers"):
                await layers.entries()


async def test_indices_within_more_indices_than_a_bound_allows_are_not_followed() -> None:
    registry = MemoryRegistry()
    child = registry.put_manifest(
        "a", "v0", {"config": registry.put_blob(b"{}", "application/x"), "layers": []}
    )
    for number in range(1, 4):
        child = registry.put_manifest(
            "a", f"v{number}", {"mediaType": mediatype.OCI_INDEX, "manifests": [child]}
        )
    for allowed in (3, 2):
        context = replace(context_of(registry), limits=Limits(index_depth=allowed))
        root = await open_single(context, "a", "v3")
        assert isinstance(root, SingleManifest)
        if allowed == 3:
            assert len((await reachable(root.location)).manifests) == 4
        else:
            with pytest.raises(LimitExceeded, match=r"limits\.index_depth"):
                await reachable(root.location)


async def test_a_config_larger_than_a_bound_is_shown_and_not_read_to_be_understood() -> None:
    registry = MemoryRegistry()
    config = json.dumps(
        {"created": "2024-01-01T00:00:00Z", "os": "linux", "architecture": "amd64"}
    ).encode()
    described = registry.put_blob(config, mediatype.OCI_CONFIG)
    registry.put_manifest(
        "a", "v1", {"config": described, "layers": [registry.put_blob(b"x", mediatype.OCI_LAYER)]}
    )
    for bound, dated in ((len(config), True), (len(config) - 1, False)):
        context = replace(context_of(registry), limits=Limits(config_bytes=bound))
        root = await open_single(context, "a", "v1")
        assert bool((await walk(root, b"manifest.json")).attributes.mtime_ns) is dated
        shown = await walk(root, b"config.json")
        assert isinstance(shown, File)
        assert await shown.read(0, 4096) == config


def test_responses_cached_by_etag_are_bounded() -> None:
    kept = EtagStore(100)  # limits.validated_bytes
    for number in range(50):
        kept.update(f"/v2/{number}", RegistryResponse(200, {"etag": f'"{number}"'}, b"x" * 30))
    assert sum(bool(kept.condition(f"/v2/{number}")) for number in range(50)) == 3


HERE = {
    *REGISTRY,
    *LAYER,
    "error_bytes",
    "redirects",
    "retries",
    "layers",
    "index_depth",
    "config_bytes",
    "validated_bytes",
}
ELSEWHERE = {
    "archive_members": "tests/layout/test_archive.py",
    "erofs_bytes": "tests/layers/test_erofs.py",
    "hosts": "tests/tree/test_hosts.py",
    "toc_bytes": "tests/layers/test_toc.py",
    "chunk_bytes": "tests/layers/test_toc.py",
    "prefetch_bytes": "tests/layers/test_lazy.py",
    "layer_ratio": "tests/layers/test_tar.py",
    "layer_window": "tests/layers/test_tar.py",
}


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Limits)])
def test_each_bound_has_a_test(name: str) -> None:
    if name not in HERE:
        place = ELSEWHERE.get(name, "")
        assert place, f"limits.{name} has no test that passes it"
        assert name in Path(__file__).parents[2].joinpath(place).read_text(), (
            f"{place} does not name limits.{name}"
        )
