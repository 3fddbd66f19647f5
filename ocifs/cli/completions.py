"""Candidates for completing a source or a path: hosts, repositories, tags, names in a tree.

Called by `param_types` in the process that answers a shell, in the main thread.

- It takes at most SECONDS for each attempt. Candidates that are not known by then are not offered.
- Names that were cached within the last minute are offered without a request. Otherwise the
  registry is requested, and after that the last known names are offered.
- Only names are fetched: layers are never unpacked.
- Errors give no candidates and no message, because the user is in the middle of a line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

import click
from click.shell_completion import CompletionItem

from ocifs.cli.completion import CacheableItem
from ocifs.cli.config import Config, load, options_of_mount
from ocifs.cli.sources import split_word
from ocifs.errors import NotFound, OcifsError
from ocifs.filenames import unmangle
from ocifs.fuse.mounts import mounts
from ocifs.oci.local import PREFIXES, is_local
from ocifs.oci.reference import RegistrySource, Source, hosts_of, is_host, parse_source
from ocifs.options import Options, settings_of
from ocifs.registry.auth.files import hosts_in_files
from ocifs.settings import Settings
from ocifs.tree.node import Directory, Node, Symlink, is_directory
from ocifs.tree.walk import walk

SECONDS = 1.5  # the deadline of an attempt: after more, people press the key again
FRESH = 60.0  # the age up to which cached names are offered without a request
_MAX_CANDIDATES = 2000
# For more names than this, it is not determined which of them are namespaces.
_FEW = 200
# A directory that contains one of these is a layout or a skopeo `dir:`, which completes a path.
_LAYOUT_FILES = ("oci-layout", "manifest.json")
_UNPACKED = frozenset({b"rootfs", b"tree", b"files"})  # listing one of these would unpack layers
OPEN = "open"
"""The type of a candidate that continues: the shell must not add a space."""

Collect: TypeAlias = Callable[[Directory, list[CompletionItem]], Awaitable[None]]
"""Adds candidates from the root of a tree."""


def sources(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Candidates for a source. After a source of `ocifs mount`, also directories."""
    typed = ctx.params.get("mountpoint") is not None
    if ctx.info_name == "mount" and typed:
        directories = [CompletionItem(incomplete, type="dir")]
        # Several sources are rare, so the hosts are offered only when one has been begun.
        is_path = not incomplete or is_local(incomplete)
        return directories if is_path else directories + _sources(ctx, incomplete)
    return _sources(ctx, incomplete)


