"""How commands open a source without a mount, and walk to a path in it.

Called once by each command, in the main thread: `browse` runs the event loop.

- The tree is the same as in a mount, and is read by the same code.
- Every wait has a deadline.
- A name that does not exist gets a hint: similar names, or the command that lists them. The module
  that makes it is imported after the failure.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from ocifs.api import AsyncTree
from ocifs.app import Hooks, StatusSources, open_tree, run_to_end
from ocifs.cli.options import verbosity
from ocifs.cli.progress_line import ProgressLine
from ocifs.cli.sources import how_to_list
from ocifs.cli.terminal import write
from ocifs.errors import DeadlineExceeded, NotFound, OcifsError
from ocifs.oci.reference import Source, hosts_of
from ocifs.options import Options, settings_of
from ocifs.settings import Settings
from ocifs.telemetry import log_commands
from ocifs.tree.node import Node


def browse(source: Source, options: Options, visit: Callable[[AsyncTree], Awaitable[None]]) -> None:
    """Open a source, call `visit` with its tree, and close it.

    Raises the errors of `visit`, with hints for names that do not exist.
    """
    settings = settings_of(hosts_of(source), options)
    log_commands(verbosity())
    line = ProgressLine()

    # Shown from the first report on, so only for an archive that has to be unpacked.
    def unpacking(name: str, done: int, total: int) -> None:
        progress = line.progress
        progress.activity = f"unpacking {os.path.basename(name)} into the cache"
        progress.total = total
        progress.advance(done - progress.done)

    async def run() -> None:
        status: StatusSources = {}
        async with open_tree(source, settings, status, Hooks(on_progress=unpacking)) as root:
            # An archive is unpacked before the tree is open.
            line.clear()
            await visit(AsyncTree(source, root, settings, status))

    try:
        run_to_end(run)
    except NotFound as error:
        error.hint = error.hint or _alternatives(source, settings) or how_to_list(source)
        raise
    except DeadlineExceeded as error:
        error.hint = error.hint or (
            f"check it with `ocifs doctor {source}`, or raise --timeout and --max-wait"
        )
        raise


def _alternatives(source: Source, settings: Settings) -> str:
    """A hint with names similar to a source that does not exist."""
    from ocifs.cli.suggestions import enclosing, suggest

    outer_and_path = enclosing(source)
    if outer_and_path is None:
        return ""
    outer, path = outer_and_path
    hint = ""

    async def look() -> None:
        nonlocal hint
        async with open_tree(outer, settings) as root:
            hint = await suggest(root, path)

    try:
        run_to_end(look)
    except OcifsError:
        return ""
    return hint


async def find_node(tree: AsyncTree, path: str) -> Node:
    """The node at a path. Raises NotFound with a hint, and the errors of a read."""
    try:
        node = await tree.node(path)
    except NotFound as error:
        if not error.hint:
            from ocifs.cli.suggestions import suggest

            error.hint = await suggest(tree.root, path)
        raise
    if tree.settings.view.platform is not None:
        await _check_platform(tree, path)
    return node


async def _check_platform(tree: AsyncTree, path: str) -> None:
    """Warn if a path leads through an image for another platform than the requested one.

    An image that is the source has been checked when it was opened.
    """
    from ocifs.tree.manifest.directory import ManifestDirectory
    from ocifs.tree.manifest.platforms import platform_note

    parts = [part for part in path.split("/") if part]
    for count in range(len(parts) + 1):
        node = await tree.node("/".join(parts[:count]))
        if isinstance(node, ManifestDirectory):
            with tree.deadline():
                note = platform_note(await node.load(), tree.settings.view.platform)
            if note and count:
                write(f"ocifs: {note}", err=True)
            return
