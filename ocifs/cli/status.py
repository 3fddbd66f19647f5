"""`ocifs status`: print the mounts of this machine and their state.

- The kernel's mount table lists the mounts; each mount reports its own status.
- Each mount has a deadline, so a hanging one does not delay the others for long.
- A reported status may have any shape, since its daemon may be of another version.
- Mounts of the current user come before those of others. The order is otherwise the kernel's.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import click

from ocifs.cli.errors import nearest
from ocifs.cli.named_mount import named_path
from ocifs.cli.param_types import MOUNT, json_option
from ocifs.cli.terminal import begin_screen, coloured, write, write_lines
from ocifs.fuse.mounts import mount_state, mount_status, mounts
from ocifs.units import format_duration, format_size

_COLOURS = {"answers": "green", "silent": "yellow", "dead": "red"}
# The words for people. An errno that is not here has the text of strerror(3).
_WORDS = {"answers": "mounted", "silent": "not responding", "EACCES": "no access"}


@click.command("status")
@click.argument("mountpoint", type=MOUNT, metavar="[MOUNTPOINT|NAME]...", nargs=-1)
@json_option
@click.option(
    "--watch", is_flag=True, help="Repeat until Ctrl-C. With --json, print one line each time."
)
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Interval of --watch.",
)
def command(mountpoint: tuple[str, ...], as_json: bool, watch: bool, every: float) -> int:
    """Show the mounts of this machine and their state, your own first.

    With MOUNTPOINTs, only these are shown, and the exit status is 1 unless each is a mount that
    answers. NAME is a mount of the configuration file.
    """
    mounted = {mount.mountpoint for mount in mounts()}
    words = {word: named_path(word, mounted) for word in mountpoint}
    selected = [path for path, _ in words.values()]
    if not watch:
        _report_missing(words, mounted)
    first = True
    rows: list[dict[str, object]] = []
    while first or watch:
        if not first:
            time.sleep(every)
        rows = mount_rows(selected)
        if as_json:
            write_lines(json.dumps(rows, indent=None if watch else 2))
        else:
            if watch:
                begin_screen(sys.stdout, first=first)
            _show(rows, bool(selected))
        first = False
    answering = {row["mountpoint"] for row in rows if row["state"] == "answers"}
    return 0 if answering >= {str(path) for path in selected} else 1


def mount_rows(selected: Sequence[Path] = ()) -> list[dict[str, object]]:
    """The `mountpoint`, `source`, `state` and `status` of each mount, or of the selected ones."""
    rows: list[dict[str, object]] = []
    for mount in sorted(mounts(), key=lambda mount: mount.owner != os.geteuid()):
        if selected and mount.mountpoint not in selected:
            continue
        state = mount_state(mount)
        rows.append(
            {
                "mountpoint": str(mount.mountpoint),
                "source": mount.source,
                "state": state,
                # A silent mount would exceed the deadline a second time.
                "status": mount_status(mount) if state == "answers" else {},
            }
        )
    return rows


def _report_missing(words: Mapping[str, tuple[Path, bool]], mounted: Collection[Path]) -> None:
    for word, (path, is_name) in words.items():
        if path not in mounted:
            names = sorted(str(mount) for mount in mounted)
            hint = f"mount it: `ocifs mount {word}`" if is_name else nearest(str(path), names)
            text = f"ocifs: not mounted: {word}{f' ({path})' if is_name else ''}"
            write(f"{text}; {hint or 'there are no mounts'}", err=True)


def _show(rows: list[dict[str, object]], is_selection: bool) -> None:
    if not rows and not is_selection:
        write("no mounts")
    for row in rows:
        state = str(row["state"])
        shown = coloured(_word_of(state), _COLOURS.get(state, "red"), sys.stdout)
        write(f"{row['mountpoint']}  {row['source']}  ", shown)
        if state == "dead":
            write(f"  the daemon has died; remove the mount: `ocifs umount {row['mountpoint']}`")
        if state == "EACCES":
            write("  mounted by another user without --allow-other")
        for line in lines(row["status"]):
            write(f"  {line}")


def _word_of(state: str) -> str:
    """A state for people."""
    number = getattr(errno, state, None) if state.isupper() else None
    return _WORDS.get(state) or (os.strerror(number).lower() if number is not None else state)


def lines(status: object) -> Iterator[str]:
    """A mount's status for people."""
    if not isinstance(status, Mapping) or not status:
        return
    yield _about(status)
    kernel = status.get("kernel")
    if isinstance(kernel, Mapping):
        yield from _kernel(kernel)
    cache = status.get("cache")
    if isinstance(cache, Mapping):
        yield _cache(cache)
    registries = status.get("registries")
    for registry in registries if isinstance(registries, list) else []:
        if isinstance(registry, Mapping):
            yield from _registry(registry)


