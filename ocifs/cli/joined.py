"""Local sources and the paths in them, written as one word: `./image.tar/rootfs/etc/passwd`.

Blocks on disk. Called by `sources.py`, in the main thread and without an event loop.

- A path that exists is the source. Otherwise its longest part that is an archive or a layout is the
  source, and the rest is the path in it.
- The name of an image in a layout may contain slashes: it is the longest one that the layout has.
- A word that cannot be split is left as it is, so that opening it raises the error.
- The disk is read in worker threads, with the deadlines of the command: a file system may hang.
"""

from __future__ import annotations

import os
import re

from ocifs.app import open_tree, run_to_end
from ocifs.concurrency import deadline, in_thread
from ocifs.errors import DeadlineExceeded, OcifsError
from ocifs.filenames import mangle, to_bytes
from ocifs.oci.local import PREFIXES, LayoutSource, is_path, parse_local
from ocifs.options import Options, settings_of
from ocifs.settings import Settings
from ocifs.tree.walk import walk

_DIGEST = re.compile(r"@(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})(?=/|$)")
_INDEX = re.compile(r":@[0-9]{1,6}(?=/)")
# The files that make a directory a layout, or a directory of skopeo.
_MARKERS = ("oci-layout", "index.json", "manifest.json")
# A longer path in a layout has to be written after a space.
_MAX_NAMES = 100


def split_local(text: str, options: Options) -> tuple[str, str]:
    """The source, and the path in it. The path is empty if the word names only a source.

    Raises DeadlineExceeded, and UsageError for invalid options.
    """
    prefix = next((prefix for prefix in PREFIXES if text.startswith(prefix)), "")
    if not prefix and not is_path(text):
        # The transport of another tool, which is an error of the source.
        return text, ""
    body = text.removeprefix(prefix)
    versioned = _DIGEST.search(body) or _INDEX.search(body)
    if versioned and prefix != "dir:":
        return prefix + body[: versioned.end()], body[versioned.end() :].strip("/")
    path, colon, name = body.partition(":")
    if not colon or prefix == "dir:":
        source, rest = _split_path(body, options)
        return prefix + source, rest
    if "/" not in name:
        return text, ""
    known = _longest_name(f"{prefix}{path}", name, options)
    return f"{prefix}{path}:{known}", name[len(known) :].strip("/")


def _split_path(path: str, options: Options) -> tuple[str, str]:
    """The part of a path that is a source, and the rest."""
    found = path, ""

    async def look() -> None:
        nonlocal found
        timing = settings_of((), options).timing
        with deadline(timing.timeout, timing.max_wait):
            found = await in_thread(_parts_of, path, abandon_on_cancel=True)

    run_to_end(look)
    return found


def _parts_of(path: str) -> tuple[str, str]:
    """`_split_path` in a worker thread."""
    if os.path.isfile(path) and _is_layout(os.path.dirname(path)):
        # `dir:DIR/manifest.json`
        return os.path.dirname(path), os.path.basename(path)
    if os.path.lexists(path):
        return path, ""
    source = path.rstrip("/")
    while "/" in source:
        source = source.rpartition("/")[0]
        if os.path.isfile(source) or _is_layout(source):
            return source, path[len(source) :].strip("/")
        if os.path.lexists(source):
            break
    return path, ""


def _is_layout(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name)) for name in _MARKERS)


def _longest_name(whole: str, text: str, options: Options) -> str:
    """The longest part of a text, up to a slash, that names an image; the text if there is none."""
    parts = text.split("/")[:_MAX_NAMES]
    found = text

    async def look() -> None:
        source = parse_local(whole)
        assert isinstance(source, LayoutSource)
        settings = settings_of((), options)
        timing = settings.timing
        with deadline(timing.timeout, timing.max_wait):
            await find(source, settings)

    async def find(source: LayoutSource, settings: Settings) -> None:
        nonlocal found
        async with open_tree(source, settings) as root:
            for count in range(len(parts), 0, -1):
                name = "/".join(parts[:count])
                try:
                    await walk(root, b"_tags/" + mangle(to_bytes(name)))
                except OcifsError:
                    continue
                found = name
                return

    try:
        run_to_end(look)
    except DeadlineExceeded:
        raise
    except OcifsError:
        return text
    return found
