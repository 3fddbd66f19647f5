"""`ocifs cache`: what is kept, whether it is still good, what stays, what goes.

Rules that hold here: the commands work while mounts use the same cache; what is in use goes only
where `--force` says so; the exit status is 1 where something was wrong, or stayed that should have
gone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Unpack

import click

from ocifs.cli.browse import browse
from ocifs.cli.options import CacheOptions, SharedOptions, cache_settings, caching, shared
from ocifs.cli.status import amount
from ocifs.cli.terminal import progress, write, write_lines
from ocifs.errors import IntegrityError, Malformed, NotFound, UsageError
from ocifs.layers.checksummed import intact
from ocifs.layers.index import codec
from ocifs.layers.spans.uncompressed import PLAIN
from ocifs.oci.digest import Digest
from ocifs.oci.reference import Reference, parse_source
from ocifs.settings import Timing
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from ocifs.store.names.cached import CachedCatalog
from ocifs.store.upkeep import verify as check
from ocifs.store.upkeep.eviction import bounds, evict, is_pinned, pinned, remove
from ocifs.store.upkeep.inventory import INDICES, LEFTOVER, NAME, PARTIAL, Item, inventory
from ocifs.store.upkeep.pins import Pin, pins, put_pin, remove_pin
from ocifs.store.upkeep.repositories import provenance

_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


@click.group("cache")
def command() -> None:
    """Look at what is kept of registries, check it, pin it, clear it."""


@command.command("path")
@click.argument("digest", required=False)
@caching
def path_command(digest: str | None, **options: Unpack[CacheOptions]) -> None:
    """Print the cache's directory, or the file that has the blob of DIGEST: whole, or the parts of
    it that are here.
    """
    settings = cache_settings(options)
    if digest is None:
        write(str(settings.directory))
        return
    disk, wanted = Disk(settings.directory), _digest(digest)
    for path in (disk.whole(wanted), disk.partial(wanted)):
        if path.exists():
            write(str(path))
            return
    raise NotFound(f"nothing of {wanted} is in the cache")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@caching
def list_command(as_json: bool, **options: Unpack[CacheOptions]) -> None:
    """Show what is kept, what was used last first: kind, size on disk, last use, digest, pin,
    repositories.
    """
    settings = cache_settings(options)
    disk = Disk(settings.directory)
    items, limits = inventory(disk), bounds(disk, settings)
    digests, names = pinned(disk)
    known = provenance(disk, items)
    rows = [
        {
            "kind": item.kind,
            "digest": str(item.digest),
            "size": item.size,
            "length": item.length,
            "used": round(item.used, 3),
            "pinned": is_pinned(item, digests, names),
            "repositories": sorted(known.get(item.digest, ())),
        }
        for item in sorted(items, key=lambda each: -each.used)
        if item.digest is not None
    ]
    others = [item for item in items if item.digest is None]
    total = sum(item.size for item in items)
    if as_json:
        facts = {
            "directory": str(settings.directory),
            "size": total,
            "limit": limits.size,
            "free_space": limits.free,
        }
        kept = [{"what": pin.what, "digests": sorted(map(str, pin.digests))} for pin in pins(disk)]
        write_lines(
            json.dumps({**facts, "names": len(others), "pins": kept, "items": rows}, indent=2)
        )
        return
    for row in rows:
        _show(row)
    write(
        f"{amount(total)} of {amount(limits.size)} in {settings.directory}; {len(others)} names",
        err=True,
    )
    for pin in pins(disk):
        write(f"pinned: {pin.what}, {len(pin.digests)} digests", err=True)


def _show(row: Mapping[str, object]) -> None:
    mark = "pinned" if row["pinned"] else "-"
    used = row["used"]
    assert isinstance(used, float)
    found = row["repositories"]
    origin = ", ".join(found) if isinstance(found, list) and found else "-"
    size = amount(row["size"])
    write(f"{row['kind']:<13}  {size:>10}  {_age(used):>8}  {mark:<6}  {row['digest']}  {origin}")


def _age(used: float) -> str:
    seconds = max(0.0, time.time() - used)
    return next((f"{seconds // unit:.0f} {name}" for unit, name in _AGES if seconds >= unit), "now")


@command.command("verify")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@caching
def verify_command(as_json: bool, **options: Unpack[CacheOptions]) -> int:
    """Hash everything again, and drop what is wrong. The exit status is 1 where something was."""
    disk = Disk(cache_settings(options).directory)
    items = inventory(disk)
    total = sum(item.length for item in items if item.kind not in (PARTIAL, NAME, LEFTOVER))
    with progress(total, amount(total), sys.stderr) as advance:
        findings = check.verify(disk, items, lambda item: _expected(disk, item), advance)
    if as_json:
        wrong = [
            {"kind": item.kind, "path": str(item.paths[0]), "problem": text}
            for item, text in findings.wrong
        ]
        write_lines(
            json.dumps(
                {"good": findings.good, "unknown": findings.unknown, "dropped": wrong}, indent=2
            )
        )
    else:
        for item, text in findings.wrong:
            write(f"{item.kind} {item.digest or item.paths[0].name}: {text}; dropped")
        passed = (
            f", {findings.unknown} passed over (in use, or nothing to compare with)"
            if findings.unknown
            else ""
        )
        write(f"{findings.good} are good, {len(findings.wrong)} were not{passed}", err=True)
    return 1 if findings.wrong else 0


def _expected(disk: Disk, item: Item) -> Digest | None:
    """What a derived thing must hash to.

    Indices, trees and roots have a checksum of their own; a plain tar's digest is in its index.
    """
    assert item.digest is not None
    if item.kind == PLAIN:
        index = codec.decode(_kept(disk, codec.KIND, item.digest))
        return None if index is None else index.diff_id
    if not item.kind.startswith(INDICES):
        return None
    data = _kept(disk, item.kind, item.digest)
    if not intact(data):
        raise IntegrityError("is not what was written")
    return Digest.of(data)


def _kept(disk: Disk, kind: str, digest: Digest) -> bytes:
    file = DerivedFiles(disk).find(kind, digest)
    if file is None:
        return b""
    with file:
        return file.read()


@command.command("gc")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@caching
def gc_command(as_json: bool, **options: Unpack[CacheOptions]) -> int:
    """Evict down to the bounds, what was used longest ago first, and remove what processes that
    ended left behind.

    The exit status is 1 where the bounds are still passed, since the rest is in use or pinned.
    """
    settings = cache_settings(options)
    disk = Disk(settings.directory)
    report = evict(disk, bounds(disk, settings), exactly=True)
    if report is None:
        raise UsageError(
            "another process is evicting, and has been for ten seconds", hint="try again"
        )
    facts = {
        "evicted": len(report.evicted),
        "freed": report.freed,
        "size": report.size,
        "over": report.over,
    }
    if as_json:
        write_lines(json.dumps({**facts, "leftovers": len(report.leftovers)}, indent=2))
    else:
        gone, left = len(report.evicted), len(report.leftovers)
        write(
            f"evicted {gone} ({amount(report.freed)}) and {left} leftovers; {amount(report.size)} are kept"
        )
        if report.over:
            write(f"still {amount(report.over)} too much: the rest is in use or pinned", err=True)
    return 1 if report.over else 0


@command.command("clear")
@click.option(
    "--force",
    is_flag=True,
    help="Also what is in use or pinned. Who has it open keeps what they have.",
)
@caching
def clear_command(force: bool, **options: Unpack[CacheOptions]) -> int:
    """Remove everything that is neither in use nor pinned.

    The exit status is 1 where something in use stayed.
    """
    disk = Disk(cache_settings(options).directory)
    digests, names = pinned(disk)
    items = inventory(disk)
    if force:
        for pin in pins(disk):
            remove_pin(disk, pin.what)
    going = [item for item in items if force or not is_pinned(item, digests, names)]
    gone = [item for item in going if remove(item, forced=force)]
    freed = amount(sum(item.size for item in gone))
    write(f"removed {len(gone)} ({freed}); {len(items) - len(going)} are pinned")
    stayed = len(going) - len(gone)
    if stayed:
        write(
            f"{stayed} are in use and stay; end the mounts (`ocifs status`), or use --force",
            err=True,
        )
    return 1 if stayed else 0


@command.command("pin")
@click.argument("what")
@shared
def pin_command(what: str, **options: Unpack[SharedOptions]) -> None:
    """Keep WHAT from being evicted: a digest, or a reference with its manifest, config, layers, and
    the child for the platform.

    What is not here yet is not fetched, but stays once it is: `ocifs prefetch` fetches.
    """
    disk = Disk(cache_settings(options).directory)
    digest = _digest_or_none(what)
    if digest is not None:
        put_pin(disk, Pin(str(digest), frozenset({digest})))
        write(f"pinned {digest}")
        return
    from ocifs.concurrency import patience
    from ocifs.tree.manifest.reachable import Closure, closure
    from ocifs.tree.node import Directory
    from ocifs.tree.registry.single import SingleManifest

    source = _reference(what)
    found, names = Closure(), frozenset[str]()

    async def visit(root: Directory, timing: Timing) -> None:
        nonlocal found, names
        assert isinstance(root, SingleManifest)
        catalog = root.where.context.origin.catalog
        with patience(timing.timeout, timing.max_wait):
            found = await closure(root.where)
            if isinstance(catalog, CachedCatalog):
                names = await catalog.name_files(
                    source.repository, source.tag or "", found.manifests
                )

    browse(what, options, visit)
    put_pin(disk, Pin(str(source), frozenset({*found.manifests, *found.blobs}), names))
    here = [each for each in found.blobs if disk.whole(each).exists()]
    missing = sum(max(0, size) for each, size in found.blobs.items() if each not in here)
    write(f"pinned {source}: {len(found.manifests)} manifests, {len(found.blobs)} blobs")
    if missing > 0:
        write(
            f"{amount(missing)} of them are not here yet: `ocifs prefetch {what}` fetches them",
            err=True,
        )


@command.command("unpin")
@click.argument("what")
@caching
def unpin_command(what: str, **options: Unpack[CacheOptions]) -> None:
    """Let WHAT, a digest or a reference that was pinned, be evicted again."""
    disk = Disk(cache_settings(options).directory)
    digest = _digest_or_none(what)
    text = str(digest) if digest is not None else str(_reference(what))
    if not remove_pin(disk, text):
        raise NotFound(f"{text} is not pinned", hint=_hint(pin.what for pin in pins(disk)))
    write(f"unpinned {text}")


def _hint(known: Iterable[str]) -> str:
    found = list(known)
    return f"there are: {', '.join(found[:8])}" if found else ""


def _reference(text: str) -> Reference:
    source = parse_source(text)
    if not isinstance(source, Reference):
        raise UsageError(
            f"{text} is neither a digest nor a reference",
            hint="a reference looks like host/repository:tag",
        )
    return source


def _digest(text: str) -> Digest:
    found = _digest_or_none(text)
    if found is None:
        raise UsageError(
            f"{text} is no digest", hint="a digest looks like sha256:<64 hexadecimal digits>"
        )
    return found


def _digest_or_none(text: str) -> Digest | None:
    try:
        found = Digest.parse(text)
    except Malformed:
        return None
    return found if found.verifiable else None
