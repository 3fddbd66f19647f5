"""Records of mounts that the kernel serves, and the lines of the mount table that they identify."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ocifs.fuse.kernel import records
from ocifs.fuse.kernel.records import Record
from ocifs.fuse.mounts import Mount, parse_mountinfo

LINE = "46 27 0:42 / /mnt/x ro,nosuid - erofs reg.example.com/app:v1 ro,user_xattr"


def record(place: Path, **changes: object) -> Record:
    """The record of LINE, with changes."""
    made = Record(
        place, "/mnt/x", "reg.example.com/app:v1", "0:42", "erofs", os.getpid(), records.namespace()
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def written(directory: Path, **changes: object) -> Record:
    place = records.create_place(directory)
    made = record(place, **changes)
    records.write(made)
    return made


@pytest.mark.parametrize(
    ("changes", "is_ours"),
    [
        ({}, True),
        ({"device": "0:43"}, False),
        ({"kind": "overlay"}, False),
        ({"source": "another"}, False),
        # While a mount is made, its device is unknown.
        ({"device": ""}, True),
        ({"device": "", "mountpoint": "/mnt/y"}, False),
        ({"mountpoint": "/mnt/y"}, True),  # a bind mount, or a mount that was moved
    ],
)
def test_a_line_is_ours_if_device_type_and_source_are_recorded(
    tmp_path: Path, changes: dict[str, object], is_ours: bool
) -> None:
    found = parse_mountinfo(LINE, [record(tmp_path, **changes)])
    assert found == ([Mount(Path("/mnt/x"), "reg.example.com/app:v1")] if is_ours else [])


def test_without_a_record_no_other_mount_is_ours() -> None:
    assert parse_mountinfo(LINE) == []


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = written(tmp_path, status={"source": "x", "pid": 7})
    [found] = records.all_records(tmp_path)
    assert found == made and found.status == made.status and found.place == made.place
    assert made.place.stat().st_mode & 0o777 == 0o755
    assert records.private_of(made.place).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x"}', "{" * 1000, "\0"])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    made = written(tmp_path)
    (made.place / "record.json").write_text(content)
    assert list(records.all_records(tmp_path)) == []


def test_records_of_ended_mounts_are_removed_and_others_stay(tmp_path: Path) -> None:
    written(tmp_path)  # its daemon has no socket any more
    written(tmp_path, pid=0)  # it had no daemon
    mounted = written(tmp_path, pid=0)
    elsewhere = written(tmp_path, namespace=1)
    making = written(tmp_path, device="")
    with socket.socket(socket.AF_UNIX) as daemon:
        alive = written(tmp_path)
        daemon.bind(str(alive.control))
        daemon.listen()
        records.sweep([mounted.place], tmp_path)
    left = {found.place for found in records.all_records(tmp_path)}
    assert left == {each.place for each in (mounted, elsewhere, making, alive)}


def test_a_directory_without_a_record_is_removed_when_it_is_old(tmp_path: Path) -> None:
    young, old = records.create_place(tmp_path), records.create_place(tmp_path)
    past = time.time() - 100_000
    os.utime(old, (past, past))
    records.sweep([], tmp_path)
    assert list(tmp_path.iterdir()) == [young]
