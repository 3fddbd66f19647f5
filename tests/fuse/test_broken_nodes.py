"""A real mount whose nodes raise: the caller gets an errno, the mount lives."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "mnt"
    where.mkdir()
    command = [sys.executable, "-m", "tests.fuse.broken_mount", str(where)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield where
        assert process.poll() is None, "the mount did not live"
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
        subprocess.run(
            ["fusermount3", "-u", "-z", "-q", str(where)], check=False, capture_output=True
        )


def test_what_nobody_thought_of_is_eio_counted_and_noted_and_the_mount_lives(broken: Path) -> None:
    uses: list[tuple[Callable[[], object], int]] = [
        ((broken / "bug").read_bytes, errno.EIO),
        ((broken / "group").read_bytes, errno.EIO),
        ((broken / "buggy" / "x").stat, errno.EIO),
        (lambda: os.listdir(broken / "buggy"), errno.EIO),
        ((broken / "gone" / "x").stat, errno.EHOSTUNREACH),
        (lambda: os.listdir(broken / "gone"), errno.EHOSTUNREACH),
        ((broken / "wrong").read_bytes, errno.EIO),
        ((broken / "absent").stat, errno.ENOENT),
        ((broken / "good" / "x").stat, errno.ENOTDIR),
        (lambda: (broken / "good").write_bytes(b""), errno.EROFS),
        ((broken / "new").mkdir, errno.EROFS),
    ]
    for use, number in uses:
        with pytest.raises(OSError) as caught:
            use()
        assert caught.value.errno == number
        assert (broken / "good").read_bytes() == b"good\n"
    stats = json.loads((broken / "journal").read_bytes())
    assert stats["unexpected"] >= 4
    assert stats["errors"]["EIO"] >= 5
    assert "unexpected RuntimeError: nobody thought of this" in stats["last"]
    assert "no route (is the cable in?)" in stats["last"]
    assert "absent" not in stats["last"]
