"""What `ls`, `cat` and `tree` share: a source opened without a mount, and a path walked in it.

Rules that hold here: the same tree, and the same code, as in a mount; every wait is bounded by the same patience.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ocifs.app import Facts, open_tree, run_to_end
from ocifs.cli.options import SharedOptions, settings_from
from ocifs.cli.sources import read_sources
from ocifs.concurrency import patience
from ocifs.oci.reference import Source, hosts_of
from ocifs.settings import Timing
from ocifs.tree.node import Directory, Node
from ocifs.tree.walk import walk


def browse(
    what: str | Source,
    options: SharedOptions,
    visit: Callable[[Directory, Timing], Awaitable[None]],
    facts: Facts | None = None,
) -> None:
    """Open a source, let `visit` look around in it, close it. Raises what it raises. `facts` is filled with what is known of it."""
    source = read_sources([what], options) if isinstance(what, str) else what
    settings = settings_from(options, *hosts_of(source))

    async def run() -> None:
        async with open_tree(source, settings, {} if facts is None else facts) as root:
            await visit(root, settings.timing)

    run_to_end(run)


async def patiently(timing: Timing, root: Directory, path: str, *, follow: bool = True) -> Node:
    """Walk to a path, with patience."""
    with patience(timing.timeout, timing.max_wait):
        return await walk(root, path.encode(errors="surrogateescape"), follow=follow)
    raise AssertionError("patience raises when it ends")
