"""What to try where a name leads to nothing: names like it, or those that there are.

Rules that hold here: it is asked for only after a failure, and never fails itself; it takes seconds
at the most.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import trio

from ocifs.cli.errors import LOOKED_AT, nearest
from ocifs.errors import OcifsError
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import Reference, RegistrySource, Source
from ocifs.tree.node import Directory
from ocifs.tree.walk import walk

PATIENCE = 3.0  # seconds


def around(source: Source) -> tuple[Source, str] | None:
    """The source that has another in it, and the path of that in it; None for one that nothing is
    around.
    """
    if isinstance(source, Reference) and not source.digest:
        return RegistrySource(source.host), f"{source.repository}:{source.tag}"
    if isinstance(source, RegistrySource) and source.path:
        return RegistrySource(source.host), source.path
    if isinstance(source, LayoutSource) and source.ref:
        return source.whole, f"_tags/{source.ref}"
    return None


async def likely(root: Directory, path: str) -> str:
    """Names like the first one of a path that is not there, or the few that are; empty where there
    is nothing to say.
    """
    names: list[str] = []
    wanted = ""
    with trio.move_on_after(PATIENCE):
        try:
            wanted, names = await _beside(root, path.strip("/").split("/"))
        except OcifsError:
            return ""
    return nearest(wanted, names)


async def _beside(root: Directory, parts: Sequence[str]) -> tuple[str, list[str]]:
    """The first name of a path that is not there, and the names that are there in its place."""
    for number, part in enumerate(parts):
        above = "/".join(parts[:number])
        try:
            if isinstance(
                await walk(root, f"{above}/{part}".encode(errors="surrogateescape")), Directory
            ):
                continue
        except OcifsError:
            repository, colon, tag = part.partition(":")
            if colon:
                names = await _names(root, f"{above}/{repository}/_tags")
                return (tag, names) if names else (repository, await _names(root, above))
            if part != "_tags" and parts[number - 1 : number] == ["_manifests"]:
                return part, await _names(root, f"{above}/../_tags")
            return await _tag_or_name(root, above, part)
        break
    return "", []


async def _tag_or_name(root: Directory, above: str, name: str) -> tuple[str, list[str]]:
    """A name that is not there, and those that are; in a repository that may be a tag, written as
    in a path.
    """
    names = await _names(root, above)
    tags = await _names(root, f"{above}/_tags") if "_tags" in names else []
    if not difflib.get_close_matches(name, tags, 1):
        return name, names
    before = f"{above}:" if above else "_tags/"
    return before + name, [before + tag for tag in tags]


async def _names(root: Directory, path: str) -> list[str]:
    try:
        found = await walk(root, path.encode(errors="surrogateescape"))
        entries = await found.entries() if isinstance(found, Directory) else ()
    except OcifsError:
        return []
    return [entry.name.decode(errors="replace") for entry in entries[:LOOKED_AT]]
