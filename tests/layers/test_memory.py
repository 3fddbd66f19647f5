"""Layers that need much memory, listed by a process with limited address space and CPU time."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from ocifs.oci import mediatype
from tests.layers.tars import entry, tar
from tests.support.image import LAYER, put

MIB = 1 << 20
SPACE = 400 * MIB
"""The address space of the process, mostly libraries and stacks: a small image takes 250 MiB."""
SECONDS = 60  # of the processor


def headers(count: int) -> Iterator[bytes]:
    """A tar of empty files, in pieces."""
    for number in range(count):
        yield tarfile.TarInfo(f"d{number % 1000}/f{number:07}").tobuf(tarfile.USTAR_FORMAT)
    yield bytes(1024)


def squeezed(pieces: Iterator[bytes]) -> bytes:
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1, mtime=0) as file:
        file.writelines(pieces)
    return target.getvalue()


def longest_name(size: int) -> Iterator[bytes]:
    """A GNU long name of a number of bytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    yield info.tobuf(tarfile.GNU_FORMAT)
    for _ in range(size // MIB):
        yield b"n" * MIB


def attributes(count: int) -> Iterator[bytes]:
    """Files that each have an attribute of 60 KiB."""
    value = "v" * 60 * 1024
    for number in range(count):
        info = tarfile.TarInfo(str(number))
        info.pax_headers = {"SCHILY.xattr.user.a": f"{number}{value}"}
        yield info.tobuf(tarfile.PAX_FORMAT)
    yield bytes(1024)


def window_of_two_gibibytes() -> bytes:
    """A zstd frame whose header asks for a window of 2 GiB (RFC 8878, 3.1.1.1.2)."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00"


# What is to come of it: the number of lines that are listed, or a word of the error.
HOSTILE: dict[str, tuple[Callable[[], bytes], int | str]] = {
    "many entries": (lambda: squeezed(headers(50_000)), 1000),
    "zeros": (lambda: gzip.compress(bytes(64 * MIB), 9, mtime=0) * 8, 0),
    "a bomb": (lambda: zstandard.compress(bytes(2048 * MIB)), "limits.layer_ratio"),
    "a window": (window_of_two_gibibytes, "zstd"),
    "a long name": (lambda: squeezed(longest_name(256 * MIB)), "limits.layer_header_bytes"),
    "attributes": (lambda: squeezed(attributes(5000)), "limits.layer_index_bytes"),
    "deep paths": (
        lambda: squeezed(iter([tar(*[entry(f"{number}/" * 5000) for number in range(200)])])),
        "limits.implied_directories",
    ),
}


def layout_of(place: Path, blob: bytes) -> str:
    config = json.dumps(
        {"os": "linux", "architecture": "amd64"}
    ).encode()  # with fewer diff IDs than layers there is a warning
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": put(place, config, mediatype.OCI_CONFIG),
        "layers": [put(place, blob, f"{LAYER}+gzip")],
    }
    listed = put(place, json.dumps(manifest).encode(), mediatype.OCI_MANIFEST)
    listed["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    return f"oci:{place}:v1"


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_listing_takes_no_more_than_it_may_have(name: str, tmp_path: Path) -> None:
    make, expected = HOSTILE[name]
    source = layout_of(tmp_path / "layout", make())
    command = [
        sys.executable,
        "-m",
        "ocifs",
        "ls",
        source,
        "rootfs",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "2",
    }  # each further arena maps 64 MiB that it never touches
    done = subprocess.run(
        command,
        preexec_fn=limited,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if isinstance(expected, int):
        assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, expected, "")
    else:
        assert (done.returncode, done.stdout) == (1, "") and expected in done.stderr, done.stderr
