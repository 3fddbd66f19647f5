"""`ocifs cache`: inspect, verify, pin and clear the cache.

- The commands work while mounts use the same cache.
- Content that is in use is removed only with `--force`.
- The exit status is 1 if damage was found, or if content could not be removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Unpack

import click

from ocifs.api import AsyncTree
from ocifs.cli.browse import browse
from ocifs.cli.completion_cache import CompletionCache
from ocifs.cli.options import SourceCommand, caching, shared
from ocifs.cli.param_types import SOURCE, json_option
from ocifs.cli.progress_line import ProgressLine, resumable
from ocifs.cli.sources import read_sources
from ocifs.cli.terminal import write, write_lines
from ocifs.errors import NotFound, UsageError
from ocifs.options import CacheOptions, Options, cache_settings
from ocifs.settings import CacheSettings
from ocifs.store.disk import Disk
from ocifs.store.upkeep.eviction import bounds, evict, is_pinned, pinned, remove
from ocifs.store.upkeep.inventory import Item, inventory
from ocifs.store.upkeep.pins import pins, remove_pin
from ocifs.store.upkeep.repositories import provenance
from ocifs.units import format_size
from ocifs.verbs.pin import (
    PinReport,
    not_a_digest,
    parse_digest,
    parse_reference,
    pin_digest,
    pin_manifest,
    unpin,
)
from ocifs.verbs.verify import verify_cache

_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


@click.group("cache")
def command() -> None:
    """Inspect, verify, pin and clear the cache."""


@command.command("path", cls=SourceCommand)
@click.argument("digest", required=False)
@caching
def path_command(digest: str | None, **options: Unpack[CacheOptions]) -> None:
    """Print the cache directory, or the file of a cached blob.

    The file of a blob may be partial: it then contains the blocks that were fetched.
    """
    settings = cache_settings(options)
    if digest is None:
        write(str(settings.directory))
        return
    wanted = parse_digest(digest)
    if wanted is None:
        raise not_a_digest(digest)
    disk = Disk(settings.directory)
    for path in (disk.whole(wanted), disk.partial(wanted)):
        if path.exists():
            write(str(path))
            return
    raise NotFound(f"not in the cache: {wanted}")


@command.command("list", cls=SourceCommand)
@json_option
@caching
def list_command(as_json: bool, **options: Unpack[CacheOptions]) -> None:
    """List the cache, most recently used first.

    Each line has the kind, size on disk, time since the last use, pin, digest and repositories.
    """
    settings = cache_settings(options)
    disk = Disk(settings.directory)
    items = inventory(disk)
    rows = _rows(disk, items)
    if as_json:
        write_lines(json.dumps(_listing(disk, settings, items, rows), indent=2))
        return
    for row in rows:
        _show(row)
    total, limit = sum(item.size for item in items), bounds(disk, settings).size
    used = f"{format_size(total)} of {format_size(limit)} used in {settings.directory}"
    # On standard error, so that standard output has exactly one line for each item.
    write(f"{used}; {len(items) - len(rows)} names", err=True)
    for pin in pins(disk):
        write(f"pinned: {pin.what} ({len(pin.digests)} digests)", err=True)


def _rows(disk: Disk, items: Sequence[Item]) -> list[dict[str, object]]:
    """A row for each item with a digest, most recently used first."""
    digests, names = pinned(disk)
    repositories = provenance(disk, list(items))
    return [
        {
            "kind": item.kind,
            "digest": str(item.digest),
            "size": item.size,
            "length": item.length,
            "used": round(item.used, 3),
            "pinned": is_pinned(item, digests, names),
            "repositories": sorted(repositories.get(item.digest, ())),
        }
        for item in sorted(items, key=lambda item: -item.used)
        # Cached names have no digest, and appear only in the count of names.
        if item.digest is not None
    ]


def _listing(
    disk: Disk, settings: CacheSettings, items: Sequence[Item], rows: list[dict[str, object]]
) -> dict[str, object]:
    limits = bounds(disk, settings)
    return {
        "directory": str(settings.directory),
        "size": sum(item.size for item in items),
        "limit": limits.size,
        "free_space": limits.free,
        "names": len(items) - len(rows),
        "pins": [
            {"what": pin.what, "digests": sorted(map(str, pin.digests))} for pin in pins(disk)
        ],
        "items": rows,
    }


def _show(row: Mapping[str, object]) -> None:
    mark = "pinned" if row["pinned"] else "-"
    used, names = row["used"], row["repositories"]
    assert isinstance(used, float)
    origin = ", ".join(names) if isinstance(names, list) and names else "-"
    size = format_size(row["size"])
    write(f"{row['kind']:<13}  {size:>10}  {_age(used):>8}  {mark:<6}  {row['digest']}  {origin}")


def _age(used: float) -> str:
    seconds = max(0.0, time.time() - used)
    return next((f"{seconds // unit:.0f} {name}" for unit, name in _AGES if seconds >= unit), "now")


@command.command("verify", cls=SourceCommand)
@json_option
@caching
def verify_command(as_json: bool, **options: Unpack[CacheOptions]) -> int:
    """Verify the cache, and remove damaged content.

    The exit status is 1 if anything was damaged.
    """
    line = ProgressLine()
    with resumable(line):
        findings = verify_cache(cache_settings(options).directory, line.progress)
    if as_json:
        damaged = [
            {"kind": item.kind, "path": str(item.paths[0]), "problem": text}
            for item, text in findings.wrong
        ]
        report = {"good": findings.good, "unknown": findings.unknown, "dropped": damaged}
        write_lines(json.dumps(report, indent=2))
        return 1 if damaged else 0
    for item, text in findings.wrong:
        write(f"{item.kind} {item.digest or item.paths[0].name}: {text}; removed")
    skipped = (
        f", {findings.unknown} skipped (in use, or without a checksum)" if findings.unknown else ""
    )
    write(f"{findings.good} good, {len(findings.wrong)} damaged{skipped}", err=True)
    return 1 if findings.wrong else 0


@command.command("gc", cls=SourceCommand)
@json_option
@caching
def gc_command(as_json: bool, **options: Unpack[CacheOptions]) -> int:
    """Evict down to the limits, least recently used first.

    Also removes the temporary files of processes that have ended. The exit status is 1 if a limit
    is still exceeded because the remaining content is in use or pinned.
    """
    settings = cache_settings(options)
    disk = Disk(settings.directory)
    report = evict(disk, bounds(disk, settings), exactly=True)
    if report is None:
        raise UsageError("the cache is locked: another process is evicting", hint="try again")
    if as_json:
        facts = {
            "evicted": len(report.evicted),
            "freed": report.freed,
            "size": report.size,
            "over": report.over,
            "leftovers": len(report.leftovers),
        }
        write_lines(json.dumps(facts, indent=2))
        return 1 if report.over else 0
    freed = f"evicted {len(report.evicted)} ({format_size(report.freed)})"
    leftovers = f"removed {len(report.leftovers)} temporary files"
    write(f"{freed}, {leftovers}; {format_size(report.size)} remain")
    if report.over:
        over = format_size(report.over)
        write(f"still {over} over the limit: the rest is in use or pinned", err=True)
    return 1 if report.over else 0


@command.command("clear", cls=SourceCommand)
@click.option(
    "--force",
    is_flag=True,
    help="Also remove content that is in use or pinned. Open files stay readable.",
)
@caching
def clear_command(force: bool, **options: Unpack[CacheOptions]) -> int:
    """Remove everything that is not in use or pinned, and the answers of shell completion.

    The exit status is 1 if content in use was not removed.
    """
    CompletionCache.of_user(os.environ).clear()
    disk = Disk(cache_settings(options).directory)
    digests, names = pinned(disk)
    items = inventory(disk)
    if force:
        for pin in pins(disk):
            remove_pin(disk, pin.what)
    removable = [item for item in items if force or not is_pinned(item, digests, names)]
    removed = [item for item in removable if remove(item, forced=force)]
    freed = format_size(sum(item.size for item in removed))
    write(f"removed {len(removed)} ({freed}); {len(items) - len(removable)} pinned")
    in_use = len(removable) - len(removed)
    if in_use:
        hint = "unmount first (`ocifs status` lists the mounts), or use --force"
        write(f"{in_use} in use and not removed; {hint}", err=True)
    return 1 if in_use else 0


@command.command("pin", cls=SourceCommand)
@click.argument("what", metavar="DIGEST|REFERENCE", type=SOURCE)
@shared
def pin_command(what: str, **options: Unpack[Options]) -> None:
    """Protect a digest or reference from eviction.

    The pin of a reference covers its manifest, config and layers, and of an index the child for the
    platform. Nothing is fetched, but content that is fetched later is pinned as well.

    \b
        ocifs cache pin registry.example.com/team/app:v1
        ocifs prefetch registry.example.com/team/app:v1
    """
    digest = parse_digest(what)
    if digest is not None:
        pin_digest(what, cache_settings(options).directory)
        write(f"pinned {digest}")
        return
    # Before the source is opened: only a reference can be pinned.
    parse_reference(what)
    reports: list[PinReport] = []

    async def visit(tree: AsyncTree) -> None:
        reports.append(await pin_manifest(tree))

    browse(read_sources([what], options), options, visit)
    for report in reports:
        write(f"pinned {report.reference}: {report.manifests} manifests, {report.blobs} blobs")
        if report.missing > 0:
            missing = format_size(report.missing)
            write(f"{missing} not cached yet; fetch them: `ocifs prefetch {what}`", err=True)


@command.command("unpin", cls=SourceCommand)
@click.argument("what", metavar="DIGEST|REFERENCE")
@caching
def unpin_command(what: str, **options: Unpack[CacheOptions]) -> None:
    """Remove the pin of a digest or reference."""
    write(f"unpinned {unpin(what, cache_settings(options).directory)}")
