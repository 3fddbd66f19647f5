"""The options that `ocifs mount` has in addition to those of sources (declared.py)."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from ocifs.errors import UsageError
from ocifs.options.declaration import AnyPath, Count, Flag, NewFile, Option, Text
from ocifs.options.declared import Options


def _id_number(value: object, _: frozenset[str]) -> int | None:
    """A user or group ID. The highest one means "none" (chown(2))."""
    if value is None:
        return None
    text = str(value)
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= 2**32 - 1:
        raise UsageError(f"not a user or group ID: {text}", hint="use a number: `id -u NAME`")
    return int(text)


def _octal_mode(value: object, _: frozenset[str]) -> int | None:
    """Permission bits, in octal."""
    if value is None:
        return None
    text = str(value)
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise UsageError(f"not a umask: {text}", hint="use octal digits, such as 022 or 077")
    return int(text, 8)


def _overlay(value: object, _: frozenset[str]) -> str | None:
    """`tmpfs`, or an absolute path."""
    text = str(value or "")
    return text if text in ("", "tmpfs") else os.path.abspath(text)


class MountOptions(Options, total=False):
    """Options of `ocifs mount`, including those about its source."""

    any: Annotated[
        Flag,
        Option(
            help="Mount every registry: MOUNTPOINT/HOST/REPOSITORY.",
            doc="any host can be looked up: `MOUNTPOINT/ghcr.io/homebrew/core/jq`",
            everywhere=False,
        ),
    ]
    foreground: Annotated[
        Flag,
        Option(
            help="Stay in the foreground; Ctrl-C unmounts.",
            short="-f",
            setting="flags.foreground",
        ),
    ]
    allow_other: Annotated[
        Flag,
        Option(
            help="Allow access by other users (needs user_allow_other in /etc/fuse.conf, or root).",
            doc="allow access by other users; needs `user_allow_other` in `/etc/fuse.conf`, or"
            " root",
            setting="flags.allow_other",
        ),
    ]
    auto_unmount: Annotated[
        Flag,
        Option(
            help="Unmount when the daemon dies.",
            doc="unmount when the daemon dies, by a helper process of FUSE; without it, a dead"
            " mount returns ENOTCONN ([0067](../decisions/0067-dead-mounts.md))",
            setting="flags.auto_unmount",
        ),
    ]
    noexec: Annotated[
        Flag,
        Option(help="Do not allow programs to be executed from the mount.", setting="flags.noexec"),
    ]
    nosymfollow: Annotated[
        Flag,
        Option(
            help="Do not follow symbolic links in the mount, including those of tags.",
            doc="the kernel does not follow symbolic links in the mount, including those of tags;"
            " needs root, or libfuse 3.17.1",
            setting="flags.nosymfollow",
        ),
    ]
    no_xattrs: Annotated[
        Flag,
        Option(help="Hide extended attributes, which speeds up cp -a.", setting="flags.no_xattrs"),
    ]
    uid: Annotated[
        Text,
        Option(
            help="Owner of all files, as a number.",
            doc="owner of all files, as a number; with `--owner keep`, of files without an owner",
            default_text="the mounting user",
            metavar="NUMBER",
            setting="flags.uid",
            convert=_id_number,
        ),
    ]
    gid: Annotated[
        Text,
        Option(
            help="Group of all files, as a number.",
            doc="group of all files, as a number; with `--owner keep`, of files without a group",
            default_text="the mounting user's",
            metavar="NUMBER",
            setting="flags.gid",
            convert=_id_number,
        ),
    ]
    umask: Annotated[
        Text,
        Option(
            help="Permissions to remove from all files, in octal: 077.",
            doc="permissions to remove from all files and directories, in octal: `077`",
            metavar="MODE",
            setting="flags.umask",
            convert=_octal_mode,
        ),
    ]
    fsname: Annotated[
        Text,
        Option(
            help="Source in the mount table.",
            doc="source in the mount table; the default is the source in normal form",
            default_text="the source in normal form",
            metavar="NAME",
            setting="flags.fsname",
        ),
    ]
    log_file: Annotated[
        NewFile,
        Option(
            help="File to which the daemon appends its log.",
            doc="append the daemon's log to this file, which is created with mode 0600. A link, a"
            " FIFO or a file of another user is rejected. Without this option a daemon's log is"
            " discarded",
        ),
    ]
    log_format: Annotated[
        Literal["text", "json", "journald"],
        Option(
            help="Log format; text becomes journald if stderr is connected to the journal.",
            doc="log format: text, one JSON object per line, or lines for systemd's journal",
            default="text",
        ),
    ]
    view: Annotated[
        Literal["manifest", "rootfs", "files"],
        Option(
            help="Root of a mount of one reference: the manifest's directory, the root filesystem,"
            " or the payload.",
            doc="root of a mount of one reference: the manifest's directory, the root filesystem or"
            " the payload. The last two do not list `.ocifs`, but it exists",
            default="manifest",
            setting="view.view",
        ),
    ]
    kernel: Annotated[
        Literal["auto", "always", "never"],
        Option(
            help="Let the kernel serve a root filesystem as EROFS: auto if it can, else by FUSE.",
            doc="let the kernel serve `--view rootfs` as EROFS, which needs root: `auto` if it can,"
            " else FUSE serves it; `always` fails with the reason"
            " ([kernel-speed root filesystems](../how-to/kernel-speed-root-filesystems.md))",
            default="never",
            setting="flags.kernel",
        ),
    ]
    overlay: Annotated[
        Text,
        Option(
            help="Make the root filesystem writable: changes go to directory UPPER, or to a tmpfs.",
            doc="make the root filesystem writable by overlayfs: changes go to the directory UPPER,"
            " or to a `tmpfs` that ends with the mount; implies `--kernel always`",
            metavar="UPPER|tmpfs",
            setting="flags.overlay",
            convert=_overlay,
        ),
    ]
    overlay_work: Annotated[
        AnyPath,
        Option(
            help="Work directory of overlayfs, on the file system of UPPER.",
            default_text="UPPER.work",
            setting="flags.overlay_work",
        ),
    ]
    prefetch: Annotated[
        Flag,
        Option(
            help="Fetch the whole root filesystem first; the mount then needs no daemon.",
            doc="fetch the whole root filesystem into the cache first; the mount then needs neither"
            " a daemon nor the network; implies `--kernel always`",
            setting="flags.prefetch",
        ),
    ]
    metrics: Annotated[
        Text,
        Option(
            help="Serve Prometheus metrics at [HOST:]PORT, by default on loopback.",
            doc="serve [metrics](metrics.md) for Prometheus at `HOST:PORT`, or at a PORT of"
            " loopback",
            metavar="ADDRESS",
        ),
    ]
    verbose: Annotated[
        Count,
        Option(
            help="Log requests to registries; twice: also log each operation.",
            doc="log each request to the registry: method, host, path, range, status and seconds."
            " Twice: also log each operation of the kernel",
            short="-v",
        ),
    ]
