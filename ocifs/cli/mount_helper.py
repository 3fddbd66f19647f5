"""`mount.ocifs`: what mount(8) runs for `mount -t ocifs` and for lines of fstab(5).

    mount.ocifs SOURCE[,SOURCE…] MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,…]

Runs in a process of its own, as root in most cases, and starts no thread.

- Options are those of `ocifs mount`, with `-` or `_`.
- noexec and nosymfollow reach the kernel, also when `user` or `users` implies noexec. Options that
  mount(8) and systemd use themselves, and those that change nothing for a read-only mount, are
  ignored. Any other option is an error, except with -s.
- The source in the mount table is the first field as it is written, so that a second `mount -a`
  finds the mount and skips it.
- Exit statuses are those of mount(8): 1 for a wrong call, 32 for a mount that failed.
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
# and nodev, and has no access times and no locks of its own, whatever is written here.
_OF_MOUNT = """
    defaults rw ro auto noauto nouser owner group nofail _netdev suid nosuid dev nodev sync async
    dirsync mand nomand atime noatime diratime nodiratime relatime norelatime strictatime
    nostrictatime lazytime nolazytime silent loud iversion noiversion
"""
PASSED_OVER = frozenset(_OF_MOUNT.split())
# The kernel's own options of a mounted FUSE file system, which mount(8) adds to those of a remount.
_OF_FUSE = ("user_id=", "group_id=", "rootmode=", "max_read=", "blksize=", "default_permissions")
# `uhelper` and `helper` are for umount(8).
PREFIXES = ("x-", "X-", "comment=", "uhelper=", "helper=")
# What an option makes of the flags of a mount; of several the last one decides.
FLAGS = {
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "user": ("noexec", True),  # also `user=NAME`, as mount(8) hands it on
    "users": ("noexec", True),
    "nosymfollow": ("nosymfollow", True),
    "symfollow": ("nosymfollow", False),
}
WRONG, FAILED = 1, 32  # mount(8) "EXIT STATUS"


def main() -> None:
    """Mount as mount(8) asks."""
    exclude_current_directory()
    parser = argparse.ArgumentParser(prog="mount.ocifs", exit_on_error=False)
    parser.add_argument("source")
    parser.add_argument("mountpoint")
    parser.add_argument("-o", dest="options", action="append", default=[])
    parser.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="do all but mount")
    parser.add_argument("-v", dest="verbose", action="store_true")
    parser.add_argument("-n", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-N", help=argparse.SUPPRESS)
    parser.add_argument("-t", help=argparse.SUPPRESS)
    try:
        asked = parser.parse_intermixed_args()
        options = ",".join(asked.options)
        words = translate(options, asked.sloppy)
        command = [*words, "--", *sources(asked.source), asked.mountpoint]
        check(command, asked.source)
    except (argparse.ArgumentError, ValueError, UsageError, InvalidReference) as error:
        write(f"mount.ocifs: {error}", err=True)
        sys.exit(WRONG)
    except SystemExit as end:
        sys.exit(WRONG if end.code else 0)
    if "remount" in options.split(","):
        sys.exit(0 if asked.fake else remount(asked.mountpoint, options))
    if not any(word.startswith("--fsname=") for word in words):
        # As it is written in fstab: mount(8) skips what the mount table has under that name.
        command.insert(0, f"--fsname={asked.source}")
    command = ["ocifs", "mount", *command]
    if asked.verbose:
        write(shlex.join(command))
    if asked.fake:
        return
    sys.exit(FAILED if _run(command) else 0)


def check(words: list[str], source: str) -> None:
    """Raise for a call that can never succeed: mount(8) documents another status for those."""
    try:
        mount.make_context("mount", list(words))
    except click.ClickException as error:
        raise ValueError(error.format_message()) from None
    if not sources(source) and "--any" not in words:
        raise ValueError(f"not a source: {source}; `none` needs the option `any`")
    for each in sources(source):
        parse_source(each)


def remount(mountpoint: str, options: str) -> int:
    """Change the flags of a mount; the status. Everything else of a mount stays as it is."""
    place = resolve_mount_point(Path(mountpoint))
    if place not in {each.mountpoint for each in mounts()}:
        write(f"mount.ocifs: not mounted: {place}", err=True)
        return FAILED
    try:
        restrict(place, [name for name, on in flags(options).items() if on])
    except UsageError as error:
        write(f"mount.ocifs: {error}", err=True)
        return FAILED
    return 0


def _run(command: Sequence[str]) -> int:
    """The exit status of a command of ocifs, which a child of this process runs.

    No interpreter is started: it would look for modules in the current directory.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _become(command)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except KeyboardInterrupt:
        return FAILED  # the child has the signal as well


def _become(command: Sequence[str]) -> NoReturn:
    """Run a command as this process, to its end."""
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
        os._exit(status)  # not by an exception, which would end up in the code of the parent


def sources(text: str) -> list[str]:
    """The sources that the first field of fstab(5) names: several are separated by commas; `none`
    is for `-o any`.
    """
    if is_local(text):
        return [text]
    return [each for each in text.split(",") if each not in ("", "none")]


def translate(options: str, sloppy: bool = False) -> list[str]:
    """The words of `ocifs mount` for options of mount(8).

    Raises ValueError for one that it does not have.
    """
    known = {
        each.name: each for each in mount.params if isinstance(each, click.Option) and each.name
    }
    words = [f"--{name}" for name, on in flags(options).items() if on]
    listed = options.split(",")
    foreign = (*PREFIXES, *(("remount", *_OF_FUSE) if "remount" in listed else ()))
    for option in listed:
        written, equals, value = option.partition("=")
        if not option or option in PASSED_OVER or option.startswith(foreign):
            continue
        if option in FLAGS or written == "user":
            continue
        parameter = known.get(written.replace("-", "_"))
        if parameter is None or parameter.name == "foreground":
            if sloppy:
                continue
            close = difflib.get_close_matches(written.replace("-", "_"), known, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"unknown option: {written}{meant}")
        name = f"--{(parameter.name or '').replace('_', '-')}"
        switch = parameter.is_flag or parameter.count
        if switch == bool(equals):
            raise ValueError(f"{written} {'takes no value' if switch else 'needs a value'}")
        words.append(name if switch else f"{name}={value}")
    return words


def flags(options: str) -> dict[str, bool]:
    """The flags that options ask for: noexec, nosymfollow."""
    found: dict[str, bool] = {}
    for option in options.split(","):
        written = "user" if option.startswith("user=") else option
        if written in FLAGS:
            name, on = FLAGS[written]
            found[name] = on
    return found


if __name__ == "__main__":
    main()
