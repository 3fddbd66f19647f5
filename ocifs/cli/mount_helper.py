"""`mount.ocifs`: what mount(8) runs for `mount -t ocifs` and for lines of fstab(5).

    mount.ocifs SOURCE[,SOURCE…] MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,…]

Rules that hold here: options are those of `ocifs mount`, with `-` or `_`; those that mount(8) and systemd keep for themselves are passed
over; no option is dropped in silence but with -s; exit statuses are those of mount(8).
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys

import click

from ocifs.cli.mount import command as mount

# fstab(5), mount(8) "FILESYSTEM-INDEPENDENT MOUNT OPTIONS". A mount of ocifs is read-only, nosuid and nodev, whatever is said of it.
PASSED_OVER = frozenset(
    (
        "defaults",
        "rw",
        "ro",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "nofail",
        "_netdev",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "silent",
        "loud",
    )
)
PREFIXES = ("x-", "X-", "comment=")
WRONG, FAILED = 1, 32  # mount(8) "EXIT STATUS"


def main() -> None:
    """Mount as mount(8) asks."""
    parser = argparse.ArgumentParser(prog="mount.ocifs", exit_on_error=False)
    parser.add_argument("source")
    parser.add_argument("mountpoint")
    parser.add_argument("-o", dest="options", action="append", default=[])
    parser.add_argument("-s", dest="sloppy", action="store_true", help="pass over options that nobody knows")
    parser.add_argument("-f", dest="fake", action="store_true", help="do all but mount")
    parser.add_argument("-v", dest="verbose", action="store_true")
    parser.add_argument("-n", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-N", help=argparse.SUPPRESS)
    parser.add_argument("-t", help=argparse.SUPPRESS)
    try:
        asked = parser.parse_intermixed_args()
        words = translate(",".join(asked.options), asked.sloppy)
    except (argparse.ArgumentError, ValueError) as error:
        print(f"mount.ocifs: {error}", file=sys.stderr)
        sys.exit(WRONG)
    except SystemExit as end:
        sys.exit(WRONG if end.code else 0)
    command = [sys.executable, "-m", "ocifs", "mount", *words, "--", *sources(asked.source), asked.mountpoint]
    if asked.verbose:
        print(" ".join(command))
    if asked.fake:
        return
    status = subprocess.run(command, check=False).returncode
    sys.exit({0: 0, 2: WRONG}.get(status, FAILED))


def sources(text: str) -> list[str]:
    """The sources that the first field of fstab(5) names: several are separated by commas; `none` is for `-o any`."""
    if text.startswith(("oci:", "oci-archive:")):
        return [text]
    return [each for each in text.split(",") if each not in ("", "none")]


def translate(options: str, sloppy: bool = False) -> list[str]:
    """The words of `ocifs mount` for options of mount(8). Raises ValueError for one that it does not have."""
    known = {each.name: each for each in mount.params if isinstance(each, click.Option) and each.name}
    words = []
    for option in options.split(","):
        if not option or option in PASSED_OVER or option.startswith(PREFIXES):
            continue
        written, equals, value = option.partition("=")
        parameter = known.get(written.replace("-", "_"))
        if parameter is None or parameter.name == "foreground":
            if sloppy:
                continue
            close = difflib.get_close_matches(written.replace("-", "_"), known, 1)
            raise ValueError(f"{written} is no option{f'; did you mean {close[0]}?' if close else ''}")
        name = f"--{(parameter.name or '').replace('_', '-')}"
        switch = parameter.is_flag or parameter.count
        if switch == bool(equals):
            raise ValueError(f"{written} {'takes no value' if switch else 'needs a value'}")
        words.append(name if switch else f"{name}={value}")
    return words


if __name__ == "__main__":
    main()
