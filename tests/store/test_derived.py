"""Derived data appears completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocifs.errors import CacheFull, Malformed
from ocifs.oci.digest import Digest
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk

KEY = Digest.of(b"key")


def files(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.is_file()]


def test_what_is_put_is_found_and_nothing_else_lies_about(tmp_path: Path) -> None:
    derived = DerivedFiles(Disk(tmp_path))
    assert derived.find("thing.1", KEY) is None
    with derived.put("thing.1", KEY) as file:
        file.write(b"content")
        assert derived.find("thing.1", KEY) is None
    found = derived.find("thing.1", KEY)
    assert found is not None
    with found:
        assert found.read() == b"content"
    assert files(tmp_path) == [KEY.encoded]
    assert derived.find("thing.2", KEY) is None


def test_what_fails_leaves_nothing_and_the_earlier_one_in_place(tmp_path: Path) -> None:
    derived = DerivedFiles(Disk(tmp_path))
    with derived.put("thing.1", KEY) as file:
        file.write(b"first")
    with pytest.raises(Malformed), derived.put("thing.1", KEY) as file:
        file.write(b"second")
        raise Malformed("half way")
    assert derived.path("thing.1", KEY).read_bytes() == b"first"
    assert files(tmp_path) == [KEY.encoded]


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    derived = DerivedFiles(Disk(tmp_path))
    with (
        pytest.raises(CacheFull),
        derived.put("thing.1", KEY),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert files(tmp_path) == []
