"""getdents across changes: a directory whose names change while somebody is in the middle of
listing it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ocifs.oci import mediatype
from tests.mount.test_registry_mount import push_files
from tests.posix.table import LIBC, NAME_IN_DIRENT, open_stream, stream_names
from tests.support.mount import mounted
from tests.support.registry import Registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

MANY = 150  # tags: some pages of 4 KiB, each a question to the mount


def names(stream: int) -> list[str]:
    return [name.decode() for _, name in stream_names(stream) if name not in (b".", b"..")]


def test_a_listing_that_was_begun_is_that_of_its_beginning_and_the_next_one_is_new(
    registry: Registry, tmp_path: Path
) -> None:
    gone = push_files(registry, "turn/app", "gone", b"goes")
    stays = push_files(registry, "turn/app", "v000", b"stays")
    url = f"{registry.url}/v2/turn/app/manifests"
    with httpx.Client(trust_env=False) as client:
        body = (
            client.get(f"{url}/{stays}", headers={"accept": mediatype.OCI_MANIFEST})
            .raise_for_status()
            .content
        )

        def tag(name: str) -> None:
            client.put(
                f"{url}/{name}", content=body, headers={"content-type": mediatype.OCI_MANIFEST}
            ).raise_for_status()

        def change() -> None:
            tag("new")
            client.delete(f"{url}/{gone}").raise_for_status()

        before = {"gone", *(f"v{number:03}" for number in range(MANY))}
        for name in before - {"gone"}:
            tag(name)
        with mounted(
            registry.host, tmp_path / "mnt", tmp_path / "cache", ["--tag-ttl", "0"]
        ) as mount:
            listed_across_changes(mount.path / "turn/app/_tags", before, change)


def listed_across_changes(place: Path, before: set[str], change: Callable[[], object]) -> None:
    """List a directory whose names are `before`, until "gone" goes and "new" comes."""
    after = {*before, "new"} - {"gone"}
    begun = open_stream(str(place))
    first = [
        ctypes.string_at(LIBC.readdir(begun) + NAME_IN_DIRENT).decode() for _ in range(3)
    ]  # a page is here, and no other
    assert first[:2] == [".", ".."]
    change()
    other = open_stream(str(place))
    assert sorted(names(other)) == sorted(after)
    LIBC.closedir(other)
    assert sorted([*first[2:], *names(begun)]) == sorted(before)
    LIBC.rewinddir(begun)
    assert sorted(names(begun)) == sorted(after)
    LIBC.closedir(begun)
