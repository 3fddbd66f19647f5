"""`ocifs umount`: end a mount."""

from __future__ import annotations

from pathlib import Path

import click

from ocifs.cli.param_types import MountType
from ocifs.errors import UsageError
from ocifs.fuse.mounts import is_dead, mounts, real_place, unmount


@click.command("umount")
@click.argument("mountpoint", type=MountType(path_type=Path))
@click.option(
    "-l",
    "--lazy",
    is_flag=True,
    help="Detach now; those who still use it keep what they have open.",
)
def command(mountpoint: Path, lazy: bool) -> None:
    """End the mount at MOUNTPOINT, also one whose daemon has died."""
    place = real_place(mountpoint)
    if place not in [mount.mountpoint for mount in mounts()]:
        raise UsageError(f"{place} is no mount of ocifs", hint="`ocifs status` lists them")
    unmount(place, lazy=lazy or is_dead(place))
