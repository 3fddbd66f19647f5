"""`mount.ocifs`: the program that mount(8) runs for `mount -t ocifs` and for lines of fstab(5).

    mount.ocifs SOURCE[,SOURCE…] MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,…]

Runs as a separate process, usually as root, and starts no thread.

- Options are those of `ocifs mount`, with `-` or `_`.
- noexec and nosymfollow reach the kernel, also when `user` or `users` implies noexec. Options that
  mount(8) and systemd use themselves, and those that change nothing for a read-only mount, are
  ignored. Any other option is an error, except with -s.
- The source in the mount table is the first field as it is written, so that a second `mount -a`
  finds the mount and skips it.
- Exit statuses are those of mount(8): 1 for invalid usage, 32 for a failed mount.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from ocifs.cli import main as program
from ocifs.cli.mount import command as mount
from ocifs.cli.terminal import write
from ocifs.errors import InvalidReference, UsageError
from ocifs.fuse.mounts import mounts, resolve_mount_point, restrict
from ocifs.oci.local import is_local
from ocifs.oci.reference import parse_source
from ocifs.programs import exclude_current_directory

# fstab(5), mount(8) "FILESYSTEM-INDEPENDENT MOUNT OPTIONS". A mount of ocifs is read-only, nosuid
# and nodev, and has no access times or locks, whichever of these are given.
_MOUNT_OPTIONS = """
    defaults rw ro auto noauto nouser owner group nofail _netdev suid nosuid dev nodev sync async
    dirsync mand nomand atime noatime diratime nodiratime relatime norelatime strictatime
    nostrictatime lazytime nolazytime silent loud iversion noiversion
"""
IGNORED = frozenset(_MOUNT_OPTIONS.split())
# The kernel's own options of a mounted FUSE file system, which mount(8) adds to those of a remount.
_FUSE_OPTIONS = (
    "user_id=",
    "group_id=",
    "rootmode=",
    "max_read=",
    "blksize=",
    "default_permissions",
)
# `uhelper` and `helper` are for umount(8).
PREFIXES = ("x-", "X-", "comment=", "uhelper=", "helper=")
# The flag and value that an option means. The last of several options decides.
FLAGS = {
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "user": ("noexec", True),  # also `user=NAME`, which mount(8) passes on
    "users": ("noexec", True),
    "nosymfollow": ("nosymfollow", True),
    "symfollow": ("nosymfollow", False),
}
INVALID_USAGE, FAILED = 1, 32  # mount(8) "EXIT STATUS"


def main() -> None:
    """Mount with the arguments of mount(8)."""
    exclude_current_directory()
    parser = argparse.ArgumentParser(prog="mount.ocifs", exit_on_error=False)
    parser.add_argument("source")
    parser.add_argument("mountpoint")
    parser.add_argument("-o", dest="options", action="append", default=[])
    parser.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    parser.add_argument(
        "-f", dest="fake", action="store_true", help="check the arguments, but do not mount"
    )
    parser.add_argument("-v", dest="verbose", action="store_true")
    # mount(8) "EXTERNAL HELPERS": every helper must accept these. ocifs needs none of them.
    parser.add_argument("-n", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-N", help=argparse.SUPPRESS)
    parser.add_argument("-t", help=argparse.SUPPRESS)
    try:
        arguments = parser.parse_intermixed_args()
        options = ",".join(arguments.options)
        words = translate(options, arguments.sloppy)
        command = [*words, "--", *sources(arguments.source), arguments.mountpoint]
        check(command, arguments.source)
    except (argparse.ArgumentError, ValueError, UsageError, InvalidReference) as error:
        write(f"mount.ocifs: {error}", err=True)
        sys.exit(INVALID_USAGE)
    except SystemExit as end:
        # argparse ends with 2 for invalid usage, which is a system error in mount(8).
        sys.exit(INVALID_USAGE if end.code else 0)
    if "remount" in options.split(","):
        sys.exit(0 if arguments.fake else remount(arguments.mountpoint, options))
    if not any(word.startswith("--fsname=") for word in words):
        # The source as fstab spells it: mount(8) skips sources that the mount table contains.
        command.insert(0, f"--fsname={arguments.source}")
    command = ["ocifs", "mount", *command]
    if arguments.verbose:
        write(shlex.join(command))
    if arguments.fake:
        return
    sys.exit(FAILED if _run(command) else 0)


def check(words: list[str], source: str) -> None:
    """Raise for invalid usage, which has another exit status than a failed mount."""
    try:
        mount.make_context("mount", list(words))
    except click.ClickException as error:
        raise ValueError(error.format_message()) from None
    if not sources(source) and "--any" not in words:
        raise ValueError(f"invalid source: {source}; `none` needs the option `any`")
    for text in sources(source):
        parse_source(text)


def remount(mountpoint: str, options: str) -> int:
    """Change the flags of a mount, and nothing else. Returns the exit status."""
    path = resolve_mount_point(Path(mountpoint))
    if path not in {mount.mountpoint for mount in mounts()}:
        write(f"mount.ocifs: not mounted: {path}", err=True)
        return FAILED
    try:
        restrict(path, [name for name, on in flags(options).items() if on])
    except UsageError as error:
        write(f"mount.ocifs: {error}", err=True)
        return FAILED
    return 0


def _run(command: Sequence[str]) -> int:
    """Run a command of ocifs in a child process, and return its exit status.

    The child is a fork, because a new interpreter would search the current directory for modules.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _become(command)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except KeyboardInterrupt:
        # The child receives the signal as well.
        return FAILED


def _become(command: Sequence[str]) -> NoReturn:
    """Run a command in this process, and exit with its status."""
    sys.argv[:] = command
    status = FAILED
    try:
        program.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not by an exception, which would continue in the code of the parent.
        os._exit(status)


def sources(text: str) -> list[str]:
    """The sources in the first field of fstab(5): separated by commas, or `none` for `-o any`."""
    if is_local(text):
        # A path may contain commas.
        return [text]
    return [source for source in text.split(",") if source not in ("", "none")]


def translate(options: str, sloppy: bool = False) -> list[str]:
    """The words of `ocifs mount` for options of mount(8).

    Raises ValueError for an unknown option.
    """
    known = {
        param.name: param
        for param in mount.params
        if isinstance(param, click.Option) and param.name
    }
    words = [f"--{name}" for name, on in flags(options).items() if on]
    listed = options.split(",")
    foreign = (*PREFIXES, *(("remount", *_FUSE_OPTIONS) if "remount" in listed else ()))
    for option in listed:
        key, equals, value = option.partition("=")
        if not option or option in IGNORED or option.startswith(foreign):
            continue
        if option in FLAGS or key == "user":
            continue
        parameter = known.get(key.replace("-", "_"))
        # In the foreground, mount(8) would wait for its helper until the mount ends.
        if parameter is None or parameter.name == "foreground":
            if sloppy:
                continue
            close = difflib.get_close_matches(key.replace("-", "_"), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"unknown option: {key}{hint}")
        name = f"--{(parameter.name or '').replace('_', '-')}"
        switch = parameter.is_flag or parameter.count
        if switch == bool(equals):
            raise ValueError(f"{key} {'takes no value' if switch else 'needs a value'}")
        words.append(name if switch else f"{name}={value}")
    return words


def flags(options: str) -> dict[str, bool]:
    """The values of the flags noexec and nosymfollow that options set."""
    values: dict[str, bool] = {}
    for option in options.split(","):
        key = "user" if option.startswith("user=") else option
        if key in FLAGS:
            name, on = FLAGS[key]
            values[name] = on
    return values


if __name__ == "__main__":
    main()
