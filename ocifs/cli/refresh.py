"""`ocifs refresh`: make a mount ask its registries again."""

from __future__ import annotations

import click

from ocifs.cli.named_mount import find_mount
from ocifs.cli.param_types import MOUNT
from ocifs.errors import OcifsError
from ocifs.fuse.mounts import refresh, state_of


@click.command("refresh")
@click.argument("mountpoints", type=MOUNT, metavar="MOUNTPOINT|NAME...", nargs=-1, required=True)
def command(mountpoints: tuple[str, ...]) -> None:
    """Make mounts ask their registries again for tags, lists and repositories.

    Returns when that is done: the next `ls` or `cat` shows the current state of the registry.
    Without it, names are at most --tag-ttl seconds old. NAME is a mount of the configuration file.
    """
    for word in mountpoints:
        path = find_mount(word)
        if state_of(path) == "dead":
            raise OcifsError(f"the mount is dead: {path}", hint=f"ocifs umount {path}")
        problem = refresh(path)
        if problem:
            hint = "only the mounting user and root can refresh a mount"
            raise OcifsError(f"cannot refresh {path}: {problem.lower()}", hint=hint)
