"""Answers to mistyped arguments of `ocifs mount`, such as swapped ones.

Called by `mount.py` in the foreground process, before anything is mounted. Blocks on disk: it looks
whether words are directories.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ocifs.cli.config import files
from ocifs.cli.errors import nearest
from ocifs.cli.sources import is_plain_http
from ocifs.errors import UsageError
from ocifs.oci.joined import split_joined
from ocifs.oci.local import PREFIXES, is_local
from ocifs.oci.reference import is_registry_name, scheme_length

USAGE = "ocifs mount SOURCE MOUNTPOINT"


def one_argument(word: str, named: Mapping[str, object]) -> UsageError:
    """The error for `ocifs mount WORD`, if WORD is not one of the `named` mounts."""
    if Path(word).is_dir():
        return UsageError(f"missing argument SOURCE: {word} is a directory", hint=USAGE)
    # With one of these, the word is a host or reference rather than the name of a mount.
    if any(character in word for character in ".:/"):
        return UsageError(f"missing argument MOUNTPOINT for {word}", hint=USAGE)
    looked_in = ", ".join(map(str, files()))
    hint = nearest(word, named) or f"looked for [mounts.{word}] in {looked_in}; or: {USAGE}"
    return UsageError(f"unknown mount: {word}", hint=hint)


def check_words(sources: Sequence[str], mountpoint: str) -> None:
    """Raise UsageError for swapped arguments, and for a path within an image."""
    if len(sources) == 1 and _are_swapped(sources[0], mountpoint):
        fixed = shlex.join(["ocifs", "mount", mountpoint, sources[0]])
        raise UsageError(f"the source is missing: {sources[0]} is a directory", hint=fixed)
    for word in sources:
        source, path = ("", "") if is_local(word) else split_joined(word)
        if path and path.strip("/") in ("rootfs", "files"):
            fixed = shlex.join(["ocifs", "mount", "--view", path.strip("/"), source, mountpoint])
            raise UsageError(f"cannot mount a path of an image: {word}", hint=fixed)
        if path:
            fixed = shlex.join(["ocifs", "mount", source, mountpoint])
            raise UsageError(f"cannot mount a path of a source: {word}", hint=f"mount all: {fixed}")


def _are_swapped(source: str, mountpoint: str) -> bool:
    """Whether a directory comes first and a source last."""
    if os.path.isdir(mountpoint) or mountpoint.startswith(("/", "./", "../")):
        # A path is a source if it is an archive.
        is_source = os.path.isfile(mountpoint)
    else:
        first = mountpoint[scheme_length(mountpoint) :].partition("/")[0]
        is_source = (
            is_registry_name(first)
            or is_plain_http(mountpoint)
            or scheme_length(mountpoint) > 0
            or mountpoint.startswith(PREFIXES)
        )
    return is_source and os.path.isdir(source)
