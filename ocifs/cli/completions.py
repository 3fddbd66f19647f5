"""What could stand where a shell asks to complete a source or a path: hosts, repositories, tags,
names in a tree.

Rules that hold here: it takes SECONDS at the most, and what cannot be known by then is not offered;
names that the cache learned within the last minute are offered without asking the registry; nothing
but names is fetched: no layer is looked into.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

import click
import trio
from click.shell_completion import CompletionItem

from ocifs.app import open_tree
from ocifs.cli.config import Config
from ocifs.concurrency import ungrouped
from ocifs.errors import NotFound, OcifsError
from ocifs.fuse.mounts import mounts
from ocifs.oci.local import PREFIXES, is_local
from ocifs.oci.reference import RegistrySource, Source, hosts_of, is_host, parse_source
from ocifs.options import Options, settings_of
from ocifs.registry.auth.files import hosts_in_files
from ocifs.settings import Settings
from ocifs.tree.names import unmangle
from ocifs.tree.node import Directory, Symlink
from ocifs.tree.walk import walk

SECONDS = 1.5
"""For all of one completion: longer, and people press the key again."""
FRESH = 60.0
"""For so long the cache's names are offered without asking."""
_MOST = 2000
# A directory with one of these is a layout, or skopeo's `dir:`: what completes a path.
_WHOLE = ("oci-layout", "manifest.json")
# What is below these is unpacked when it is looked at.
_UNPACKED = frozenset({b"rootfs", b"tree", b"files"})
OPEN = "open"
"""The kind of a candidate that more follows: no space is to be written after it."""


Look: TypeAlias = Callable[[Directory, list[CompletionItem]], Awaitable[None]]


