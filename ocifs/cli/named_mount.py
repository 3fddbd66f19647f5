"""`ocifs mount NAME`: a source, mount point and options from the configuration file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click

from ocifs.cli import config
from ocifs.cli.config import Config
from ocifs.cli.mount_options import hint_for, translate
from ocifs.cli.options import SourceCommand
from ocifs.errors import UsageError
from ocifs.fuse.mounts import mounts, resolve_mount_point


class NamedMount(SourceCommand):
    """A command with arguments, or with the name of a mount as its only argument.

    The options after `-o` are those of mount(8), and come before all other options.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        loaded = ctx.obj if isinstance(ctx.obj, Config) else Config()
        values = self._parsed(ctx, args)
        options = ",".join(values.get("mount_options") or ())
        if options and not ctx.resilient_parsing:
            try:
                args = [*translate(options, self.params), *args]
            except ValueError as error:
                message, _, hint = str(error).partition("; ")
                hint = hint or "`ocifs mount --help` lists the options"
                raise UsageError(f"-o {options}: {message}", hint=hint) from None
            values = self._parsed(ctx, args)
        name, sources = values.get("mountpoint"), values.get("source")
        # Without sources this is None, or a marker of newer versions of click.
        has_sources = isinstance(sources, tuple) and bool(sources)
        if (
            has_sources
            or values.get("any") is True
            or not isinstance(name, str)
            or name not in loaded.mounts
        ):
            return super().parse_args(ctx, args)
        defaults = loaded.defaults(name)
        mountpoint = defaults.pop("mountpoint", None)
        defaults.pop("source", None)
        ctx.default_map = defaults
        rest = super().parse_args(ctx, args)
        if mountpoint is None:
            hint = f'add below [mounts.{name}]: mountpoint = "/mnt/{name}"'
            raise UsageError(f"no mountpoint for the mount {name}", hint=hint)
        ctx.params["mountpoint"] = Path(str(mountpoint))
        ctx.params["source"] = loaded.sources(name)
        return rest

    def _parsed(self, ctx: click.Context, args: list[str]) -> dict[str, Any]:
        """The values on the command line. An option of another tool gets a hint."""
        try:
            return self.make_parser(ctx).parse_args(list(args))[0]
        except click.NoSuchOption as error:
            hint = hint_for(error.option_name)
            if not hint:
                raise
            raise UsageError(f"no such option '{error.option_name}'", hint=hint) from None


def named_mounts(context: click.Context) -> Mapping[str, object]:
    """The mounts of the configuration file, by name."""
    return context.obj.mounts if isinstance(context.obj, Config) else {}


def find_mount(word: str) -> Path:
    """The mount point that a word names: a path, or a mount of the configuration file.

    Raises UsageError if it is not an ocifs mount. The file is read only if the path is none.
    """
    mounted = {mount.mountpoint for mount in mounts()}
    path, is_name = named_path(word, mounted)
    if path in mounted:
        return path
    if is_name:
        raise UsageError(f"not mounted: {word} ({path})", hint=f"ocifs mount {word}")
    raise UsageError(f"not an ocifs mount: {path}", hint="list the mounts: `ocifs status`")


def named_path(word: str, mounted: Collection[Path]) -> tuple[Path, bool]:
    """The path that a word names, and whether the word is the name of a configured mount.

    A path in `mounted` comes before a name.
    """
    path = resolve_mount_point(Path(word))
    if path not in mounted and "/" not in word:
        named = config.load(config.options_of_mount).mounts.get(word, {}).get("mountpoint")
        if named is not None:
            return resolve_mount_point(Path(os.path.expanduser(str(named.value)))), True
    return path, False
