"""Small tars for tests that do not care what a tar can hold."""

from __future__ import annotations

import io
import tarfile


def a_tar(**files: bytes) -> bytes:
    """A plain tar of regular files at its top."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
