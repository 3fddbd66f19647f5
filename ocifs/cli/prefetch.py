"""`ocifs prefetch`: bring what is below paths of a source into the cache, so that a mount finds it
there.

Rules that hold here: links in a PATH are followed, links below it are not; what is here already is
not fetched again, so a prefetch that was ended goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import Unpack

import click

from ocifs.cli.browse import browse, patiently
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.param_types import PATH, SOURCE
from ocifs.cli.terminal import progress
from ocifs.concurrency import patience
from ocifs.errors import NotFound
from ocifs.settings import MIB, Timing
from ocifs.tree.node import Directory, File, Node

# What a reference means to somebody who names no path: the bytes of every layer, then the tree that
# they make.
_WHOLE = ("layers", "rootfs")


@click.command("prefetch")
@click.argument("source", type=SOURCE)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=PATH)
@shared
def command(source: str, paths: tuple[str, ...], **options: Unpack[SharedOptions]) -> None:
    """Fetch what is at each PATH of SOURCE, and below, into the cache.

    SOURCE is a reference to one manifest. Without a PATH all of it is fetched, and an image is
    unpacked, so that nothing has to be asked when it is mounted later.

    \b
        ocifs prefetch registry.example.com/team/app:v1
        ocifs prefetch registry.example.com/team/app:v1 rootfs/usr/bin layers/0/blob
    """

    async def visit(root: Directory, timing: Timing) -> None:
        files: dict[Hashable, File] = {}
        if paths:
            for path in paths:
                await _collect(await patiently(timing, root, path), timing, files)
        else:
            await _collect_blobs(root, timing, files)
        await _fetch(list(files.values()), timing)
        if not paths:
            await _unpack(root, timing)

    browse(source, options, visit)


async def _collect(node: Node, timing: Timing, files: dict[Hashable, File]) -> None:
    """Every file below a node, each once however many names it has."""
    todo = [node]
    while todo:
        here = todo.pop()
        if isinstance(here, Directory):
            with patience(timing.timeout, timing.max_wait):
                # In the order of the listing, which is about that of the tar: one request then
                # brings many small files.
                todo += [entry.node for entry in await here.entries()][::-1]
        elif isinstance(here, File):
            files[here.key] = here


async def _collect_blobs(root: Directory, timing: Timing, files: dict[Hashable, File]) -> None:
    try:
        layers = await patiently(timing, root, _WHOLE[0])
    except NotFound:
        raise NotFound(
            "there are no layers here",
            hint="name one manifest (registry/repository:tag), or a PATH",
        ) from None
    if isinstance(layers, Directory):
        with patience(timing.timeout, timing.max_wait):
            names = [entry.name.decode() for entry in await layers.entries()]
        for name in names:
            await _collect(await patiently(timing, root, f"{_WHOLE[0]}/{name}/blob"), timing, files)


async def _fetch(files: Sequence[File], timing: Timing) -> None:
    total = sum(file.attributes.size for file in files)
    with progress(total, f"{total / MIB:.1f} MiB", sys.stderr) as advance:
        for file in files:
            offset = 0
            while offset < file.attributes.size:
                with patience(timing.timeout, timing.max_wait):
                    piece = await file.read(offset, MIB)
                if not piece:
                    break
                offset += len(piece)
                advance(len(piece))


async def _unpack(root: Directory, timing: Timing) -> None:
    """List a root filesystem, where there is one, so that its layers are unpacked and indexed."""
    try:
        rootfs = await patiently(timing, root, _WHOLE[1])
    except NotFound:
        return
    if isinstance(rootfs, Directory):
        with patience(timing.timeout, timing.max_wait):
            await rootfs.entries()
