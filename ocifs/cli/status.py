"""`ocifs status`: the mounts of this machine and how they are."""

from __future__ import annotations

import json

import click

from ocifs.fuse.mounts import mounts, state_of


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(as_json: bool) -> None:
    """Show the mounts of this machine, from the kernel's table, and whether each answers."""
    rows = [
        {
            "mountpoint": str(mount.mountpoint),
            "source": mount.source,
            "state": state_of(mount.mountpoint),
        }
        for mount in mounts()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("nothing is mounted")
    for row in rows:
        click.echo(f"{row['mountpoint']}  {row['source']}  {row['state']}")