def _sources(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    if is_local(incomplete):
        return _local(ctx, incomplete)
    config = ctx.obj if isinstance(ctx.obj, Config) else Config()
    if "/" not in incomplete:
        named = config.mounts if ctx.info_name == "mount" else ()
        hosts = sorted(_hosts(config))
        if not any(word.startswith(incomplete) for word in (*named, *hosts)):
            return list(_starting(PREFIXES, incomplete, OPEN))
        return [*map(CacheableItem, named), *(CacheableItem(host, OPEN) for host in hosts)]
    host, _, path = incomplete.partition("/")
    if not is_host(host):
        return []
    repository, colon, _ = path.partition(":")

    async def collect(root: Directory, candidates: list[CompletionItem]) -> None:
        await _repositories_and_tags(root, f"{host}/", repository + colon, candidates)

    return _candidates(ctx, RegistrySource(host), collect, incomplete)


def joined(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Candidates for a source, or for a path that follows it in the same word."""
    source, path = _split(incomplete)
    if len(source) == len(incomplete):
        return sources(ctx, incomplete)
    return _paths(ctx, source, f"{source}/", path)


def paths(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Candidates for a path in the source on the command line."""
    text = ctx.params.get("source")
    if not isinstance(text, str):
        return []
    source, inner = _split(text)
    found = _paths(ctx, source, "", f"{inner}/{incomplete}" if inner else incomplete)
    for item in found:
        item.value = item.value.removeprefix(f"{inner}/") if inner else item.value
    return found


def _split(word: str) -> tuple[str, str]:
    """The source and the path in it, of a word that is not complete. Never raises."""
    try:
        source, path = split_word(word, {})
        # The beginning of a source is not one yet, and has no path.
        parse_source(source)
    except OcifsError:
        return word, ""
    return source, path


def _paths(ctx: click.Context, text: str, prefix: str, path: str) -> list[CompletionItem]:
    """Candidates for a path in a source, each after a prefix."""
    parent, _, name = path.rpartition("/")
    repository, colon, _ = name.partition(":")

    async def collect(root: Directory, candidates: list[CompletionItem]) -> None:
        if colon:
            await _tags_of(root, f"{parent}/{repository}".strip("/"), candidates)
        else:
            await _names_below(root, parent, candidates)
        for item in candidates:
            item.value = prefix + item.value

    # Layers are not unpacked for a candidate, but an index that is cached is used.
    cached = bool(_UNPACKED & set(parent.encode().split(b"/")))
    return _candidates(ctx, parse_source(text), collect, prefix + path, cached=cached)


def mounted(incomplete: str) -> list[CompletionItem]:
    """Candidates for a mount: mount points, and names of mounts that are mounted."""
    points = [str(mount.mountpoint) for mount in mounts()]
    try:
        named = load(options_of_mount).mounts
    except OcifsError:
        named = {}
    names = [
        name
        for name, options in named.items()
        if "mountpoint" in options and str(options["mountpoint"].value) in points
    ]
    return [*_starting(names, incomplete, "plain"), *_starting(points, incomplete, "plain")]


def _starting(words: Iterable[str], start: str, kind: str) -> Iterator[CompletionItem]:
    return (CompletionItem(word, type=kind) for word in words if word.startswith(start))


def _hosts(config: Config) -> set[str]:
    """Hosts from credentials, the configuration file and mounts, each followed by a slash."""
    hosts = set(hosts_in_files(os.environ))
    named = [
        str(options["source"].value) for options in config.mounts.values() if "source" in options
    ]
    for text in (*named, *(mount.source for mount in mounts())):
        try:
            source = parse_source(text)
        except OcifsError:
            continue
        hosts.update(hosts_of(source))
    return {f"{host}/" for host in hosts if is_host(host)}


def _local(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Paths on this machine and, after a path and a colon, the names of its images."""
    scheme = next((prefix for prefix in PREFIXES if incomplete.startswith(prefix)), "")
    text = incomplete.removeprefix(scheme)
    path, colon, _ = text.partition(":")
    # A skopeo `dir:` has one image without a name, and colons in its path.
    if not colon or scheme == "dir:":
        return list(_files(scheme, text))
    try:
        source = parse_source(scheme + path)
    except OcifsError:
        return []

    async def collect(root: Directory, candidates: list[CompletionItem]) -> None:
        await _image_names(root, f"{scheme}{path}:", candidates)

    return _candidates(ctx, source, collect, incomplete)


def _files(scheme: str, text: str) -> Iterator[CompletionItem]:
    """Directories and, if the scheme is for archives, files."""
    parent, slash, start = text.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(parent + slash) or ".") as entries:
            for entry in sorted(entries, key=lambda entry: entry.name)[:_MAX_CANDIDATES]:
                # As in shells, hidden files are candidates only after a dot was typed.
                if not entry.name.startswith(start) or (not start and entry.name.startswith(".")):
                    continue
                word = f"{scheme}{parent}{slash}{entry.name}"
                if entry.is_dir():
                    names = (os.path.join(entry.path, name) for name in _LAYOUT_FILES)
                    complete = any(map(os.path.exists, names))
                    yield CompletionItem(
                        word if complete else f"{word}/", type="plain" if complete else OPEN
                    )
                elif scheme not in ("oci:", "dir:") and entry.is_file():
                    yield CompletionItem(word)
    except OSError:
        return


async def _image_names(root: Directory, prefix: str, candidates: list[CompletionItem]) -> None:
    """The names of the images of a local source."""
    with contextlib.suppress(NotFound):
        directory = await walk(root, b"_tags")
        if isinstance(directory, Directory):
            candidates += [
                CompletionItem(prefix + unmangle(entry.name).decode())
                for entry in await directory.entries()
            ]


def _candidates(
    ctx: click.Context, source: Source, collect: Collect, incomplete: str, *, cached: bool = False
) -> list[CompletionItem]:
    """Candidates from a tree: fresh cached names, else the registry's, else older cached names.

    With `cached`, only from the cache. Fresh names of a registry are all `CacheableItem`s.
    """
    settings = _settings(ctx, *hosts_of(source))
    offline = replace(settings, cache=replace(settings.cache, offline=True))
    fresh = replace(settings, cache=replace(settings.cache, believe_names=FRESH))
    candidates: list[CompletionItem] = []
    for attempt in (offline,) if cached else (fresh, offline):
        candidates = []
        if _collected_in_time(source, attempt, collect, candidates) and candidates:
            if hosts_of(source) and (cached or attempt is fresh):
                return [CacheableItem(item.value, item.type) for item in candidates]
            break
    return [item for item in candidates if item.value.startswith(incomplete)][:_MAX_CANDIDATES]


def _collected_in_time(
    source: Source, settings: Settings, collect: Collect, candidates: list[CompletionItem]
) -> bool:
    """Run `collect` on a tree; whether it ended before the deadline and without an error."""
    ended = False
    import trio  # not above: commands, options and hosts are completed without an event loop

    from ocifs.app import open_tree
    from ocifs.concurrency import ungrouped

    async def run() -> None:
        nonlocal ended
        with trio.move_on_after(SECONDS):
            async with open_tree(source, settings) as root:
                await collect(root, candidates)
                ended = True

    try:
        with ungrouped():
            trio.run(run)
    except (OcifsError, OSError, ExceptionGroup):
        return False
    return ended


def _settings(ctx: click.Context, *hosts: str) -> Settings:
    """The settings for one completion: those of the command line, with short deadlines."""
    values = {name: ctx.params[name] for name in Options.__annotations__ if ctx.params.get(name)}
    values |= {"verify": "end", "timeout": SECONDS, "max_wait": SECONDS, "tag_ttl": FRESH}
    settings = settings_of(hosts, values)
    timing = replace(
        settings.timing, connect_timeout=SECONDS, stall_timeout=SECONDS, helper_timeout=SECONDS
    )
    # A second attempt would end after the deadline of the completion.
    return replace(settings, timing=timing, limits=replace(settings.limits, retries=1))


async def _repositories_and_tags(
    root: Directory, host: str, text: str, candidates: list[CompletionItem]
) -> None:
    """The components after the last slash of `text`, and the tags of a complete repository."""
    parent, repository = text.rpartition("/")[0], text.rstrip(":")
    if repository == text:
        prefix = f"{host}{parent}/" if parent else host
        with contextlib.suppress(NotFound):
            directory = await walk(root, parent.encode())
            if isinstance(directory, Directory):
                # A component of a repository never begins with `_` or `.` (distribution-spec).
                # Such names, like `_tags`, are those of ocifs.
                entries = await directory.entries()
                names = [entry for entry in entries if entry.name[:1] not in b"_."]
                for entry in names:
                    word = prefix + entry.name.decode()
                    few = len(names) < _FEW
                    kinds = await _kinds_of_name(entry.node) if few else (True, False)
                    # A repository continues with a colon, a namespace with a slash.
                    endings = [
                        end for end, is_kind in zip(("", "/"), kinds, strict=True) if is_kind
                    ]
                    candidates += [CompletionItem(word + end, type=OPEN) for end in endings]
        # A name that is not listed is still being typed. A request for its tags would fail.
        if host + repository not in [item.value for item in candidates]:
            return
    tags: list[CompletionItem] = []
    await _tags_of(root, repository, tags)
    candidates += [CompletionItem(host + item.value) for item in tags]


async def _kinds_of_name(node: Node) -> tuple[bool, bool]:
    """Whether a name of the catalog is a repository, and whether it is a namespace."""
    names = []
    with contextlib.suppress(OcifsError):
        # The catalog has listed it, so this needs no request.
        names = [entry.name for entry in await node.entries()] if is_directory(node) else []
    is_namespace = any(name[:1] not in b"_." for name in names)
    return b"_tags" in names or not is_namespace, is_namespace


async def _tags_of(root: Directory, repository: str, candidates: list[CompletionItem]) -> None:
    """The references to the tags of a repository."""
    with contextlib.suppress(NotFound):
        directory = await walk(root, f"{repository}/_tags".encode())
        if isinstance(directory, Directory):
            names = [os.fsdecode(unmangle(entry.name)) for entry in await directory.entries()]
            candidates += [CompletionItem(f"{repository}:{name}") for name in names]


async def _names_below(root: Directory, parent: str, candidates: list[CompletionItem]) -> None:
    """The names in one directory of a tree."""
    directory = await walk(root, os.fsencode(parent))
    if not isinstance(directory, Directory):
        return
    for entry in (await directory.entries())[:_MAX_CANDIDATES]:
        name = os.fsdecode(entry.name)
        continues = isinstance(entry.node, Directory) or (
            isinstance(entry.node, Symlink) and _is_directory_link(entry.node)
        )
        word = f"{parent}/{name}" if parent else name
        candidates.append(
            CompletionItem(f"{word}/" if continues else word, type=OPEN if continues else "plain")
        )


def _is_directory_link(link: Symlink) -> bool:
    """Whether a link leads to a directory, judging from its target alone."""
    # Following the links of a long tag list would take a request for each of them.
    name = link.target.rpartition(b"/")[2]
    return (
        b"_manifests/" in link.target
        or name.startswith(b"sha256:")
        or name in (b"layers", b"rootfs", b"files")
    )
