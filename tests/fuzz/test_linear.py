"""The work of every parser of untrusted input grows linearly with the input.

Python cannot count the work in C (patterns, copies), so the work is CPU time, and only its growth
is compared. An input of 16 times the length may take 64 times as long. A quadratic parser takes 256
times as long, and the smaller inputs reveal it before the larger ones would hang.
"""

from __future__ import annotations

import bz2
import contextlib
import gc
import gzip
import itertools
import json
import lzma
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from ocifs.errors import OcifsError
from ocifs.filenames import mangle, split_path, unique, unmangle
from ocifs.layers import zstd as frames
from ocifs.layers.spans.checkpoints import decode as decode_span
from ocifs.layers.spans.span import Checksum, Span
from ocifs.layers.tar.reader import read_tar
from ocifs.layers.toc import estargz, zstd_chunked
from ocifs.layers.toc.crfs import CrfsDialect, read_table
from ocifs.layers.toc.crfs_entry import parse_time
from ocifs.layers.toc.ztoc import read_ztoc
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.distribution import codings, headers, pages, responses
from ocifs.oci.distribution import error_body as words
from ocifs.oci.distribution.challenge import parse_challenges, read_token
from ocifs.oci.jsontext import load_json
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.manifest import digest_of_manifest, parse_manifest
from ocifs.oci.platform import Platform
from ocifs.oci.reference import is_host, is_repository, is_tag, parse_reference, parse_source
from ocifs.registry.config import hosts_toml, registries_conf
from ocifs.registry.http.addresses import zone_of
from ocifs.registry.http.origins import check_realm, origin_in, redirect_target
from ocifs.settings import Limits
from ocifs.telemetry import redact_secrets
from ocifs.tree.manifest.times import parse_time_ns
from tests.layers.tars import inflate
from tests.layers.test_work import _ztoc

KIB = 1024
SMALL_TEXT, SMALL = 512, 4 * KIB
GROWTH = 64  # for 16 times the length
NOISE = 0.02  # seconds of CPU below which a measurement has no meaning
_PAIRED = 5
LIMITS = Limits(layer_empty_streams=1 << 40, layer_streams=1 << 40)


def spent(parse: Callable[[object], object], value: object) -> float:
    """CPU seconds of this thread without garbage collection.

    The result is the least of three runs. A short run is not repeated.
    """
    runs = []
    gc.disable()
    try:
        for _ in range(3):
            began = time.thread_time()
            with contextlib.suppress(OcifsError):
                parse(value)
            runs.append(time.thread_time() - began)
            if runs[-1] < NOISE:
                break
    finally:
        gc.enable()
    return min(runs)


def grows_faster(
    parse: Callable[[object], object], make: Callable[[int], object], small: int = SMALL
) -> str:
    """A description of the growth if it is faster than linear, else ""."""
    least = max(spent(parse, make(small)), NOISE / 16)
    for factor in (4, 16):
        took = spent(parse, make(factor * small))
        allowed = GROWTH * factor / 16 * least
        if took > max(NOISE, allowed):
            return f"{factor} times the length took {took / least:.0f} times as long"
    return ""


