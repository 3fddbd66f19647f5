"""Images of a few small files, in a registry and in layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping

from ocifs.oci import mediatype
from tests.support.push import push_blob, push_manifest

CREATED = "2024-01-02T03:04:05Z"


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    """A tar of files, with their parent directories. A value that is a `str` is a link's target."""
    written = io.BytesIO()
    directories: set[str] = set()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            parts = name.split("/")
            for count in range(1, len(parts)):
                directory = tarfile.TarInfo("/".join(parts[:count]))
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                if directory.name not in directories:
                    tar.addfile(directory)
                directories.add(directory.name)
            member = tarfile.TarInfo(name)
            member.mtime = 1_700_000_000
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


def push_image(
    url: str,
    reference: str,
    files: Mapping[str, bytes | str],
    created: str = CREATED,
    architecture: str = "amd64",
) -> str:
    """Push an image with one layer of these files, as REPOSITORY[:TAG]. Returns its digest."""
    repository, _, tag = reference.partition(":")
    tar = tar_of(files)
    config = {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }

    def blob(content: bytes, media_type: str) -> dict[str, object]:
        digest = push_blob(url, repository, content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": blob(json.dumps(config).encode(), mediatype.OCI_CONFIG),
        "layers": [blob(gzip.compress(tar, 6, mtime=0), mediatype.OCI_LAYER_GZIP)],
    }
    return push_manifest(url, repository, manifest, tag)
