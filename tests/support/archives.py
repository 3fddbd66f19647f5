"""Archives of images as tools write them: members in any order, with links, compressed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import zstandard

from tests.support.tars import a_tar

OUTER: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "gz": lambda data: gzip.compress(data, 6, mtime=0),
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}

Members = list[tuple[str, bytes] | tarfile.TarInfo]


def link(name: str, target: str, *, hard: bool = False) -> tarfile.TarInfo:
    """A member that links to another."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, target
    return info


def archive_of(
    members: Iterable[tuple[str, bytes] | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar with these members, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def files_of(directory: Path) -> list[tuple[str, bytes]]:
    """The files below a directory, as members."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(str(path.relative_to(directory)), path.read_bytes()) for path in found]


def config_of(layers: Sequence[bytes]) -> bytes:
    """A config for uncompressed layers."""
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(config).encode()


def image(text: str) -> tuple[bytes, list[bytes]]:
    """A config and its two layers: one with a file `hello` of this text, one with a file `base`."""
    layers = [a_tar(hello=text.encode()), a_tar(base=b"the same in all images")]
    return config_of(layers), layers


def saved(
    images: Sequence[tuple[str, Sequence[str] | None]],
    compress: Callable[[bytes], bytes] = lambda data: data,
) -> Members:
    """The members that `docker save` wrote before Docker 25.

    Each image has names, and a file `hello` with a text.
    """
    return _members([(image(text)[1], tags) for text, tags in images], compress)


def saved_layers(images: Sequence[tuple[str, Sequence[bytes]]]) -> Members:
    """The members for named images with the given layers."""
    return _members([(layers, [name]) for name, layers in images], lambda data: data)


def _members(
    images: Sequence[tuple[Sequence[bytes], Sequence[str] | None]],
    compress: Callable[[bytes], bytes],
) -> Members:
    """A layer of an earlier image is a link, as Docker writes it."""
    members: Members = []
    listed = []
    written: dict[bytes, str] = {}
    for number, (layers, tags) in enumerate(images):
        config = config_of(layers)
        names = []
        for place, layer in enumerate(layers):
            name = f"{hashlib.sha256(f'{number} {place}'.encode()).hexdigest()}/layer.tar"
            if layer in written:
                members.append(link(name, f"../{written[layer]}"))
            else:
                members.append((name, compress(layer)))
                written[layer] = name
            names.append(name)
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        members.append((config_name, config))
        listed.append({"Config": config_name, "RepoTags": tags, "Layers": names})
    return [*members, ("manifest.json", json.dumps(listed).encode())]
