"""`ocifs umount`: unmount."""

from __future__ import annotations

from pathlib import Path

import click

from ocifs.cli.param_types import MountType
from ocifs.errors import UsageError
from ocifs.fuse.mounts import is_dead, mounts, resolve_mount_point, unmount


@click.command("umount")
@click.argument("mountpoint", type=MountType(path_type=Path))
@click.option(
    "-l",
    "--lazy",
    is_flag=True,
    help="Detach now. Files that are open stay readable until they are closed.",
)
def command(mountpoint: Path, lazy: bool) -> None:
    """Unmount MOUNTPOINT, even if its daemon has died."""
    path = resolve_mount_point(mountpoint)
    if path not in [mount.mountpoint for mount in mounts()]:
        raise UsageError(f"not an ocifs mount: {path}", hint="list the mounts: `ocifs status`")
    unmount(path, lazy=lazy or is_dead(path))
