"""List the tags of a repository, with the details of their manifests.

Runs in the event loop of an AsyncTree, at the registry's pace (`pacer.py`).

- The list takes one request. Details take the manifest and the config of each tag, and of an index
  those of the child for the platform.
- Tags are in natural order: `1.9` comes before `1.10`.
- A tag that cannot be read has an error in place of its details, and the list continues.
- A registry that cannot be reached ends the list with its error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from ocifs.api import AsyncTree
from ocifs.concurrency import ungrouped
from ocifs.errors import AccessDenied, LimitExceeded, Malformed, NotFound, OcifsError, UsageError
from ocifs.filenames import mangle, to_bytes, unmangle
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import child_role
from ocifs.oci.local import LayoutSource
from ocifs.oci.manifest import Form, Manifest
from ocifs.oci.platform import first_match
from ocifs.oci.reference import Reference, RegistrySource
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.manifest.load import LoadedManifest, load_manifest
from ocifs.tree.node import Directory
from ocifs.verbs.pacer import AT_A_TIME, Pacer
from ocifs.verbs.paths import Run

_NUMBER = re.compile(r"([0-9]{1,1000})")


@dataclass(frozen=True, slots=True)
class TagDetails:
    """The manifest of a tag.

    `created_ns` is 0 if it is not recorded. `size` is the number of bytes in the config and the
    layers, as they are transferred; for an index, those of the child for the platform.
    """

    kind: str
    created_ns: int
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag with its details, or the error that prevents them."""

    name: str
    details: TagDetails | None = None
    error: OcifsError | None = None


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """A sort key by which the numbers in names are compared as numbers."""
    parts = _NUMBER.split(name)
    # Text and numbers alternate, so values of different types are never compared.
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


async def list_tags(tree: AsyncTree, pacer: Pacer | None = None) -> list[str]:
    """The tags of the tree's source, in natural order.

    Raises UsageError for a source that is not a repository, and NotFound.
    """
    source, run = tree.source, (pacer or Pacer(tree.timing, status=tree.status)).run
    if isinstance(source, Reference):
        whole = f"{source.host}/{source.repository}"
        raise UsageError(f"not a repository: {source}", hint=f"ocifs tags {whole}")
    if isinstance(source, LayoutSource) and source.ref:
        raise UsageError(f"not a repository: {source}", hint=f"ocifs tags {source.whole}")
    if isinstance(source, RegistrySource) and not source.path:
        hint = f"name a repository; `ocifs ls {source.host}` lists them"
        raise UsageError(f"not a repository: {source}", hint=hint)
    directory = await run(partial(tree.root.lookup, b"_tags"))
    assert isinstance(directory, Directory)
    try:
        entries = await run(directory.entries)
    except NotFound as error:
        if not error.hint and await _has_repositories(tree.root, run):
            error.hint = f"it is a namespace; `ocifs ls {source}` lists its repositories"
        raise
    names = (os.fsdecode(unmangle(entry.name)) for entry in entries)
    return sorted(names, key=natural_key)


async def _has_repositories(root: Directory, run: Run) -> bool:
    """Whether a directory lists repositories or namespaces. Control names begin with `_`."""
    try:
        return any(not entry.name.startswith(b"_") for entry in await run(root.entries))
    except OcifsError:
        return False


async def describe_tags(
    tree: AsyncTree,
    names: Sequence[str],
    on_tag: Callable[[Tag], None],
    pacer: Pacer | None = None,
) -> None:
    """Call `on_tag` for each tag, in the order of the names. A few are requested at a time."""
    pacer = pacer or Pacer(tree.timing, status=tree.status)
    manifests = await tree.root.lookup(b"_manifests")
    assert isinstance(manifests, Directory)
    known: list[Tag | None] = [None] * len(names)
    passed = 0
    # Shared by the workers, so that each tag is requested once.
    numbers = iter(range(len(names)))

    async def work() -> None:
        nonlocal passed
        for number in numbers:
            known[number] = await _tag(manifests, names[number], pacer)
            # Nothing is awaited in this loop, so two workers never pass on the same tag.
            while passed < len(names) and (tag := known[passed]) is not None:
                on_tag(tag)
                known[passed] = None
                passed += 1

    with ungrouped():
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(work)


async def _tag(manifests: Directory, name: str, pacer: Pacer) -> Tag:
    component = mangle(to_bytes(name))
    try:
        directory = await pacer.run(partial(manifests.lookup, component))
        assert isinstance(directory, ManifestDirectory)
        loaded = await pacer.run(directory.load)
        child: LoadedManifest | None = None
        if loaded.manifest.form is Form.INDEX:
            child = await pacer.run(partial(_platform_child, directory, loaded.manifest))
    except (NotFound, AccessDenied, Malformed, LimitExceeded) as error:
        return Tag(name, error=error)
    shown = child or loaded
    manifest = shown.manifest
    parts = (manifest.config, *manifest.layers)
    details = TagDetails(
        loaded.classification.kind,
        loaded.mtime_ns or shown.mtime_ns,
        # An unknown size is negative (UNKNOWN_SIZE).
        sum(max(0, part.size) for part in parts if part is not None),
        loaded.manifest.digest,
    )
    return Tag(name, details)


async def _platform_child(directory: ManifestDirectory, index: Manifest) -> LoadedManifest | None:
    """The child of an index for the platform of the tree, or None if the index has none."""
    location = directory.location
    children = [child for child in index.manifests if child_role(child) == "platform"]
    number = first_match([child.platform for child in children], location.context.platform)
    if number is None:
        return None
    child = children[number]
    return await load_manifest(
        replace(location, version=child.digest, descriptor_type=child.media_type)
    )
