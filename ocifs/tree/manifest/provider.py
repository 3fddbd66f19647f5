"""The interface of functions that add names to a manifest's directory; see `contents.py`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeAlias

from ocifs.filenames import to_bytes
from ocifs.tree.base import TextFile
from ocifs.tree.manifest.load import LoadedManifest, ManifestLocation
from ocifs.tree.node import Node


class Parent(NamedTuple):
    """The directory that nodes are created for: its manifest's location, the manifest, its key."""

    location: ManifestLocation
    loaded: LoadedManifest
    key: Hashable


NamedNodes: TypeAlias = Iterable[tuple[bytes, Node]]
NodeProvider: TypeAlias = Callable[[Parent], NamedNodes]


def text_file(loaded: LoadedManifest, name: str, text: str) -> tuple[bytes, Node]:
    """A small file with a fact of a manifest, and its name."""
    key = ("fact", str(loaded.manifest.digest), name, text)
    return name.encode(), TextFile(key, to_bytes(text), loaded.mtime_ns)
