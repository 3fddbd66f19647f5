"""`mount.ocifs`: the program that mount(8) runs for `mount -t ocifs` and for lines of fstab(5).

    mount.ocifs SOURCE[,SOURCE…] MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,…]

Runs as a separate process, usually as root, and starts no thread.

- Options are those of `ocifs mount -o` (`mount_options.py`). Any other is an error, except with -s.
- noexec and nosymfollow reach the kernel, also when `user` or `users` implies noexec.
- The source in the mount table is the first field as it is written, so that a second `mount -a`
  finds the mount and skips it.
- Exit statuses are those of mount(8): 1 for invalid usage, 32 for a failed mount.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from ocifs.cli import main as program
from ocifs.cli import mount_options
from ocifs.cli.errors import message_of
from ocifs.cli.mount import command as mount
from ocifs.cli.terminal import Mark, write
from ocifs.errors import InvalidReference, UsageError
from ocifs.fuse.mounts import mounts, resolve_mount_point, restrict
from ocifs.oci.local import is_local
from ocifs.oci.reference import parse_source
from ocifs.printable import printable
from ocifs.programs import exclude_current_directory

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
        text = message_of(error) if isinstance(error, InvalidReference) else printable(str(error))
        write("mount.ocifs: ", Mark(text), err=True)
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
        restrict(path, [name for name, on in mount_options.flags(options).items() if on])
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

    Raises ValueError for an unknown option, unless `sloppy`.
    """
    return mount_options.translate(options, mount.params, sloppy)


if __name__ == "__main__":
    main()
