"""Which names are hosts, and what is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocifs.app import open_tree
from ocifs.errors import InvalidReference, LimitExceeded, NotFound
from ocifs.oci.reference import HostsSource, RegistrySource, join_sources, parse_source, seeds_of
from ocifs.settings import CacheSettings, Limits, Settings
from ocifs.tree.base import SymlinkNode
from ocifs.tree.node import Directory
from ocifs.tree.registry.hosts import HostsDirectory
from ocifs.tree.static import StaticDirectory


class Opened:
    """Hosts that were opened."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def open(self, host: str) -> Directory:
        self.hosts.append(host)
        return StaticDirectory(("host", host), ())


@pytest.mark.parametrize(
    "name", [b"ghcr.io", b"localhost", b"localhost:5000", b"host:5000", b"127.0.0.1:5000", b"a.b"]
)
async def test_any_host_is_a_directory(name: bytes) -> None:
    opened = Opened()
    root = HostsDirectory(opened.open, list, None)
    assert (await root.lookup(name)).key == ("host", name.decode())
    assert opened.hosts == [name.decode()]


@pytest.mark.parametrize(
    "name",
    [
        b".git",
        b"Makefile",
        b"team",
        b"_tags",
        b"a b",
        b"\xff.io",
        b"host:",
        b"host:99999",
        b"-a.io",
        b"a..b",
        b"desktop.ini",
    ],
)
async def test_what_is_no_host_is_absent_and_nothing_is_opened(name: bytes) -> None:
    opened = Opened()
    with pytest.raises(NotFound):
        await HostsDirectory(opened.open, list, None).lookup(name)
    assert not opened.hosts


@pytest.mark.parametrize(
    ("name", "target"), [(b"index.docker.io", b"docker.io"), (b"GHCR.io", b"ghcr.io")]
)
async def test_another_spelling_is_a_link(name: bytes, target: bytes) -> None:
    found = await HostsDirectory(Opened().open, list, None).lookup(name)
    assert isinstance(found, SymlinkNode) and found.target == target


async def test_only_hosts_that_were_named_can_be_looked_up_where_not_any_can() -> None:
    root = HostsDirectory(
        Opened().open, lambda: ["b.io", "a.io", "b.io"], frozenset({"a.io", "b.io"})
    )
    assert [entry.name for entry in await root.entries()] == [b"a.io", b"b.io"]
    assert await root.lookup(b"a.io")
    with pytest.raises(NotFound):
        await root.lookup(b"c.io")


def test_sources_are_joined_by_their_hosts() -> None:
    texts = ["ghcr.io/homebrew", "alpine:3.19", "ghcr.io"]
    joined = join_sources([parse_source(text) for text in texts], any_host=False)
    assert isinstance(joined, HostsSource)
    assert joined.hosts == ("ghcr.io", "docker.io")
    assert RegistrySource("docker.io", "library/alpine") in joined.parts
    assert str(joined) == "ghcr.io/homebrew,docker.io/library/alpine,ghcr.io"
    assert str(join_sources([], any_host=True)) == "any"
    one = parse_source("quay.io/a/b:1")
    assert join_sources([one], any_host=False) is one
    for wrong in ([parse_source("oci:x"), one], []):
        with pytest.raises(InvalidReference):
            join_sources(wrong, any_host=False)


def test_seeds_belong_to_their_host() -> None:
    names = ["ghcr.io/homebrew/core/jq", "library/alpine", "alpine"]
    assert seeds_of("ghcr.io", names, alone=False) == ("homebrew/core/jq",)
    assert seeds_of("docker.io", [*names, "docker.io/x/y"], alone=False) == (
        "library/alpine",
        "x/y",
    )
    assert seeds_of("ghcr.io", ["ghcr.io/a/b", "c/d"], alone=True) == ("a/b", "c/d")
    with pytest.raises(InvalidReference):
        seeds_of("ghcr.io", ["A/b"], alone=True)


async def test_a_mount_has_a_bounded_number_of_hosts(tmp_path: Path) -> None:
    settings = Settings(cache=CacheSettings(directory=tmp_path / "cache"), limits=Limits(hosts=2))
    async with open_tree(HostsSource((), any=True), settings) as root:
        for name in (b"a.example", b"b.example", b"a.example"):
            await root.lookup(name)
        with pytest.raises(LimitExceeded, match=r"limits\.hosts"):
            await root.lookup(b"c.example")
        assert await root.entries() == []
