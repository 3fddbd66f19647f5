"""Small tars for tests of other things than tar."""

from __future__ import annotations

import io
import tarfile


def a_tar(**files: bytes) -> bytes:
    """An uncompressed tar of regular files, without directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
