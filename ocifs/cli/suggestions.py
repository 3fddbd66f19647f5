"""Hints for names that do not exist: similar names, or the names that do exist.

- Called only after a failure, in the event loop, and never fails itself.
- Takes at most TIME_LIMIT seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from ocifs.cli.errors import MAX_COMPARED, close_names, nearest
from ocifs.errors import NotADirectory, NotFound, OcifsError
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


@dataclass(frozen=True, slots=True)
class _Missing:
    """The first name of a path that does not exist, and the names that exist beside it.

    `parent` and `rest` are the parts of the path before and after it. They are empty if the names
    are complete, as tags are.
    """

    name: str
    names: Sequence[str]
    parent: str = ""
    rest: str = ""


async def suggest(root: Directory, path: str) -> str:
    """A hint for a path that does not exist, or an empty text.

    Paths that are similar and exist, else similar names, else the first existing names.
    """
    missing = _Missing("", ())
    paths: list[str] = []
    with trio.move_on_after(TIME_LIMIT):
        try:
            missing = await _first_missing(root, path.strip("/").split("/"))
            inner = f"rootfs/{missing.name}/{missing.rest}".rstrip("/")
            if "rootfs" in missing.names and await _exists(root, f"{missing.parent}/{inner}"):
                return f"did you mean {_joined(missing.parent, inner)}?"
            paths = await _similar_paths(root, missing)
        except OcifsError:
            return ""
    if paths:
        return f"did you mean {' or '.join(paths)}?"
    if "rootfs" in missing.names and not close_names(missing.name, missing.names):
        # It could not be looked up in time.
        inner = _joined(missing.parent, f"rootfs/{missing.name}", missing.rest)
        return f"the files of the image are below rootfs/: {inner}"
    return nearest(missing.name, missing.names)


async def _similar_paths(root: Directory, missing: _Missing) -> list[str]:
    """The paths with a similar name in place of the missing one, if they exist."""
    if not missing.parent and not missing.rest:
        return []
    similar = [
        _joined(missing.parent, name, missing.rest)
        for name in close_names(missing.name, missing.names)
    ]
    return [path for path in similar if await _exists(root, path)]


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


async def _exists(root: Directory, path: str) -> bool:
    """Whether a path exists. Raises OcifsError if that cannot be determined."""
    try:
        await walk(root, path.encode(errors="surrogateescape"))
    except (NotFound, NotADirectory):
        return False
    return True


async def _first_missing(root: Directory, parts: Sequence[str]) -> _Missing:
    for number, part in enumerate(parts):
        parent, rest = "/".join(parts[:number]), "/".join(parts[number + 1 :])
        try:
            path = f"{parent}/{part}".encode(errors="surrogateescape")
            if isinstance(await walk(root, path), Directory):
                continue
        except OcifsError:
            repository, colon, tag = part.partition(":")
            if colon:
                tags = await _names(root, f"{parent}/{repository}/_tags")
                if tags:
                    return _Missing(tag, tags)
                suffix = _joined(f":{tag}", rest)
                names = [name + suffix for name in await _names(root, parent)]
                return _Missing(repository + suffix, names, parent)
            if part != "_tags" and parts[number - 1 : number] == ["_manifests"]:
                return _Missing(part, await _names(root, f"{parent}/../_tags"))
            return await _tag_or_name(root, parent, part, rest)
        break
    return _Missing("", ())


async def _tag_or_name(root: Directory, parent: str, name: str, rest: str) -> _Missing:
    """A missing name, and the names beside it. In a repository the name may be meant as a tag."""
    names = await _names(root, parent)
    tags = await _names(root, f"{parent}/_tags") if "_tags" in names else []
    if not close_names(name, tags):
        return _Missing(name, names, parent, rest)
    prefix = f"{parent}:" if parent else "_tags/"
    return _Missing(prefix + name, [prefix + tag for tag in tags])


async def _names(root: Directory, path: str) -> list[str]:
    try:
        node = await walk(root, path.encode(errors="surrogateescape"))
        entries = await node.entries() if isinstance(node, Directory) else ()
    except OcifsError:
        return []
    return [entry.name.decode(errors="replace") for entry in entries[:MAX_COMPARED]]
