"""`ocifs mount NAME`: a source, mount point and options from the configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ocifs.cli.config import Config
from ocifs.cli.options import SourceCommand
from ocifs.errors import UsageError


class NamedMount(SourceCommand):
    """A command with arguments, or with the name of a mount as its only argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        config = ctx.obj if isinstance(ctx.obj, Config) else Config()
        values = self.make_parser(ctx).parse_args(list(args))[0]
        name, sources = values.get("mountpoint"), values.get("source")
        # Without sources this is None, or a marker of newer versions of click.
        has_sources = isinstance(sources, tuple) and bool(sources)
        if (
            has_sources
            or values.get("any") is True
            or not isinstance(name, str)
            or name not in config.mounts
        ):
            return super().parse_args(ctx, args)
        options = config.defaults(name)
        mountpoint = options.pop("mountpoint", None)
        options.pop("source", None)
        ctx.default_map = options
        rest = super().parse_args(ctx, args)
        if mountpoint is None:
            hint = f'add below [mounts.{name}]: mountpoint = "/mnt/{name}"'
            raise UsageError(f"no mountpoint for the mount {name}", hint=hint)
        ctx.params["mountpoint"] = Path(str(mountpoint))
        ctx.params["source"] = config.sources(name)
        return rest


def named_mounts(context: click.Context) -> Mapping[str, object]:
    """The mounts of the configuration file, by name."""
    return context.obj.mounts if isinstance(context.obj, Config) else {}
