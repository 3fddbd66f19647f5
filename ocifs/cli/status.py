"""`ocifs status`: the mounts of this machine and how they are.

Rules that hold here: which mounts there are is the kernel's word, how one is its own; a mount that does not answer delays nobody long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import click

from ocifs.fuse.mounts import mounts, state_of, told_by

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(as_json: bool) -> None:
    """Show the mounts of this machine, from the kernel's table, whether each answers, and what it says of itself."""
    rows = []
    for mount in mounts():
        state = state_of(mount.mountpoint)
        told = told_by(mount.mountpoint) if state == "answers" else {}
        rows.append({"mountpoint": str(mount.mountpoint), "source": mount.source, "state": state, "status": told})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("nothing is mounted")
    for row in rows:
        click.echo(f"{row['mountpoint']}  {row['source']}  {row['state']}")
        for line in lines(row["status"]):
            click.echo(f"  {line}")


def lines(told: object) -> Iterator[str]:
    """What a mount says of itself, for people. Nothing is trusted to be there: the daemon may be of another version."""
    registries = told.get("registries") if isinstance(told, Mapping) else None
    for registry in registries if isinstance(registries, list) else []:
        if not isinstance(registry, Mapping):
            continue
        reachable = {"True": "reachable", "False": "unreachable"}.get(str(registry.get("reachable")), "not asked yet")
        stale = ", names as they last were" if registry.get("stale") else ""
        came, rate = (amount(registry.get(key)) for key in ("bytes_received", "bytes_per_second"))
        fetches = registry.get("fetches", 0)
        yield f"{registry.get('host')}: {reachable}{stale}; {came} received, {rate}/s, {fetches} fetches under way"
        for each in registry.get("fetching") or ():
            done, size = each["received"], each["stop"] - each["start"]
            yield f"  fetching {each['repository']}@{each['digest'][:19]}…: {amount(done)} of {amount(size)}"
        failures = registry.get("errors")
        if failures and registry.get("reachable") is False:
            yield f"  {failures[-1]['message']}"


def amount(count: object) -> str:
    """A number of bytes for people."""
    value = float(count) if isinstance(count, int | float) else 0.0
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"
