"""The fuzz targets: a strategy for each kind of untrusted input, and the law that it must obey.

Rules that hold here:
- A law requires a well-formed result or an error of ocifs. Any other exception is a failure.
- A target depends only on its input, so a failure can be repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import trio
from hypothesis import strategies as st

from ocifs.cli import config as ocifs_config
from ocifs.cli.mount import command as mount
from ocifs.errors import OcifsError, UsageError
from ocifs.layers.index.codec import decode, encode
from ocifs.layers.index.entry import LayerIndex
from ocifs.layers.merge.apply import merge
from ocifs.layers.merge.tree import decode as decode_tree
from ocifs.layers.merge.tree import encode as encode_tree
from ocifs.layout.names import NameTable
from ocifs.layout.opener import SourceOpener
from ocifs.layout.unpacked import Progress
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import pages, responses
from ocifs.oci.distribution.challenge import parse_challenges, read_token
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.files import FileSource
from ocifs.registry.auth.helpers import CredentialHelper, HelperRunner
from ocifs.registry.config import hosts_toml, registries_conf
from ocifs.settings import CacheSettings, Limits, Settings
from ocifs.store.blobs.cached import CachedBlobs
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from ocifs.store.names.access import RegistryIdentity
from ocifs.store.names.cached import CachedCatalog
from ocifs.store.upkeep.pins import pins
from ocifs.tree.node import Directory, File, Symlink
from ocifs.tree.registry.single import open_single
from tests.fuzz.inputs import as_json_bytes, damaged_bytes, damaged_text
from tests.layers.stacks import directory, file, hardlink, layer, symlink
from tests.layers.tables import chunked, read, starred, zipped, zstd
from tests.layers.tars import members
from tests.layers.test_fuzz import PACKED, judged
from tests.layers.test_fuzz import SEED as TAR
from tests.layers.test_toc import in_order, usual
from tests.registry.test_registries_conf import MAN_PAGE
from tests.store.source import MemorySource
from tests.support.archives import OUTER, archive_of, saved
from tests.tree.memory import MemoryRegistry
from tests.tree.test_semantics import context_of

KIB = 1024
Law = Callable[[Any], None]

# In nanoseconds. Python's dates end here, while stat has separate seconds and nanoseconds.
_YEAR_10000 = 253_402_300_800 * 10**9


@dataclass(frozen=True)
class Target:
    """The inputs of one kind, and their law."""

    inputs: st.SearchStrategy[Any]
    law: Law


TARGETS: dict[str, Target] = {}


def target(name: str, inputs: st.SearchStrategy[Any]) -> Callable[[Law], Law]:
    def keep(law: Law) -> Law:
        TARGETS[name] = Target(inputs, law)
        return law

    return keep


# Responses of registries.

CONFIG = (
    b'{"os":"linux","architecture":"amd64","created":"2024-01-02T03:04:05Z",'
    b'"config":{"Cmd":["sh"]},"history":[{}]}'
)
_DIGEST = "sha256:" + "1" * 64
_LAYER = {
    "mediaType": mediatype.OCI_LAYER,
    "digest": _DIGEST,
    "size": 5,
    "annotations": {"org.opencontainers.image.title": "a/b.txt"},
}
_PLATFORM = {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1"}
_CONFIG = {"mediaType": mediatype.OCI_CONFIG, "digest": str(Digest.of(CONFIG)), "size": len(CONFIG)}
MANIFESTS = [
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": _CONFIG,
        "layers": [_LAYER, {**_LAYER, "data": "eA=="}],
    },
    {
        **{
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": "application/vnd.x+json",
        },
        **{
            "config": {**_CONFIG, "mediaType": mediatype.OCI_EMPTY},
            "layers": [_LAYER],
            "subject": _LAYER,
        },
        "annotations": {"org.opencontainers.image.created": "2024-01-02", "a/../b": "c"},
    },
    {
        **{"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX},
        "manifests": [
            {**_LAYER, "mediaType": mediatype.OCI_MANIFEST, "platform": _PLATFORM},
            {**_LAYER, "mediaType": mediatype.OCI_INDEX, "artifactType": "x/y"},
            {
                **_LAYER,
                "annotations": {
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": _DIGEST,
                },
            },
        ],
    },
    {
        "schemaVersion": 1,
        "name": "a",
        "tag": "b",
        "fsLayers": [{"blobSum": _DIGEST}] * 2,
        "history": [{"v1Compatibility": "{}"}] * 2,
    },
]
KINDS = st.sampled_from([*mediatype.MANIFESTS, "", "text/html"])


@target(
    "manifests and indices, as directories",
    st.tuples(as_json_bytes(MANIFESTS), KINDS, as_json_bytes([{}]).map(lambda _: CONFIG)),
)
def a_manifests_directory(given: tuple[bytes, str, bytes]) -> None:
    body, kind, config = given
    registry = MemoryRegistry()
    registry.put_blob(config, mediatype.OCI_CONFIG)
    registry.content[Digest.of(body)] = (kind, body)
    registry.known["a"] = {"v1": Digest.of(body)}
    trio.run(_walked, registry)


@target(
    "configs, as directories",
    as_json_bytes(
        [
            {
                "os": "linux",
                "architecture": "amd64",
                "created": "2024-01-02T03:04:05Z",
                "config": {
                    "Cmd": ["sh"],
                    "Entrypoint": ["x"],
                    "Labels": {"a": "b"},
                    "Env": ["A=b"],
                    "User": "me",
                },
                "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
                "history": [{"created_by": "RUN x", "empty_layer": True}, {}],
            }
        ]
    ),
)
def a_configs_directory(config: bytes) -> None:
    registry = MemoryRegistry()
    described = registry.put_blob(config, mediatype.OCI_CONFIG)
    registry.put_manifest("a", "v1", {"config": described, "layers": [_LAYER]})
    trio.run(_walked, registry)


async def _walked(registry: MemoryRegistry) -> None:
    """Walk over everything outside of layers.

    Names have one component, and attributes fit into a stat, or the error is one of ocifs.
    """
    todo: list[tuple[object, int]] = []
    with contextlib.suppress(OcifsError):
        todo = [(await open_single(context_of(registry), "a", "v1"), 0)]
    while todo:
        node, depth = todo.pop()
        assert isinstance(node, Directory | File | Symlink)
        with contextlib.suppress(OcifsError):
            assert 0 <= node.attributes.size < 1 << 63
            assert abs(node.attributes.mtime_ns) < _YEAR_10000
            for name in node.attribute_names():
                await node.attribute(name)
            if isinstance(node, File):
                assert len(await node.read(0, 1 << 16)) <= 1 << 16
            elif isinstance(node, Symlink):
                assert node.target and b"\0" not in node.target and not node.target.startswith(b"/")
            elif depth < 4:
                entries = await node.entries()
                names = [entry.name for entry in entries]
                assert len(names) == len(set(names))
                for name in names:
                    assert (
                        name
                        and name not in (b".", b"..")
                        and not {0, 0x2F} & set(name)
                        and len(name) <= 255
                    )
                todo += [
                    (entry.node, depth + 1)
                    for entry in entries
                    if entry.name not in (b"rootfs", b"tree")
                ]


CHALLENGES = [
    'Bearer realm="https://auth.example/token",service="reg.example",scope="repository:a/b:pull,push"',
    'Basic realm="a \\"b\\" c", Negotiate, Bearer realm=x, error="insufficient_scope"',
    'Digest realm="x", qop=auth,\tBearer  realm="https://a/"',
]


@target("challenge headers", damaged_text(CHALLENGES, [",", "=", '"', "\\", "Bearer ", "realm="]))
def challenges(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower() and challenge.scheme
        assert all(isinstance(value, str) for value in challenge.parameters.values())


@target(
    "tokens",
    as_json_bytes(
        [
            {
                "token": "abc",
                "access_token": "x",
                "expires_in": 300,
                "issued_at": "2024-01-01T00:00:00Z",
            }
        ]
    ),
)
def tokens(body: bytes) -> None:
    with contextlib.suppress(OcifsError):
        token = read_token(body)
        assert 0 < token.expires_in < 10**7


_URL = "https://reg.example/v2/a/b/tags/list?n=1000"
LINKS = [
    '</v2/a/b/tags/list?n=1000&last=v9>; rel="next"',
    '<https://reg.example/v2/a/b/tags/list?last=x>;rel=next;title="a, b", </v2/>; rel="prev"',
    '<?last=1>; rel="prev next"',
]


@target(
    "Link headers",
    damaged_text(LINKS, ["<", ">", ";", ",", '"', "//evil.example/", "rel=next", "\\", "#", "?"]),
)
def links(header: str) -> None:
    with contextlib.suppress(OcifsError):
        found = responses.next_page(_URL, {"link": header})
        if found is not None:
            assert (
                found.startswith("/")
                and urlsplit("https://reg.example" + found).netloc == "reg.example"
            )


HEADERS = [
    "bytes 0-9/100",
    "120",
    "Wed, 21 Oct 2015 07:28:00 GMT",
    '299 - "text"',
    _DIGEST,
    "99;w=21600",
]


@target(
    "other headers",
    st.tuples(
        damaged_text(HEADERS), st.sampled_from([200, 206, 416, 429, 503]), st.integers(0, 1 << 40)
    ),
)
def headers(given: tuple[str, int, int]) -> None:
    text, status, start = given
    said = dict.fromkeys(
        (
            "content-range",
            "content-length",
            "retry-after",
            "warning",
            "docker-content-digest",
            "ratelimit-limit",
        ),
        text,
    )
    pause = responses.retry_after(said, 1e9)
    assert pause is None or pause >= 0
    responses.warnings(said)
    responses.rate_limits(said)
    head = responses.read_head(said)
    assert head is None or head.size >= 0
    size = responses.read_size(status, said)
    assert size is None or size >= 0
    with contextlib.suppress(OcifsError):
        part = responses.read_range(status, said, start)
        assert part.start in (0, start)


@target(
    "lists and bodies of errors",
    as_json_bytes(
        [
            {"tags": ["v1", "a"]},
            {"tags": None},
            {"repositories": ["a/b"]},
            {"errors": [{"code": "DENIED", "message": "m", "detail": {}}]},
        ]
    ),
)
def lists(body: bytes) -> None:
    for member in ("tags", "repositories"):
        with contextlib.suppress(OcifsError):
            assert all(".." not in name.split("/") for name in pages.read_names(body, member).names)
    for status in (401, 404, 429, 500):
        said = str(responses.error_of(status, {}, body, "it", 0.0))
        assert said.isprintable() and len(said) < 2000


# Content that users have pushed.


@target(
    "tars",
    st.tuples(
        damaged_bytes([TAR], [b"ustar\x0000", b"0" * 11 + b"\0", b"L", b"x", b"g", b"K", b"S"]),
        st.sampled_from(PACKED),
    ),
)
def tars(given: tuple[bytes, Callable[[bytes], bytes]]) -> None:
    data, pack = given
    judged(data)
    judged(pack(data))


_SAVED = archive_of(saved([("a", ["a:1"]), ("b", None)]))
_INDEX: dict[str, object] = {
    "digest": _DIGEST,
    "size": 5,
    "annotations": {"org.opencontainers.image.ref.name": "v1"},
}
_LISTED = archive_of(
    [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", json.dumps({"manifests": [_INDEX]}).encode()),
    ]
)


@target(
    "archives of images",
    st.tuples(
        damaged_bytes(
            [_SAVED, _LISTED], [b"manifest.json", b"index.json", b"./", b"/", b"2", b"1"]
        ),
        st.sampled_from(list(OUTER.values())),
    ),
)
def archives(given: tuple[bytes, Callable[[bytes], bytes]]) -> None:
    data, pack = given
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "image").write_bytes(pack(data))
        in_order_on_disk(Path(place) / "image", Path(place) / "cache")


@target(
    "what a layout lists",
    st.tuples(
        st.sampled_from(["index.json", "manifest.json"]),
        as_json_bytes(
            [{"manifests": [_INDEX]}, [{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}]]
        ),
    ),
)
def listings(given: tuple[str, bytes]) -> None:
    name, body = given
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "layout" / "blobs").mkdir(parents=True)
        (Path(place) / "layout" / name).write_bytes(body)
        (Path(place) / "layout" / "c").write_bytes(CONFIG)
        in_order_on_disk(Path(place) / "layout", Path(place) / "cache")


def in_order_on_disk(path: Path, cache: Path) -> None:
    """Every listed image can be looked up by its name, and has a manifest or an error of ocifs."""
    with contextlib.suppress(OcifsError):
        source, shelf = LayoutSource(str(path), LocalTransport.ANY), DerivedFiles(Disk(cache))
        contents = SourceOpener(
            source, shelf, replace(Limits(), layer_bytes=1 << 20), Progress()
        ).open()
        names = NameTable(contents.list_manifests())
        assert {names.find(name).identity for name in names.shown} == {
            each.identity for each in names.entries
        }
        for each in names.entries:
            assert each.descriptor is not None or each.problem is not None
            if each.descriptor is not None:
                with contextlib.suppress(OcifsError):
                    place = contents.find(each.descriptor.digest)
                    assert len(place.read(0, place.size)) == place.size


@target("compressed streams", damaged_bytes([pack(TAR) for pack in PACKED[1:]]))
def streams(data: bytes) -> None:
    judged(data)


@target(
    "tables of contents, eStargz",
    st.one_of(as_json_bytes([{"version": 1, "entries": usual(zipped).entries}])),
)
def stargz(toc: bytes) -> None:
    made = starred(usual(zipped), toc)
    in_order(read(made), made)


@target(
    "tables of contents, zstd:chunked",
    as_json_bytes([{"version": 1, "entries": usual(zstd).entries}]),
)
def zstd_chunked(toc: bytes) -> None:
    made = chunked(usual(zstd), toc)
    in_order(read(made), made)


_STARRED, _CHUNKED = starred(usual(zipped)), chunked(usual(zstd))


@target("layers with a table, damaged", damaged_bytes([_STARRED.blob, _CHUNKED.blob]))
def damaged_tables(blob: bytes) -> None:
    for made in (_STARRED, _CHUNKED):
        if len(blob) > 64:
            changed = type(made)(blob, made.annotations, made.toc)
            in_order(read(changed), changed)


# Files that users write.

TOML = [
    "[[",
    "]]",
    "[",
    "]",
    "=",
    '"',
    "'",
    "\n",
    "true",
    "[registry]",
    '"*.example.com"',
    "1979-05-27T07:32:00Z",
    "inf",
    "{a=1}",
]


@target(
    "registries.conf",
    damaged_text(
        [
            MAN_PAGE,
            'unqualified-search-registries = ["docker.io"]\n[aliases]\n"a" = "b.example/a"\n',
        ],
        TOML,
    ),
)
def registries(text: str) -> None:
    try:
        found = registries_conf.parse(text, "conf")
        for host, path in (
            ("docker.io", "library/a"),
            ("example.com", "foo/x"),
            ("localhost:5000", ""),
        ):
            with contextlib.suppress(OcifsError):
                registries_conf.routes_for(found, host, path)
    except UsageError as error:
        assert str(error).startswith("conf")


HOSTS_TOML = (
    'server = "https://registry-1.docker.io"\n'
    '[host."https://mirror.example.com/v2/x"]\ncapabilities = ["pull", "resolve"]\n'
    'ca = ["a.crt"]\nclient = [["a.cert", "a.key"]]\n'
    'skip_verify = true\noverride_path = true\ndial_timeout = "5s"\n'
    '[host."https://mirror.example.com/v2/x".header]\nx-a = ["1", "2"]\n'
)


@target(
    "hosts.toml",
    damaged_text([HOSTS_TOML], [*TOML, '[host."http://[::1]:5000"]', "capabilities", "header"]),
)
def hosts(text: str) -> None:
    place = Path("/etc/containerd/certs.d/docker.io/hosts.toml")
    try:
        assert hosts_toml.parse(text, place, "docker.io")
    except UsageError as error:
        assert str(error).startswith(str(place))


CONFIG_TOML = (
    'timeout = 7\ntag-ttl = 8.5\nrepo = ["a"]\nverify = "full"\n'
    '[mounts.work]\nsource = "r.example.com"\nmountpoint = "/mnt/w"\noffline = true\n'
)


@target(
    "config.toml",
    damaged_bytes(
        [CONFIG_TOML.encode()],
        [word.encode() for word in (*TOML, "sources = ", "any = true", "[mounts.x]")],
    ),
)
def configuration(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "config.toml")
        path.write_bytes(text)
        with patch.dict(os.environ, {"OCIFS_CONFIG": str(path)}):
            try:
                ocifs_config.load(lambda: {each.name: each for each in mount.params if each.name})
            except UsageError as error:
                assert str(error).startswith(str(path))


AUTH = {
    "auths": {
        "docker.io": {"auth": "bWU6cHc="},
        "https://index.docker.io/v1/": {"identitytoken": "x"},
        "r.example/a": {"registrytoken": "t"},
    },
    "credHelpers": {"ecr.example": "ecr-login"},
    "credsStore": "desktop",
}


@target("auth.json", as_json_bytes([AUTH]))
def credentials(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "auth.json")
        path.write_bytes(body)
        source = FileSource(path, HelperRunner(1.0))
        for host in ("docker.io", "r.example", "ecr.example"):
            for candidate in source.candidates(host, "a/b"):
                assert isinstance(candidate, Credential | CredentialHelper)


# Files of the cache.

_INDEX = LayerIndex(tuple(members(TAR)), Digest.of(TAR), len(TAR), "none")
_TREE = merge(
    [layer(file("a/b"), hardlink("d", "a/b"), directory("e"), symlink("l", "a"))], Limits()
)


@target("kept indices and trees", damaged_bytes([encode(_INDEX), encode_tree(_TREE)]))
def kept(data: bytes) -> None:
    found, tree = decode(data), decode_tree(data, _TREE.layers)
    assert found is None or found == _INDEX
    assert tree is None or data == encode_tree(_TREE)


_CONTENT = random.Random(5).randbytes(300 * KIB)


def _partly_kept() -> tuple[bytes, bytes]:
    """The block map and the content of a partly cached blob."""

    async def part(place: Path) -> None:
        source = MemorySource()
        blob = source.put(_CONTENT)
        async with trio.open_nursery() as nursery:
            blobs = CachedBlobs(
                source, Disk(place), nursery, Settings(cache=CacheSettings(directory=place))
            )
            await blobs.read_blob(blob, 70 * KIB, 10)
            nursery.cancel_scope.cancel()

    with tempfile.TemporaryDirectory() as place:
        trio.run(part, Path(place))
        disk = Disk(Path(place))
        digest = Digest.of(_CONTENT)
        return disk.partial_map(digest).read_bytes(), disk.partial(digest).read_bytes()


_MAP, _PART = _partly_kept()


@target(
    "block maps and parts of blobs",
    st.tuples(damaged_bytes([_MAP]), damaged_bytes([_PART, _CONTENT]), st.integers(0, 300 * KIB)),
)
def blocks(given: tuple[bytes, bytes, int]) -> None:
    """Reads return the right content, with any damage on the disk."""
    there, part, start = given

    async def look(place: Path) -> None:
        disk, source = Disk(place), MemorySource()
        blob = source.put(_CONTENT)
        for path, data in (
            (disk.partial_map(blob.digest), there),
            (disk.partial(blob.digest), part),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        async with trio.open_nursery() as nursery:
            blobs = CachedBlobs(
                source, disk, nursery, Settings(cache=CacheSettings(directory=place))
            )
            assert (
                await blobs.read_blob(blob, start, 80 * KIB) == _CONTENT[start : start + 80 * KIB]
            )
            assert await blobs.read_blob(blob, 0, len(_CONTENT)) == _CONTENT
            nursery.cancel_scope.cancel()

    with tempfile.TemporaryDirectory() as place:
        trio.run(look, Path(place))


_KEYS = {
    "tag a/b:v1": [mediatype.OCI_MANIFEST, _DIGEST, 7],
    "tags a/b": ["v1"],
    f"manifest a/b@{_DIGEST}": mediatype.OCI_MANIFEST,
    "catalog": ["a/b"],
}


@target(
    "kept names and pins",
    as_json_bytes(
        [
            *({"host": "host", "key": key, "value": value} for key, value in _KEYS.items()),
            {"what": "a", "digests": [_DIGEST], "names": ["x/y.json"]},
        ]
    ),
)
def names(body: bytes) -> None:
    """A cached list of names has the shape of its kind, or is not used."""

    async def ask(place: Path) -> None:
        disk = Disk(place)
        paths = [disk.name("host", Digest.of(key.encode())) for key in _KEYS]
        for path in [*paths, place / "pins" / f"{'0' * 64}.json"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        assert all(isinstance(pin.what, str) for pin in pins(disk))
        async with trio.open_nursery() as nursery:
            chosen = Settings(cache=CacheSettings(directory=place, offline=True))
            catalog = CachedCatalog(
                MemoryRegistry(), RegistryIdentity("host"), disk, nursery, chosen
            )
            with contextlib.suppress(OcifsError):
                assert (await catalog.resolve("a/b", "v1")).size is not None
            for asked in (lambda: catalog.tags("a/b"), catalog.repositories):
                with contextlib.suppress(OcifsError):
                    assert all(isinstance(name, str) for name in await asked())
            with contextlib.suppress(OcifsError):
                await catalog.manifest("a/b", Digest.parse(_DIGEST))
            nursery.cancel_scope.cancel()

    with tempfile.TemporaryDirectory() as place:
        trio.run(ask, Path(place))
