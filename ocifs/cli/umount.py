"""`ocifs umount`: unmount."""

from __future__ import annotations

import click

from ocifs.cli.named_mount import find_mount
from ocifs.cli.param_types import MOUNT
from ocifs.fuse.mounts import is_dead, unmount


@click.command("umount")
@click.argument("mountpoint", type=MOUNT, metavar="MOUNTPOINT|NAME")
@click.option(
    "-l",
    "--lazy",
    is_flag=True,
    help="Detach now. Files that are open stay readable until they are closed.",
)
def command(mountpoint: str, lazy: bool) -> None:
    """Unmount MOUNTPOINT, even if its daemon has died.

    NAME is a mount of the configuration file.
    """
    path = find_mount(mountpoint)
    unmount(path, lazy=lazy or is_dead(path))
