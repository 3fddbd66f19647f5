"""`ocifs mount`: put a source at a directory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Unpack

import click

from ocifs.cli.errors import nearest, status_of, text_of
from ocifs.cli.options import SharedOptions, give_variables, settings_from, shared
from ocifs.cli.param_types import SOURCE
from ocifs.cli.sources import how_to_list, read_sources
from ocifs.cli.terminal import write
from ocifs.errors import NotFound, OcifsError, UsageError
from ocifs.metrics import parse_address
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import Reference, Source, hosts_of
from ocifs.printable import printable
from ocifs.settings import MountFlags, Settings
from ocifs.telemetry import start_logging

if TYPE_CHECKING:
    from ocifs.fuse.daemon import Ready

Request: TypeAlias = tuple[Source, Path, tuple[str, int] | None, MountFlags]
"""The fields of ocifs.app.MountRequest, whose module is imported after the fork only."""


class MountOptions(SharedOptions):
    """Options of the kernel's mount, beside the shared ones."""

    allow_other: bool
    auto_unmount: bool
    noexec: bool
    nosymfollow: bool
    fsname: str | None


class NamedMount(click.Command):
    """`ocifs mount work`: a name of the configuration file instead of sources and a place."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from ocifs.cli.config import Config

        config = ctx.obj if isinstance(ctx.obj, Config) else Config()
        words = self.make_parser(ctx).parse_args(list(args))[0]
        name, before = words.get("mountpoint"), words.get("source")
        several = isinstance(before, tuple) and bool(
            before
        )  # where there is none, newer clicks have a mark of their own
        if (
            several
            or words.get("any") is True
            or not isinstance(name, str)
            or name not in config.mounts
        ):
            return super().parse_args(ctx, args)
        given = config.defaults(name)
        place = given.pop("mountpoint", None)
        given.pop("source", None)
        ctx.default_map = given
        rest = super().parse_args(ctx, args)
        if place is None:
            hint = f'add below [mounts.{name}]: mountpoint = "/mnt/{name}"'
            raise UsageError(f"no mountpoint for the mount {name}", hint=hint)
        ctx.params["mountpoint"] = Path(str(place))
        ctx.params["source"] = config.sources(name)
        return rest


@click.command("mount", cls=NamedMount)
@click.argument("source", type=SOURCE, nargs=-1)
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--any", is_flag=True, help="Any host can be looked up: MOUNTPOINT/HOST/REPOSITORY.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C unmounts.")
@click.option(
    "--allow-other",
    is_flag=True,
    help="Let other users in (needs user_allow_other in /etc/fuse.conf, or root).",
)
@click.option(
    "--auto-unmount",
    is_flag=True,
    help="Take the mount away when the daemon dies; a helper waits for that.",
)
@click.option("--noexec", is_flag=True, help="Let no program be run from the mount.")
@click.option(
    "--nosymfollow",
    is_flag=True,
    help="Let the kernel follow no symbolic link in the mount, tags included.",
)
@click.option(
    "--fsname",
    metavar="NAME",
    help="Source that the mount table shows.  [the source in normal form]",
)
@click.option(
    "--log-file", type=click.Path(path_type=Path), help="Where a daemon writes what it has to say."
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json", "journald"]),
    default="text",
    help="For people, for machines, or for the journal, which people's lines are for too where it reads them.",
)
@click.option(
    "--view",
    type=click.Choice(["manifest", "rootfs", "files"]),
    default="manifest",
    show_default=True,
    help="What a mount of one reference is: the manifest's directory, the root file system, or the payload.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS",
    help="Serve metrics for Prometheus at [HOST:]PORT; loopback without a HOST.",
)
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Log each request to the registry; twice: each operation, too.",
)
@shared
@click.pass_context
def command(  # noqa: PLR0913, PLR0917 (click gives each option as an argument)
    context: click.Context,
    /,
    source: tuple[str, ...],
    mountpoint: Path,
    any: bool,  # the name that it has in the configuration file, too
    foreground: bool,
    log_file: Path | None,
    log_format: str,
    view: str,
    metrics: str | None,
    verbose: int,
    **options: Unpack[MountOptions],
) -> None:
    """Mount SOURCE at the directory MOUNTPOINT, read-only.

    SOURCE is a registry, a namespace or repository in one, a reference to one manifest, or an image
    on disk:

    \b
        ocifs mount registry.example.com /mnt/reg
        ocifs mount registry.example.com/team/app:v1 /mnt/app
        ocifs mount registry.example.com/team/app:v1 /mnt/root --view rootfs
        ocifs mount oci:./layout /mnt/layout
        ocifs mount ./image.tar /mnt/image

    With several, or with --any, hosts are at the top: MOUNTPOINT/registry.example.com/team/app:v1.

    \b
        ocifs mount ghcr.io quay.io /mnt/registries
        ocifs mount --any /mnt/registries

    A mount that the configuration file names needs nothing else: `ocifs mount work`.

    The command returns when the mount answers. End it with `ocifs umount MOUNTPOINT`.
    """
    if not source and not any:
        raise _one_word(str(mountpoint), context)
    parsed = _absolute(read_sources(source, options, any_host=any))
    settings = _viewed(settings_from(options, *hosts_of(parsed)), parsed, view)
    from ocifs.fuse.daemon import detach  # forks, so it comes before anything that starts threads
    from ocifs.fuse.mounts import resolve_mount_point

    address = parse_address(metrics) if metrics else None
    place = resolve_mount_point(
        mountpoint
    )  # absolute, since a daemon leaves the directory that it was started in
    _tell_what_is_hidden(place)
    ready = None if foreground else detach(log_file and log_file.absolute())
    start_logging(verbose, log_format)
    _serve((parsed, place, address, _flags(options)), settings, ready, told=log_format != "json")


give_variables(
    each for each in command.params if each.name != "any"
)  # which is about what is mounted


def _flags(options: MountOptions) -> MountFlags:
    return MountFlags(
        allow_other=options["allow_other"],
        auto_unmount=options["auto_unmount"],
        noexec=options["noexec"],
        nosymfollow=options["nosymfollow"],
        fsname=options["fsname"] or "",
    )


def _one_word(word: str, context: click.Context) -> UsageError:
    """What to say to `ocifs mount WORD`, which names no mount of the configuration file."""
    from ocifs.cli.config import Config

    how = "ocifs mount SOURCE MOUNTPOINT"
    if Path(word).is_dir():
        return UsageError(f"missing argument SOURCE: {word} is a mount point", hint=how)
    named = context.obj.mounts if isinstance(context.obj, Config) else ()
    hint = nearest(word, named) if "." not in word and ":" not in word else ""
    if hint:
        return UsageError(f"unknown mount: {word}", hint=hint)
    return UsageError(f"missing argument MOUNTPOINT for {word}", hint=how)


def _serve(what: Request, settings: Settings, ready: Ready | None, *, told: bool) -> None:
    """Mount, and stay; `ready` hears how that began, where this is a daemon, else standard error is
    told, where it may be.
    """
    from ocifs.fuse.daemon import notify_systemd
    from ocifs.mounting import MountRequest, mount

    request = MountRequest(*what)

    def announce(warnings: Sequence[str]) -> None:
        if ready is not None:
            ready.ok("".join(f"ocifs: {printable(text)}\n" for text in warnings))
            return
        for text in warnings if told else ():
            write(f"ocifs: {text}", err=True)
        if told:  # a log of objects has no other lines
            write(f"mounted {request.source} at {request.mountpoint}", err=True)
        notify_systemd("READY=1")

    try:
        mount(request, settings, announce)
    except BaseException as error:
        if isinstance(error, NotFound):
            error.hint = error.hint or how_to_list(request.source)
        if ready is not None:
            text = (
                text_of(error)
                if isinstance(error, OcifsError)
                else f"unexpected {type(error).__name__}: {error}"
            )
            ready.fail(text, status_of(error))
        raise


def _tell_what_is_hidden(place: Path) -> None:
    """Tell a person what a mount hides.

    A place that autofs or systemd watches must not be looked into, and those have no terminal.
    """
    with contextlib.suppress(OSError):
        if sys.stderr.isatty() and next(place.iterdir(), None):
            write(
                f"ocifs: {place} is not empty; what is in it is hidden while the mount lasts",
                err=True,
            )


def _viewed(settings: Settings, source: Source, view: str) -> Settings:
    """The settings with the view that was asked for, which only one manifest has."""
    single = isinstance(
        source, Reference | LayoutSource
    )  # of a layout it is found out when that is opened
    if view != settings.view.view and not single:
        raise UsageError(
            f"--view {view} is for one reference, and {source} is none", hint="add :TAG or @DIGEST"
        )
    return replace(settings, view=replace(settings.view, view=view))


def _absolute(source: Source) -> Source:
    """A daemon leaves its directory, so a layout's path may not depend on it."""
    if not isinstance(source, LayoutSource):
        return source
    path = Path(source.path).absolute()
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    return replace(source, path=str(path))
