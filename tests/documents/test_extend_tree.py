"""The steps of docs/how-to/extend.md for a file in the tree, followed with the code on the page."""

from __future__ import annotations

import json

import pytest

from ocifs.errors import NotFound
from ocifs.oci import mediatype
from ocifs.tree.manifest import directory
from ocifs.tree.manifest.contents import CONTENTS
from ocifs.tree.node import Directory
from ocifs.tree.walk import walk
from tests.documents.test_extend import module_on_page
from tests.tree.memory import MemoryRegistry
from tests.tree.test_semantics import read, root_of

STEPS = [{"created_by": "COPY a"}, "not an object", {"created_by": 1}, {"created_by": "RUN b"}]


def push(registry: MemoryRegistry, history: object) -> None:
    """An image as app:v1 with this history in its config."""
    content = {"os": "linux", "architecture": "amd64", "history": history}
    config = registry.put_blob(json.dumps(content).encode(), mediatype.OCI_CONFIG)
    registry.put_manifest("app", "v1", {"config": config, "layers": []})


@pytest.fixture(autouse=True)
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the function on the page to the list."""
    history = module_on_page("Add a file to the tree").history
    monkeypatch.setattr(directory, "CONTENTS", (*CONTENTS, history))


async def test_the_file_of_the_example_is_listed_and_read() -> None:
    registry = MemoryRegistry()
    push(registry, STEPS)
    root = root_of(registry)
    image = await walk(root, b"app:v1")
    assert isinstance(image, Directory)
    assert [entry.name for entry in await image.entries()][-1] == b"history"
    assert await read(root, b"app:v1/history") == b"COPY a\nRUN b\n"


@pytest.mark.parametrize("history", ["text", {"a": 1}, None])
async def test_a_manifest_without_a_history_does_not_have_the_file(history: object) -> None:
    registry = MemoryRegistry()
    push(registry, history)
    with pytest.raises(NotFound):
        await walk(root_of(registry), b"app:v1/history")
    assert await read(root_of(registry), b"app:v1/kind") == b"image\n"