def sources(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """What a source could be that begins so."""
    if is_local(incomplete):
        return _local(ctx, incomplete)
    config = ctx.obj if isinstance(ctx.obj, Config) else Config()
    if "/" not in incomplete:
        named = config.mounts if ctx.info_name == "mount" else ()
        found = [
            *_starting(named, incomplete, "plain"),
            *_starting(sorted(_hosts(config)), incomplete, OPEN),
        ]
        return found or list(_starting(PREFIXES, incomplete, OPEN))
    host, _, rest = incomplete.partition("/")
    if not is_host(host):
        return []
    repository, colon, _ = rest.partition(":")
    return _ask(
        ctx,
        RegistrySource(host),
        lambda root, found: _names(root, f"{host}/", repository + colon, found),
        incomplete,
    )


def paths(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """What a path could be that begins so, in the source that the command line names."""
    text = ctx.params.get("source")
    if not isinstance(text, str):
        return []
    above = incomplete.rpartition("/")[0]
    if _UNPACKED & set(above.encode().split(b"/")):
        return []
    return _ask(ctx, parse_source(text), lambda root, found: _below(root, above, found), incomplete)


def _starting(words: Iterable[str], start: str, kind: str) -> Iterator[CompletionItem]:
    return (CompletionItem(word, type=kind) for word in words if word.startswith(start))


def _hosts(config: Config) -> set[str]:
    """Hosts that this user has to do with, each followed by a slash."""
    known = set(hosts_in_files(os.environ))
    named = [
        str(options["source"].value) for options in config.mounts.values() if "source" in options
    ]
    for text in (*named, *(mount.source for mount in mounts())):
        try:
            source = parse_source(text)
        except OcifsError:
            continue
        known.update(hosts_of(source))
    return {f"{host}/" for host in known if is_host(host)}


def _local(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Paths on this machine and, behind a path and a colon, the names in what is there."""
    scheme = next((prefix for prefix in PREFIXES if incomplete.startswith(prefix)), "")
    text = incomplete.removeprefix(scheme)
    path, colon, _ = text.partition(":")
    if not colon or scheme == "dir:":
        return list(_on_disk(scheme, text))
    try:
        source = parse_source(scheme + path)
    except OcifsError:
        return []
    return _ask(
        ctx, source, lambda root, found: _names_in(root, f"{scheme}{path}:", found), incomplete
    )


def _on_disk(scheme: str, text: str) -> Iterator[CompletionItem]:
    """Directories and, of archives, files that begin so."""
    above, slash, start = text.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(above + slash) or ".") as entries:
            for entry in sorted(entries, key=lambda each: each.name)[:_MOST]:
                if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
                    whole = f"{scheme}{above}{slash}{entry.name}"
                    if entry.is_dir():
                        ends = any(
                            os.path.exists(os.path.join(entry.path, name)) for name in _WHOLE
                        )
                        yield CompletionItem(
                            whole if ends else f"{whole}/", type="plain" if ends else OPEN
                        )
                    elif scheme not in ("oci:", "dir:") and entry.is_file():
                        yield CompletionItem(whole)
    except OSError:
        return


async def _names_in(root: Directory, before: str, found: list[CompletionItem]) -> None:
    """The names of the images of a local source."""
    with contextlib.suppress(NotFound):
        directory = await walk(root, b"_tags")
        if isinstance(directory, Directory):
            found += [
                CompletionItem(before + unmangle(entry.name).decode())
                for entry in await directory.entries()
            ]


def _ask(ctx: click.Context, source: Source, look: Look, incomplete: str) -> list[CompletionItem]:
    """Candidates from a tree: as the cache learned within the last minute, else as the registry
    says, else as the cache last knew.
    """
    settings = _settings(ctx, *hosts_of(source))
    offline = replace(settings, cache=replace(settings.cache, offline=True))
    fresh = replace(settings, cache=replace(settings.cache, believe_names=FRESH))
    found: list[CompletionItem] = []
    for each in (fresh, offline):
        found = []
        if _in_time(source, each, lambda root: look(root, found)) and found:  # noqa: B023 (called before the next turn)
            break
    return [item for item in found if item.value.startswith(incomplete)][:_MOST]


def _in_time(
    source: Source, settings: Settings, look: Callable[[Directory], Awaitable[None]]
) -> bool:
    """Whether a look went to its end."""
    ended = False

    async def run() -> None:
        nonlocal ended
        with trio.move_on_after(SECONDS):
            async with open_tree(source, settings) as root:
                await look(root)
                ended = True

    try:
        with ungrouped():
            trio.run(run)
    except (OcifsError, OSError, ExceptionGroup):
        return False  # nobody waits for an explanation in the middle of a line
    return ended


def _settings(ctx: click.Context, *hosts: str) -> Settings:
    """The settings for one completion: those of the command line, with short deadlines."""
    values = {name: ctx.params[name] for name in Options.__annotations__ if ctx.params.get(name)}
    values |= {"verify": "end", "timeout": SECONDS, "max_wait": SECONDS, "tag_ttl": FRESH}
    settings = settings_of(hosts, values)
    timing = replace(
        settings.timing, connect_timeout=SECONDS, stall_timeout=SECONDS, helper_timeout=SECONDS
    )
    return replace(settings, timing=timing, limits=replace(settings.limits, retries=1))


async def _names(root: Directory, host: str, text: str, found: list[CompletionItem]) -> None:
    """Below a host: the components that are listed after `text`'s last slash, and the tags of a
    repository that is named in full.
    """
    above, named = text.rpartition("/")[0], text.rstrip(":")
    if named == text:
        prefix = f"{host}{above}/" if above else host
        with contextlib.suppress(NotFound):
            directory = await walk(root, above.encode())
            if isinstance(directory, Directory):
                listed = [
                    entry.name.decode()
                    for entry in await directory.entries()
                    if entry.name[:1] not in b"_."
                ]
                found += [CompletionItem(prefix + name, type=OPEN) for name in listed]
        if host + named not in [item.value for item in found]:
            return
    with contextlib.suppress(NotFound):
        directory = await walk(root, f"{named}/_tags".encode())
        if isinstance(directory, Directory):
            names = [unmangle(entry.name).decode() for entry in await directory.entries()]
            found += [CompletionItem(f"{host}{named}:{name}") for name in names]


async def _below(root: Directory, above: str, found: list[CompletionItem]) -> None:
    """The names in one directory of a tree."""
    directory = await walk(root, os.fsencode(above))
    if not isinstance(directory, Directory):
        return
    for entry in (await directory.entries())[:_MOST]:
        name = os.fsdecode(entry.name)
        goes_on = isinstance(entry.node, Directory) or (
            isinstance(entry.node, Symlink) and _leads_below(entry.node)
        )
        whole = f"{above}/{name}" if above else name
        found.append(
            CompletionItem(f"{whole}/" if goes_on else whole, type=OPEN if goes_on else "plain")
        )


def _leads_below(link: Symlink) -> bool:
    """Whether a link is to a directory, as far as its text tells."""
    last = link.target.rpartition(b"/")[2]
    return (
        b"_manifests/" in link.target
        or last.startswith(b"sha256:")
        or last in (b"layers", b"rootfs", b"files")
    )
