"""Types of arguments that the shell can complete: a source, a path in one, a mount.

Rules that hold here: importing this imports nothing that takes long, since every command has it;
what can be completed is looked up by `ocifs.cli.completions`, which is imported when a shell asks.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class SourceType(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments there
    """A registry, repository, reference or layout, as text."""

    name = "text"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ocifs.cli.completions import sources

        return sources(ctx, incomplete)


class PathType(click.ParamType):  # type: ignore[type-arg]
    """A path in the source that the command line names before it, as text."""

    name = "text"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ocifs.cli.completions import paths

        return paths(ctx, incomplete)


class MountType(click.Path):
    """Where something of ocifs is mounted."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ocifs.fuse.mounts import mounts

        found = [str(mount.mountpoint) for mount in mounts()]
        return [CompletionItem(place) for place in found if place.startswith(incomplete)]


SOURCE = SourceType()
PATH = PathType()
