"""Hints for names that do not exist: similar names, or the names that do exist.

- Called only after a failure, in the event loop, and never fails itself.
- Takes at most TIME_LIMIT seconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import trio

from ocifs.cli.errors import MAX_COMPARED, nearest
from ocifs.errors import OcifsError
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import Reference, RegistrySource, Source
from ocifs.tree.node import Directory
from ocifs.tree.walk import walk

TIME_LIMIT = 3.0


def enclosing(source: Source) -> tuple[Source, str] | None:
    """The source that contains another, and the path of that in it. None if there is none."""
    if isinstance(source, Reference) and not source.digest:
        return RegistrySource(source.host), f"{source.repository}:{source.tag}"
    if isinstance(source, RegistrySource) and source.path:
        return RegistrySource(source.host), source.path
    if isinstance(source, LayoutSource) and source.ref:
        return source.whole, f"_tags/{source.ref}"
    return None


async def suggest(root: Directory, path: str) -> str:
    """A hint for a path that does not exist, or an empty text.

    Names that are similar to its first missing name, else the first existing names.
    """
    names: list[str] = []
    missing = ""
    with trio.move_on_after(TIME_LIMIT):
        try:
            missing, names = await _missing_name(root, path.strip("/").split("/"))
        except OcifsError:
            return ""
    return nearest(missing, names)


async def _missing_name(root: Directory, parts: Sequence[str]) -> tuple[str, list[str]]:
    """The first name of a path that does not exist, and the names that exist beside it."""
    for number, part in enumerate(parts):
        parent = "/".join(parts[:number])
        try:
            path = f"{parent}/{part}".encode(errors="surrogateescape")
            if isinstance(await walk(root, path), Directory):
                continue
        except OcifsError:
            repository, colon, tag = part.partition(":")
            if colon:
                names = await _names(root, f"{parent}/{repository}/_tags")
                return (tag, names) if names else (repository, await _names(root, parent))
            if part != "_tags" and parts[number - 1 : number] == ["_manifests"]:
                return part, await _names(root, f"{parent}/../_tags")
            return await _tag_or_name(root, parent, part)
        break
    return "", []


async def _tag_or_name(root: Directory, parent: str, name: str) -> tuple[str, list[str]]:
    """A missing name, and the names beside it. In a repository the name may be meant as a tag."""
    names = await _names(root, parent)
    tags = await _names(root, f"{parent}/_tags") if "_tags" in names else []
    if not difflib.get_close_matches(name, tags, 1):
        return name, names
    prefix = f"{parent}:" if parent else "_tags/"
    return prefix + name, [prefix + tag for tag in tags]


async def _names(root: Directory, path: str) -> list[str]:
    try:
        node = await walk(root, path.encode(errors="surrogateescape"))
        entries = await node.entries() if isinstance(node, Directory) else ()
    except OcifsError:
        return []
    return [entry.name.decode(errors="replace") for entry in entries[:MAX_COMPARED]]
