"""`ocifs mount`: mount a source at a directory.

The command line is parsed and checked in the foreground process. Unless `--foreground` is set, the
process then forks: the daemon mounts and serves, and the parent exits when the mount answers.

- Nothing starts a thread before the fork. `ocifs.mounting`, which imports the event loop, is
  imported after it.
- A daemon changes its directory, so every path is absolute before the fork.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Unpack

import click

from ocifs.cli.errors import status_of, text_of
from ocifs.cli.mount_hints import check_words, one_argument
from ocifs.cli.named_mount import NamedMount, named_mounts
from ocifs.cli.options import mounting, sharing
from ocifs.cli.param_types import SOURCE
from ocifs.cli.sources import how_to_list, read_sources
from ocifs.cli.terminal import write
from ocifs.errors import NotFound, OcifsError, UsageError
from ocifs.metrics import parse_address
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import Reference, Source, hosts_of
from ocifs.options import MountOptions, mount_flags, path_of, settings_of
from ocifs.printable import printable
from ocifs.settings import MIB, MountFlags, Settings
from ocifs.telemetry import start_logging
from ocifs.units import format_size

if TYPE_CHECKING:
    from ocifs.fuse.daemon import Ready

RequestFields: TypeAlias = tuple[Source, Path, tuple[str, int] | None, MountFlags]
"""The fields of ocifs.mounting.MountRequest. Its module is imported after the fork."""


@click.command("mount", cls=NamedMount)
@click.argument("source", type=SOURCE, nargs=-1)
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "mount_options",
    multiple=True,
    expose_value=False,
    metavar="OPTION,...",
    help="Options as of mount(8): ro,allow_other,uid=1000. May be repeated.",
)
@click.option(
    "--read-only",
    is_flag=True,
    expose_value=False,
    help="Has no effect: mounts are always read-only.",
)
@mounting
@sharing
@click.pass_context
def command(
    context: click.Context,
    /,
    source: tuple[str, ...],
    mountpoint: Path,
    **options: Unpack[MountOptions],
) -> None:
    """Mount a registry, repository, image or local source.

    SOURCE is mounted read-only at the directory MOUNTPOINT:

    \b
        ocifs mount registry.example.com /mnt/reg
        ocifs mount registry.example.com/team/app:v1 /mnt/app
        ocifs mount registry.example.com/team/app:v1 /mnt/root --view rootfs
        ocifs mount oci:./layout /mnt/layout
        ocifs mount ./image.tar /mnt/image

    With several SOURCEs, or with --any, the top level contains the hosts:
    MOUNTPOINT/registry.example.com/team/app:v1.

    \b
        ocifs mount ghcr.io quay.io /mnt/registries
        ocifs mount --any /mnt/registries

    `ocifs mount NAME` mounts NAME from the configuration file.

    The command returns when the mount answers. `ocifs umount MOUNTPOINT` ends the mount.
    """
    if not source and not options["any"]:
        raise one_argument(str(mountpoint), named_mounts(context))
    check_words(source, str(mountpoint))
    parsed = _absolute(read_sources(source, options, any_host=options["any"]))
    settings = settings_of(hosts_of(parsed), options, MountOptions)
    _check_view(settings, parsed)
    # Imported here because forking has to come before everything that starts threads.
    from ocifs.fuse.daemon import detach
    from ocifs.fuse.mounts import resolve_mount_point

    address = parse_address(options["metrics"]) if options["metrics"] else None
    path = resolve_mount_point(mountpoint)
    _warn_of_hidden_files(path)
    _warn_of_small_cache(settings)
    ready = None if options["foreground"] else detach(path_of(options["log_file"]))
    log_format = options["log_format"]
    start_logging(options["verbose"], log_format)
    request = parsed, path, address, mount_flags(options)
    _serve(request, settings, ready, quiet=log_format == "json")


def _serve(fields: RequestFields, settings: Settings, ready: Ready | None, *, quiet: bool) -> None:
    """Mount, and return when the mount has ended.

    `ready` is the pipe of a daemon to the process that waits for it.
    """
    from ocifs.mounting import MountRequest, mount

    request = MountRequest(*fields, in_background=ready is not None)
    try:
        mount(request, settings, _announcer(request.source, request.mountpoint, ready, quiet))
    except BaseException as error:
        if isinstance(error, NotFound):
            error.hint = error.hint or how_to_list(request.source)
        if ready is not None:
            text = (
                text_of(error)
                if isinstance(error, OcifsError)
                else f"unexpected {type(error).__name__}: {error}"
            )
            # Also for bugs: a daemon has no terminal, so only its parent can print the error.
            ready.fail(text, status_of(error))
        raise


def _announcer(
    source: Source, mountpoint: Path, ready: Ready | None, quiet: bool
) -> Callable[[Sequence[str]], None]:
    """The function that reports that the mount answers, with its warnings.

    A daemon reports to its parent. In the foreground the report is on standard error, unless it is
    `quiet`: a log of JSON objects contains no other lines.
    """
    from ocifs.fuse.daemon import notify_systemd

    def announce(warnings: Sequence[str]) -> None:
        if ready is not None:
            ready.ok("".join(f"ocifs: {printable(text)}\n" for text in warnings))
            return
        if not quiet:
            for text in warnings:
                write(f"ocifs: {text}", err=True)
            write(f"mounted {source} at {mountpoint}", err=True)
        notify_systemd("READY=1")

    return announce


_SMALL_CACHE = 16 * MIB


def _warn_of_small_cache(settings: Settings) -> None:
    """Warn of a cache that is too small to be useful."""
    size = settings.cache.size
    if size is not None and size < _SMALL_CACHE:
        write(
            f"ocifs: small cache ({format_size(size)}): content that does not fit is fetched again "
            "with each read; see --cache-size",
            err=True,
        )


def _warn_of_hidden_files(mountpoint: Path) -> None:
    """Warn on a terminal that a mount hides files.

    Without a terminal the directory is not read: it may be watched by autofs or systemd.
    """
    with contextlib.suppress(OSError):
        if sys.stderr.isatty() and next(mountpoint.iterdir(), None):
            text = f"ocifs: not empty: {mountpoint}; its files are hidden while it is mounted"
            write(text, err=True)


def _check_view(settings: Settings, source: Source) -> None:
    """Raise UsageError for a view of a source that is not a single manifest.

    A local source is checked when it is opened.
    """
    view = settings.view.view
    single = isinstance(source, Reference | LayoutSource)
    if view != Settings().view.view and not single:
        raise UsageError(f"--view {view} needs a reference: {source}", hint="add :TAG or @DIGEST")


def _absolute(source: Source) -> Source:
    """The source with an absolute path: a daemon changes its directory."""
    if not isinstance(source, LayoutSource):
        return source
    path = Path(source.path).absolute()
    if not path.exists():
        raise UsageError(f"no such file or directory: {path}")
    return replace(source, path=str(path))
