"""The catalog is a hint: what a tree shows and enters with a catalog that is missing, failing, cut
short or long.
"""

from __future__ import annotations

import pytest

from ocifs.errors import CatalogFailed, CatalogUnavailable, Malformed, NotFound, OcifsError
from ocifs.tree.control import MountRoot
from ocifs.tree.node import Directory, partial_entries
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.walk import walk
from tests.tree.memory import MemoryRegistry
from tests.tree.test_semantics import context_of, image, names, read, root_of


class Long(MemoryRegistry):
    """A registry whose catalog has several pages."""

    async def brief_list(self) -> tuple[str, ...] | None:
        return None


class Failing(MemoryRegistry):
    """A registry that raises an error for its catalog, or for its tags."""

    error: OcifsError | None = None
    tags_error: OcifsError | None = None

    async def repositories(self) -> tuple[str, ...]:
        if self.error is not None:
            raise self.error
        return await super().repositories()

    async def tags(self, repository: str) -> tuple[str, ...]:
        if self.tags_error is not None:
            raise self.tags_error
        return await super().tags(repository)


def filled(registry: MemoryRegistry) -> MemoryRegistry:
    registry.put_manifest("team/app", "v1", image(registry, "a"))
    registry.put_manifest("team/other", "v1", image(registry, "b"))
    registry.asked.clear()
    return registry


def listing(error: OcifsError, *entries: str) -> OcifsError:
    error.listed = entries
    return error


async def shown(root: Directory, path: bytes, error: type[OcifsError]) -> list[bytes]:
    """The entries that a listing has before it ends with an error."""
    node = await walk(root, path)
    assert isinstance(node, Directory)
    with pytest.raises(error) as caught:
        await node.entries()
    return [entry.name for entry in partial_entries(caught.value)]


async def test_a_lookup_never_asks_for_a_long_catalog() -> None:
    registry = filled(Long())
    root = root_of(registry)
    assert await read(root, b"team/app:v1/kind") == b"image\n"
    await walk(root, b"team/app/_tags/v1")
    assert "catalog" not in registry.asked
    assert not any(question.startswith("tags") for question in registry.asked)


async def test_a_name_that_was_entered_and_is_not_there_is_absent_when_it_is_listed_or_used() -> (
    None
):
    root = root_of(filled(Long()))
    for path in (b"team/nobody", b"nobody"):
        with pytest.raises(NotFound):
            await names(root, path)
        with pytest.raises(NotFound):
            await names(root, path + b"/_tags")


async def test_a_long_catalog_is_listed_in_full() -> None:
    root = root_of(filled(Long()))
    assert await names(root, b"") == [b"team"]
    assert await names(root, b"team") == [b"app", b"other"]


@pytest.mark.parametrize("kind", [CatalogUnavailable, CatalogFailed])
async def test_names_are_entered_whatever_becomes_of_the_catalog(kind: type[OcifsError]) -> None:
    registry = Failing()
    filled(registry)
    registry.error = kind("none")
    root = root_of(registry)
    assert await names(root, b"team/app/_tags") == [b"v1"]
    assert await names(root, b"team/app") == [b"_tags", b"_manifests", b"_blobs"]
    assert await names(root, b"") == [b"team"]  # since it was visited


async def test_a_refused_catalog_lists_nothing_and_a_failing_one_is_an_error() -> None:
    registry = Failing()
    registry.error = CatalogUnavailable("refused")
    assert await names(root_of(registry), b"") == []
    registry.error = CatalogFailed("500")
    assert await shown(root_of(registry), b"", CatalogFailed) == []


async def test_a_catalog_that_is_cut_short_is_shown_and_then_the_error() -> None:
    registry = Failing()
    registry.error = listing(Malformed("page 2 is missing"), "team/app", "zoo")
    root = MountRoot(root_of(registry), {})
    assert await shown(root, b"", Malformed) == [b".ocifs", b"team", b"zoo"]
    assert await shown(root, b"team", Malformed) == [b"app"]


async def test_tags_that_are_cut_short_are_shown_and_then_the_error() -> None:
    registry = Failing()
    filled(registry)
    registry.tags_error = listing(Malformed("page 2 is missing"), "v1", "v2")
    root = root_of(registry)
    assert await shown(root, b"team/app/_tags", Malformed) == [b"v1", b"v2"]
    assert registry.tags_error.listed == ("v1", "v2")  # others see the same error


async def test_many_names_are_listed() -> None:
    registry = MemoryRegistry()
    registry.known = {f"n{number:05d}/app": {} for number in range(5000)}
    root = RepositoryDirectory(context_of(registry), "", "root")
    assert len(await names(root, b"")) == 5000
    assert await names(root, b"n00077") == [b"app"]
