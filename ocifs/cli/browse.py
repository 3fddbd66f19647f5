"""What `ls`, `cat` and `tree` share: a source opened without a mount, and a path walked in it.

Rules that hold here: the same tree, and the same code, as in a mount; every wait is bounded by the
same patience.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from ocifs.app import Facts, Hooks, open_tree, run_to_end
from ocifs.cli.options import SharedOptions, settings_from
from ocifs.cli.sources import how_to_look, read_sources
from ocifs.cli.suggestions import around, likely
from ocifs.cli.terminal import progress
from ocifs.concurrency import patience
from ocifs.errors import DeadlineExceeded, NotFound, OcifsError
from ocifs.oci.reference import Source, hosts_of
from ocifs.settings import Settings, Timing
from ocifs.telemetry import log_warnings
from ocifs.tree.node import Directory, Node
from ocifs.tree.walk import walk


def browse(
    what: str | Source,
    options: SharedOptions,
    visit: Callable[[Directory, Timing], Awaitable[None]],
    facts: Facts | None = None,
) -> None:
    """Open a source, let `visit` look around in it, close it.

    Raises what it raises. `facts` is filled with what is known of it.
    """
    source = read_sources([what], options) if isinstance(what, str) else what
    settings = settings_from(options, *hosts_of(source))
    log_warnings()

    unpacking = _Unpacking()

    async def run() -> None:
        gathered = {} if facts is None else facts
        async with open_tree(source, settings, gathered, Hooks(on_progress=unpacking.show)) as root:
            unpacking.close()
            await visit(root, settings.timing)

    try:
        with unpacking:
            run_to_end(run)
    except NotFound as error:
        error.hint = error.hint or _instead_of(source, settings) or how_to_look(source)
        raise
    except DeadlineExceeded as error:
        error.hint = (
            error.hint
            or f"`ocifs doctor {source}` says whether it answers; --timeout and --max-wait are for how long"
        )
        raise


class _Unpacking(ExitStack):
    """A bar on the terminal for an archive that is unpacked, from the first report of progress on."""

    _advance: Callable[[int], None] | None = None
    _shown = 0

    def show(self, name: str, done: int, total: int) -> None:
        """Show how many bytes of a file are done."""
        if self._advance is None:
            label = f"unpacking {os.path.basename(name)} into the cache"
            self._advance = self.enter_context(progress(total, label, sys.stderr))
        self._advance(done - self._shown)
        self._shown = done


def _instead_of(source: Source, settings: Settings) -> str:
    """What may have been meant by a source that is not there."""
    found = around(source)
    if found is None:
        return ""
    outer, path = found
    hint = ""

    async def look() -> None:
        nonlocal hint
        async with open_tree(outer, settings) as root:
            hint = await likely(root, path)

    try:
        run_to_end(look)
    except OcifsError:
        return ""
    return hint


async def patiently(timing: Timing, root: Directory, path: str, *, follow: bool = True) -> Node:
    """Walk to a path, with patience."""
    try:
        with patience(timing.timeout, timing.max_wait):
            return await walk(root, path.encode(errors="surrogateescape"), follow=follow)
    except NotFound as error:
        error.hint = error.hint or await likely(root, path)
        raise
    raise AssertionError("patience raises when it ends")