@dataclass(frozen=True)
class Parser:
    """A parser of texts.

    `words` are tokens of its grammar, which are repeated, the first ones also in pairs. `around` is
    the text before and after them.
    """

    parse: Callable[[str], object]
    words: tuple[str, ...]
    around: tuple[tuple[str, str], ...] = (("", ""),)

    def inputs(self) -> Iterator[tuple[str, Callable[[int], str]]]:
        pairs = [a + b for a, b in itertools.permutations(self.words[:_PAIRED], 2)]
        for word, (before, behind) in itertools.product([*self.words, *pairs], self.around):
            yield (
                f"{before}{word}…{behind}",
                lambda n, w=word, a=before, b=behind: a + w * (n // len(w)) + b,
            )  # type: ignore[misc]


def _headers(name: str) -> Callable[[str], dict[str, str]]:
    return lambda text: {name: text}


URL = "https://registry.example/v2/a/tags/list"
REGISTRY = origin_in(URL)
SPACES = (" ", "\t")
DIGEST = "sha256:" + "0" * 64
LINK = ("<", ">", ";", ",", '"', "\\", "rel=", "=", "a", " ", "'")
TEXTS: dict[str, Parser] = {
    "Link": Parser(
        lambda t: headers.parse_links(t), LINK, (("", ""), ("</a>; rel=", ""), ('</a>; x="', "\\"))
    ),
    "Link, next page": Parser(lambda t: responses.next_page(URL, {"link": t[:8192]}), LINK),
    "WWW-Authenticate": Parser(
        lambda t: list(headers.parse_challenge_list(t)),
        (" ", ",", "=", '"', "\\", "a", "Bearer ", "realm=", "@", ";"),
        (("", ""), ("Bearer", "@"), ('Bearer realm="', "")),
    ),
    "challenges": Parser(lambda t: parse_challenges(t[:8192]), (" ", ",", "=", "Bearer ", '"')),
    "Content-Range": Parser(
        headers.parse_content_range,
        ("bytes", " ", "0", "-", "/", "*", ":", "="),
        (("bytes", "@"), ("", "")),
    ),
    "Warning": Parser(
        lambda t: list(headers.parse_warnings(t)),
        ("299 ", '"', "\\", "a", " ", ",", "- "),
        (("299 - ", ""), ("", "")),
    ),
    "Retry-After": Parser(
        lambda t: responses.retry_after({"retry-after": t}, 0),
        ("9", " ", "Mon, ", "Jan ", ":", "0", "-"),
    ),
    "Docker-Content-Digest": Parser(
        lambda t: responses.read_digest({"docker-content-digest": t}), ("a", ":", "+", "0", "=")
    ),
    "Content-Length": Parser(
        lambda t: responses.read_size(200, {"content-length": t}), ("9", " ", "-")
    ),
    "RateLimit": Parser(
        lambda t: responses.rate_limits({"ratelimit-limit": t}), ("9", ";", "w=", " ")
    ),
    "Content-Encoding": Parser(
        lambda t: codings.codings({"content-encoding": t}), ("gzip", ",", " ")
    ),
    "Location": Parser(
        lambda t: redirect_target(REGISTRY, URL, t[:8192]),
        ("../", "/", "?", "#", "a", "%", "[", "@", ":", "."),
    ),
    "realms": Parser(
        lambda t: check_realm(REGISTRY, f"https://{t[:8192]}"),
        ("a", ".", "/", "?", "@", "[", ":", "%41", "-"),
    ),
    "hosts": Parser(zone_of, ("0", ".", "x", ":", "[", "%")),
    "content types": Parser(mediatype.essence, (";", "/", " ", "a", '"')),
    "references": Parser(
        lambda t: (parse_reference(t), parse_source(t)),
        ("a", "/", ":", "@", ".", "-", "_", "__", "0", "[", "]"),
        (("", ""), ("a/", "!"), ("a:", "!")),
    ),
    "repositories, tags and hosts of lists": Parser(
        lambda t: (is_repository(t), is_tag(t), is_host(t)),
        ("a", "-", "_", ".", "/", "a.", "a-", "a__"),
        (("", ""), ("a", "!")),
    ),
    "digests": Parser(
        Digest.parse, ("a", "+", "a.", ":", "0", "="), (("", ""), ("sha256:", "!"), ("a", "!"))
    ),
    "platforms": Parser(
        Platform.parse, ("a", "/", ".", "linux/", "-", ":"), (("", ""), ("linux/", "!"))
    ),
    "names": Parser(
        lambda t: (
            mangle(t.encode()),
            unmangle(t.encode()),
            split_path(t),
            unique([t.encode()] * 3),
        ),
        ("a", "/", "..", "%", "%41", "\0", ".", "é", "%2"),
    ),
    "times": Parser(
        lambda t: (parse_time_ns(t), parse_time(t)),
        ("0", "-", "T", ":", ".", "Z", " ", "2024-01-01T00:00:00"),
    ),
    "log lines": Parser(
        redact_secrets,
        ("bearer ", "a", "://", ":", "@", "?", "&", "=", " ", "."),
        (("", ""), ("://", "")),
    ),
    "words of errors, text": Parser(
        lambda t: words.error_text({"content-type": "text/plain"}, t.encode()),
        ("a", " ", "<", "\n"),
    ),
    "registries.conf": Parser(
        lambda t: registries_conf.parse(t, "conf"),
        ("a=1\n", "[a]\n", "[[registry]]\n", '"', "[", "{", "a.", "#", "\n", " ", "'", "\\", "1"),
        (("", ""), ("a = [", ""), ('a = "', ""), ("a = '''", "")),
    ),
    "hosts.toml": Parser(
        lambda t: hosts_toml.parse(t, Path("/etc/hosts.toml"), "docker.io"),
        ('[host."https://a"]\n', "ca=[", '"', "[", "{", "h", "5", "\n", "ms"),
        (("", ""), ('[host."https://a"]\ndial_timeout = "', '"')),
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_parser_of_texts_is_linear(name: str) -> None:
    parser = TEXTS[name]
    for shown, make in parser.inputs():
        assert not (slow := grows_faster(parser.parse, make, SMALL_TEXT)), f"{shown!r}: {slow}"  # type: ignore[arg-type]


def _json(value: str, before: str = "", behind: str = "") -> Callable[[int], bytes]:
    return lambda n: (before + ",".join([value] * max(1, n // (len(value) + 1))) + behind).encode()


DESCRIPTOR = json.dumps(
    {"mediaType": mediatype.OCI_LAYER, "digest": DIGEST, "size": 1, "annotations": {"a": "b"}}
)
JSON = {
    "lists": _json("[]", "[", "]"),
    "objects": _json('{"a": 1}', "[", "]"),
    "strings": _json('"a"', '{"tags": [', "]}"),
    "names": _json('"a/b"', '{"repositories": [', "]}"),
    "layers": _json(
        DESCRIPTOR, '{"schemaVersion": 2, "config": ' + DESCRIPTOR + ', "layers": [', "]}"
    ),
    "manifests": _json(DESCRIPTOR, '{"schemaVersion": 2, "manifests": [', "]}"),
    "history": _json(
        '{"v1Compatibility": "{}"}', '{"schemaVersion": 1, "fsLayers": [], "history": [', "]}"
    ),
    "layers of schema 1": _json(
        f'{{"blobSum": "{DIGEST}"}}', '{"schemaVersion": 1, "history": [], "fsLayers": [', "]}"
    ),
    "members": lambda n: json.dumps({f"{number}": 1 for number in range(n // 10)}).encode(),
    "annotations": lambda n: json.dumps(
        {"schemaVersion": 2, "layers": [], "annotations": {f"{k}": "x" for k in range(n // 12)}}
    ).encode(),
    "errors": _json('{"code": "A", "message": "b"}', '{"errors": [', "]}"),
    "signatures": _json('{"protected": "e30"}', '{"signatures": [', "]}"),
    "depth": lambda n: b"[" * n,
    "a string without an end": lambda n: b'{"a": "' + b'\\"' * (n // 2),
    "escapes": lambda n: b'"' + b"\\u0041" * (n // 6) + b'"',
    "a number": lambda n: b"9" * n,
    "a fraction": lambda n: b"1." + b"9" * n,
    "spaces": lambda n: b" " * n + b"1",
}


def _all_of_json(body: bytes) -> None:
    digest = Digest.of(body)
    for read in (
        lambda: load_json(body, "it"),
        lambda: pages.read_names(body, "tags"),
        lambda: pages.read_names(body, "repositories"),
        lambda: pages.read_referrers(body, mediatype.OCI_INDEX),
        lambda: read_token(body, "it"),
        lambda: digest_of_manifest(body),
        lambda: classify(parse_manifest(body, digest)),
        lambda: words.error_text({}, body),
        lambda: words.error_codes(body),
    ):
        with contextlib.suppress(OcifsError):
            read()


@pytest.mark.parametrize("name", JSON)
def test_parsers_of_json_are_linear(name: str) -> None:
    assert not grows_faster(_all_of_json, JSON[name])  # type: ignore[arg-type]


def _tar_block(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _about(kind: bytes, data: bytes) -> bytes:
    return (
        _tar_block(kind, len(data))
        + data
        + bytes(-len(data) % 512)
        + _tar_block(b"0", 0)
        + bytes(1024)
    )


def _record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n"
    size = len(body) + len(str(len(body)))
    return f"{size + (len(str(size)) > len(str(len(body))))}{body}".encode()


TARS: dict[str, Callable[[int], bytes]] = {
    "entries": lambda n: _tar_block(b"0", 0) * (n // 512),
    "a long name": lambda n: _about(b"L", b"a/" * (n // 2)),
    "a long link of dots": lambda n: _about(b"K", b"./" * (n // 2)),
    "PAX records": lambda n: _about(b"x", _record("SCHILY.xattr.user.a", "b") * (n // 30)),
    "PAX digits": lambda n: _about(b"x", b"1" * n),
    "PAX records of keys": lambda n: _about(
        b"x", b"".join(_record(f"k{number}", "v") for number in range(n // 10))
    ),
    "PAX, a long value": lambda n: _about(b"x", _record("path", "../" * (n // 3))),
    "PAX, a long number": lambda n: _about(b"x", _record("mtime", "1" * n)),
    "PAX, pieces of a sparse file": lambda n: _about(
        b"x", (_record("GNU.sparse.offset", "0") + _record("GNU.sparse.numbytes", "0")) * (n // 60)
    ),
    "PAX, a map of a sparse file": lambda n: _about(
        b"x", _record("GNU.sparse.map", "0,0," * (n // 4) + "0,0")
    ),
    "PAX, libarchive": lambda n: _about(
        b"x", _record("LIBARCHIVE.xattr." + "%41" * (n // 6), "QQ" * (n // 4))
    ),
    "headers about headers": lambda n: (_tar_block(b"x", 0)) * (n // 512),
    "global headers": lambda n: _tar_block(b"g", 0) * (n // 512),
    "zeros": bytes,
    "garbage": lambda n: b"\x80" * n,
}


@pytest.mark.parametrize("name", TARS)
def test_the_reader_of_tars_is_linear(name: str) -> None:
    def read(data: object) -> None:
        assert isinstance(data, bytes)
        read_tar(iter([data]), LIMITS, lambda member: None)

    assert not grows_faster(read, TARS[name])


STREAMS = {
    "gzip": gzip.compress(b"x", mtime=0),
    "gzip, empty": gzip.compress(b"", mtime=0),
    "zstd": zstandard.compress(b"x"),
    "zstd, empty": zstandard.compress(b""),
    "zstd, skipped": b"\x50\x2a\x4d\x18" + bytes(4),
    "bzip2": bz2.compress(b"x"),
    "xz": lzma.compress(b"x"),
    "gzip and zeros": gzip.compress(b"x", mtime=0) + bytes(20),
}


@pytest.mark.parametrize("name", STREAMS)
def test_decoders_of_streams_are_linear(name: str) -> None:
    """The streams are layers, chunks, tables of contents and bodies of responses."""
    stream = STREAMS[name]

    def span(data: bytes, form: str) -> None:
        decode_span(form, Span(0, 1 << 24, 0, len(data), Checksum.of(data), None), data)

    def read(data: object) -> None:
        assert isinstance(data, bytes)
        form = name.partition(",")[0].partition(" ")[0]
        for decoded in (
            lambda: inflate(data, LIMITS, size=1 << 20),
            lambda: span(data, form) if form in ("gzip", "zstd") else None,
            lambda: frames.first_of(data, 1 << 24, 1 << 20) if form == "zstd" else None,
            lambda: codings.decoded({"content-encoding": "gzip"}, data, 1 << 24, "it"),
        ):
            with contextlib.suppress(OcifsError, frames.ZstdError):
                decoded()

    assert not grows_faster(read, lambda n: stream * (n // len(stream)))


ENTRY = json.dumps(
    {
        "name": "a",
        "type": "reg",
        "size": 1,
        "digest": DIGEST,
        "offset": 10,
        "xattrs": {"user.a": "QQ=="},
    }
)
TABLES: dict[str, Callable[[int], bytes]] = {
    "entries": _json('{"name": "a", "type": "dir"}', '{"version": 1, "entries": [', "]}"),
    "files": _json(ENTRY, '{"version": 1, "entries": [', "]}"),
    "chunks": _json(
        '{"name": "a", "type": "chunk", "chunkSize": 1}',
        '{"version": 1, "entries": [' + ENTRY + ",",
        "]}",
    ),
    "one large entry": lambda n: json.dumps(
        {"version": 1, "entries": [{"name": "a/" * (n // 2), "type": "dir"}]}
    ).encode(),
    "lists in an entry": _json("[]", '{"version": 1, "entries": [{"name": [', "]}]}"),
    "attributes": lambda n: json.dumps(
        {
            "version": 1,
            "entries": [
                {
                    "name": "a",
                    "type": "dir",
                    "xattrs": {f"user.{k}": "QQ==" for k in range(n // 20)},
                }
            ],
        }
    ).encode(),
    "spaces": lambda n: b'{"version": 1, "entries": [' + b" " * n + b"]}",
    "unknown members": lambda n: (
        b"{" + b",".join(b'"%d": 1' % number for number in range(n // 10)) + b"}"
    ),
    "no end": lambda n: b'{"version": 1, "entries": [' + b"{" * n,
    "commas": lambda n: b'{"version": 1, "entries": [' + b"," * n,
}


@pytest.mark.parametrize("name", TABLES)
def test_readers_of_tables_of_contents_are_linear(name: str) -> None:
    def read(data: object) -> None:
        assert isinstance(data, bytes)
        read_table(data, CrfsDialect("gzip", 1 << 40), LIMITS)

    assert not grows_faster(read, TABLES[name])


def test_readers_of_footers_and_annotations_are_linear() -> None:
    for piece in (b"\x1f\x8b\x08\x04", b"STARGZ", b"\0", b"SG", b"0"):
        for read in (
            lambda data: estargz.end_of_content(data, 1 << 40),
            lambda data: estargz.locate_table(data, 1 << 40),
        ):
            assert not grows_faster(read, lambda n, piece=piece: piece * (n // len(piece)))  # type: ignore[misc, arg-type]
    for word in ("0", ":", "1:", "a"):
        annotations = lambda n, word=word: {  # type: ignore[misc]  # noqa: E731
            "io.github.containers.zstd-chunked.manifest-checksum": word * n,
            "io.github.containers.zstd-chunked.manifest-position": word * n,
        }
        assert not grows_faster(zstd_chunked.ZstdChunked().ref, annotations)  # type: ignore[arg-type]


@pytest.mark.parametrize("shared", [True, False])
def test_the_reader_of_ztocs_is_linear(shared: bool) -> None:
    """Linear in the size of the table. Each entry has as many attributes as there are entries."""

    def make(size: int) -> bytes:
        count = max(2, int((size / 100) ** 0.5))
        return (
            _ztoc(count, count, shared=False)
            if not shared
            else _ztoc(size // 100, size // 100, shared=True)
        )

    def read(data: object) -> None:
        assert isinstance(data, bytes)
        read_ztoc(data, 100, LIMITS)

    assert not grows_faster(read, make)


def test_the_measure_sees_a_quadratic_parser() -> None:
    quadratic = re.compile(r"\s*:?\s*@")
    assert grows_faster(quadratic.match, lambda n: " " * n, SMALL_TEXT)  # type: ignore[arg-type]
    assert not grows_faster(str.split, lambda n: " " * n)  # type: ignore[arg-type]