def _about(status: Mapping[str, object]) -> str:
    counts, failed = status.get("operations"), status.get("errors")
    operations = 0
    if isinstance(counts, Mapping):
        operations = sum(count for count in counts.values() if isinstance(count, int))
    age = format_duration(status.get("seconds"))
    text = f"mounted {age} ago"
    if status.get("daemon") is False:
        return f"{text} without a daemon (ocifs {status.get('version')})"
    text += f" by process {status.get('pid')} (ocifs {status.get('version')})"
    text += f"; {operations:,} operations"
    if isinstance(failed, Mapping) and failed:
        text += f"; errors: {', '.join(f'{count} {name}' for name, count in failed.items())}"
    if isinstance(failed, Mapping) and "ENOSPC" in failed:
        text += " (the cache's disk is full: free some space, or use another --cache-dir)"
    if status.get("unexpected"):
        text += "; unexpected errors, see .ocifs/errors"
    return text


def _kernel(kernel: Mapping[str, object]) -> Iterator[str]:
    """Which of the kernel and FUSE serves the files, if the kernel was asked to."""
    reason = f": {kernel.get('reason')}" if kernel.get("reason") else ""
    if kernel.get("served_by") == "erofs":
        yield f"the kernel serves it as EROFS{reason}"
    elif kernel.get("requested") != "never":
        yield f"FUSE serves it{reason}"


def _cache(cache: Mapping[str, object]) -> str:
    size, bound = cache.get("size"), cache.get("limit")
    used = f", {format_size(size)}" if isinstance(size, int) else ""
    if isinstance(size, int) and isinstance(bound, int):
        # Content in use, pinned or a minute old is not evicted, and other mounts may have another
        # limit: a size above the limit is not an error.
        above = f" used, above the limit of {format_size(bound)}: content in use is not evicted"
        used += above if size > bound else f" of {format_size(bound)} used"
    return f"cache: {cache.get('directory')}{used}{', offline' if cache.get('offline') else ''}"


def _registry(registry: Mapping[str, object]) -> Iterator[str]:
    # As text: the value of another version may not be hashable.
    reachable = {"True": "reachable", "False": "unreachable"}.get(
        str(registry.get("reachable")), "not contacted yet"
    )
    stale = ", cached names" if registry.get("stale") else ""
    received = format_size(registry.get("bytes_received"))
    rate = format_size(registry.get("bytes_per_second"))
    fetches = registry.get("fetches", 0)
    active = f"{fetches} active fetch{'' if fetches == 1 else 'es'}"
    traffic = f"{received} received, {rate}/s, {active}"
    yield f"{registry.get('host')}: {reachable}{stale}; {traffic}"
    if registry.get("catalog_error"):
        yield f"  cannot list repositories: {registry.get('catalog_error')}"
    fetching = registry.get("fetching")
    for fetch in fetching if isinstance(fetching, list) else []:
        if isinstance(fetch, Mapping):
            yield _transfer(fetch)
    endpoints = registry.get("endpoints")
    for endpoint in endpoints if isinstance(endpoints, list) else []:
        if isinstance(endpoint, Mapping) and endpoint.get("role") == "mirror":
            received = format_size(endpoint.get("bytes_received"))
            yield f"  mirror {endpoint.get('url')}: {endpoint.get('state')}; {received} received"
    failures = registry.get("errors")
    # Once the registry has answered, the recorded errors are history.
    if isinstance(failures, list) and failures and registry.get("reachable") is False:
        last = failures[-1]
        yield f"  {last.get('message') if isinstance(last, Mapping) else last}"


def _transfer(fetch: Mapping[str, object]) -> str:
    start, stop = (
        value if isinstance(value, int) else 0 for value in (fetch.get("start"), fetch.get("stop"))
    )
    # The algorithm and twelve digits, as in the short identifiers of docker and podman.
    blob = f"{fetch.get('repository')}@{str(fetch.get('digest'))[:19]}…"
    progress = f"{format_size(fetch.get('received'))} of {format_size(stop - start)} fetched"
    size = fetch.get("size")
    if isinstance(size, int) and size > stop - start:
        progress += f" (a part of {format_size(size)})"
    return f"  {blob}: {progress}"
