"""The option `--json`, and arguments that a shell can complete: a source, a path, a mount.

Every command imports this module, so it imports nothing that takes long. The candidates come from
`ocifs.cli.completions`, which is imported when a shell asks for them.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class SourceType(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    """A registry, repository, reference or local source, as text."""

    name = "text"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ocifs.cli.completions import sources

        return sources(ctx, incomplete)


class JoinedType(SourceType):
    """A source, or a source and a path in it as one word, as text."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ocifs.cli.completions import joined

        return joined(ctx, incomplete)


class PathType(click.ParamType):  # type: ignore[type-arg]
    """A path in the source that the command line names before it, as text."""

    name = "text"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ocifs.cli.completions import paths

        return paths(ctx, incomplete)


class NamedMountType(click.ParamType):  # type: ignore[type-arg]
    """The mount point of an ocifs mount, or the name of one in the configuration file, as text."""

    name = "text"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ocifs.cli.completions import mounted

        return mounted(incomplete)


SOURCE = SourceType()
JOINED = JoinedType()
PATH = PathType()
MOUNT = NamedMountType()
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
