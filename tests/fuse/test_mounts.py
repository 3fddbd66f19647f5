"""The mounts of this machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocifs
from ocifs.errors import UsageError
from ocifs.fuse.mounts import (
    Mount,
    clear_dead_mount,
    is_dead,
    mount_table,
    parse_mountinfo,
    read_status,
    unmount,
)

OURS = "100 29 0:50 / /mnt/x ro,nosuid shared:7 master:1 - fuse.ocifs localhost:5000 ro,user_id=0"


def test_only_our_mounts_are_found_in_the_tables_order() -> None:
    table = "\n".join(
        [
            "29 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw",
            OURS,
            "101 29 0:51 / /mnt/y rw - fuse.sshfs host:/ rw",
            OURS.replace("/mnt/x", "/mnt/z").replace("shared:7 master:1 ", ""),
        ]
    )
    assert parse_mountinfo(table) == [
        Mount(Path("/mnt/x"), "localhost:5000"),
        Mount(Path("/mnt/z"), "localhost:5000"),
    ]


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_other_ends_of_lines_in_a_name_end_no_line(end: str) -> None:
    """The kernel escapes a newline only, and any user can mount at a name of their own."""
    assert [
        each.mountpoint for each in parse_mountinfo(OURS.replace("/mnt/x", f"/mnt/{end}x"))
    ] == [Path(f"/mnt/{end}x")]
    assert [len(line.split(" ")) > 5 for line in mount_table()].count(False) == 0


def test_spaces_and_the_like_are_written_as_octal() -> None:
    line = OURS.replace("/mnt/x", r"/mnt/a\040b\011c\012d\134e").replace(
        "localhost:5000", r"oci:my\040dir"
    )
    assert parse_mountinfo(line) == [Mount(Path("/mnt/a b\tc\nd\\e"), "oci:my dir")]


@settings(deadline=None)
@given(
    st.text(max_size=300)
    | st.from_regex(r"(\d+ ){0,4}/ /[a-z\\0-9]* ro - fuse.ocifs( x)?", fullmatch=True)
)
def test_any_table_is_a_list_of_mounts(table: str) -> None:
    assert all(isinstance(mount, Mount) for mount in parse_mountinfo(table))


@pytest.mark.parametrize("name", ["fusermount3", "fusermount"])
def test_a_user_s_mount_is_ended_by_the_helper_under_whichever_name_the_system_has(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(f'#!/bin/sh\necho "$0" "$@" > {tmp_path}/said\n')
    (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    unmount(Path("/mnt/x"), lazy=True)
    assert (tmp_path / "said").read_text() == f"{tmp_path}/{name} -u -z -- /mnt/x\n"


def test_where_there_is_no_helper_unmounting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="cannot unmount /mnt/x"):
        unmount(Path("/mnt/x"))


def test_the_kernel_forgets_names_only_in_one_place() -> None:
    """An invalidation from within a handler, or during an unmount, can lock up.

    `kernel_names.py` avoids both. The pages of a file that is being opened, and that no other
    process has open, wait for nothing (tests/fuse/test_giving.py).
    """
    calls = {
        (path.name, found)
        for path in Path(ocifs.__file__).parent.rglob("*.py")
        for found in re.findall(r"pyfuse3\.((?:invalidate|notify)_\w+)", path.read_text())
    }
    names = {found for name, found in calls if name == "kernel_names.py"}
    assert names == {"invalidate_inode", "invalidate_entry"}
    assert {found for name, found in calls if name != "kernel_names.py"} == {"notify_store"}


def test_a_directory_without_a_mount_is_neither_dead_nor_cleared(tmp_path: Path) -> None:
    assert not is_dead(tmp_path)
    assert not is_dead(tmp_path / "absent")
    assert not clear_dead_mount(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[1]",
        b'{"a":1,"a":2}',
        b"\xff",
        json.dumps({"a": "b" * (1 << 20)}).encode(),
        "fifo",
        "directory",
        "device",
        "loop",
    ],
)
def test_a_status_of_another_user_is_bounded(tmp_path: Path, content: bytes | str) -> None:
    (tmp_path / ".ocifs").mkdir()
    path = tmp_path / ".ocifs" / "status.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "fifo":
        os.mkfifo(path)
    elif content == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if content == "device" else path)
    assert read_status(tmp_path) == {}
    path.rmdir() if content == "directory" else path.unlink()
    path.write_text('{"version": "1"}')
    assert read_status(tmp_path) == {"version": "1"}
