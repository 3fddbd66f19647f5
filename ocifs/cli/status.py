"""`ocifs status`: the mounts of this machine and how they are.

Rules that hold here: which mounts there are is the kernel's word, how one is its own; a mount that
does not answer delays nobody long; of mounts that were named, each has to answer for the status 0;
what a mount says of itself is not trusted to be of a shape, since its daemon may be of another
version.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from ocifs.cli.param_types import MountType
from ocifs.cli.terminal import begin_screen, coloured, write, write_lines
from ocifs.fuse.mounts import mounts, real_place, state_of, told_by

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_COLOURS = {"answers": "green", "silent": "yellow", "dead": "red"}


@click.command("status")
@click.argument("mountpoint", type=MountType(path_type=Path), nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--watch", is_flag=True, help="Again and again, until Ctrl-C; with --json a line each time."
)
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between looks.",
)
def command(mountpoint: tuple[Path, ...], as_json: bool, watch: bool, every: float) -> int:
    """Show the mounts of this machine, from the kernel's table, whether each answers, and what it
    says of itself.

    With MOUNTPOINTs, show these alone; the exit status is 1 unless each is a mount that answers.
    """
    places = [real_place(each) for each in mountpoint]
    first = True
    found: list[dict[str, object]] = []
    while first or watch:
        if not first:
            time.sleep(every)
        found = look(places)
        if as_json:
            write_lines(json.dumps(found, indent=None if watch else 2))
        else:
            if watch:
                begin_screen(sys.stdout, first=first)
            _show(found)
        first = False
    answering = {row["mountpoint"] for row in found if row["state"] == "answers"}
    return 0 if answering >= {str(place) for place in places} else 1


def look(places: Sequence[Path] = ()) -> list[dict[str, object]]:
    """Each mount: `mountpoint`, `source`, `state` and what it says of itself, `status`.

    Where `places` are given, of these alone.
    """
    rows: list[dict[str, object]] = []
    for mount in mounts():
        if places and mount.mountpoint not in places:
            continue
        state = state_of(mount.mountpoint)
        told = told_by(mount.mountpoint) if state == "answers" else {}
        rows.append(
            {
                "mountpoint": str(mount.mountpoint),
                "source": mount.source,
                "state": state,
                "status": told,
            }
        )
    return rows


def _show(found: list[dict[str, object]]) -> None:
    if not found:
        write("nothing is mounted")
    for row in found:
        state = str(row["state"])
        shown = coloured(state, _COLOURS.get(state, "red"), sys.stdout)
        write(f"{row['mountpoint']}  {row['source']}  ", shown)
        if state == "dead":
            write(f"  its daemon is gone; `ocifs umount {row['mountpoint']}` takes it away")
        if state == "EACCES":
            write("  another user's, who alone sees what is in it; --allow-other lets others in")
        for line in lines(row["status"]):
            write(f"  {line}")


def lines(told: object) -> Iterator[str]:
    """What a mount says of itself, for people."""
    if not isinstance(told, Mapping) or not told:
        return
    yield _about(told)
    cache = told.get("cache")
    if isinstance(cache, Mapping):
        yield _cache(cache)
    registries = told.get("registries")
    for registry in registries if isinstance(registries, list) else []:
        if isinstance(registry, Mapping):
            yield from _registry(registry)


def _about(told: Mapping[str, object]) -> str:
    counts = told.get("operations")
    done = (
        sum(each for each in counts.values() if isinstance(each, int))
        if isinstance(counts, Mapping)
        else 0
    )
    failed = told.get("errors")
    errors = (
        ", ".join(f"{number} {name}" for name, number in failed.items())
        if isinstance(failed, Mapping)
        else ""
    )
    since = duration(told.get("seconds"))
    text = f"mounted {since} ago by process {told.get('pid')} (ocifs {told.get('version')}); {done:,} operations"
    return (
        text
        + (f"; errors: {errors}" if errors else "")
        + ("; met a bug, see .ocifs/errors" if told.get("unexpected") else "")
    )


def _cache(cache: Mapping[str, object]) -> str:
    size, bound = cache.get("size"), cache.get("limit")
    used = f", {amount(size)}" if isinstance(size, int) else ""
    used += f" of {amount(bound)}" if used and isinstance(bound, int) else ""
    return f"cache: {cache.get('directory')}{used}{', offline' if cache.get('offline') else ''}"


def _registry(registry: Mapping[str, object]) -> Iterator[str]:
    reachable = {"True": "reachable", "False": "unreachable"}.get(
        str(registry.get("reachable")), "not asked yet"
    )
    stale = ", names as they last were" if registry.get("stale") else ""
    came, rate = (amount(registry.get(key)) for key in ("bytes_received", "bytes_per_second"))
    fetches = registry.get("fetches", 0)
    yield f"{registry.get('host')}: {reachable}{stale}; {came} received, {rate}/s, {fetches} fetches under way"
    if registry.get("catalog_error"):
        yield f"  repositories are not listed: {registry.get('catalog_error')}"
    fetching = registry.get("fetching")
    for each in fetching if isinstance(fetching, list) else []:
        if isinstance(each, Mapping):
            yield _transfer(each)
    endpoints = registry.get("endpoints")
    for each in endpoints if isinstance(endpoints, list) else []:
        if isinstance(each, Mapping) and each.get("role") == "mirror":
            yield f"  mirror {each.get('url')}: {each.get('state')}; {amount(each.get('bytes_received'))} received"
    failures = registry.get("errors")
    if isinstance(failures, list) and failures and registry.get("reachable") is False:
        last = failures[-1]
        yield f"  {last.get('message') if isinstance(last, Mapping) else last}"


def _transfer(each: Mapping[str, object]) -> str:
    start, stop = (
        value if isinstance(value, int) else 0 for value in (each.get("start"), each.get("stop"))
    )
    done = amount(each.get("received"))
    text = f"  fetching {each.get('repository')}@{str(each.get('digest'))[:19]}…: {done} of {amount(stop - start)}"
    size = each.get("size")
    if isinstance(size, int) and size > stop - start:
        text += f", from {amount(start)} on, of {amount(size)} in all"
    return text


def amount(count: object) -> str:
    """A number of bytes for people."""
    value = float(count) if isinstance(count, int | float) else 0.0
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def duration(seconds: object) -> str:
    """A time span for people."""
    value = int(seconds) if isinstance(seconds, int | float) else 0
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value // length} {unit}"
    return f"{value} s"
