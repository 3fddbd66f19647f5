"""The options of mount(8), `-o ro,allow_other,uid=1000`, as options of `ocifs mount`.

Pure. Called by `ocifs mount -o` and by `mount.ocifs`, so that both understand the same options.

- Options are those of `ocifs mount`, with `-` or `_`.
- Options that mount(8) and systemd use themselves, and those that change nothing for a read-only
  mount, are ignored. Any other option is an error.
- An option of another tool is an error with the one to use here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import click

# fstab(5), mount(8) "FILESYSTEM-INDEPENDENT MOUNT OPTIONS". A mount of ocifs is read-only, nosuid
# and nodev, and has no access times or locks, whichever of these are given.
_MOUNT_OPTIONS = """
    defaults rw ro auto noauto nouser owner group nofail _netdev suid nosuid dev nodev sync async
    dirsync mand nomand atime noatime diratime nodiratime relatime norelatime strictatime
    nostrictatime lazytime nolazytime silent loud iversion noiversion
"""
# fuse(8) and sshfs(1): the kernel checks permissions and caches pages in every mount of ocifs.
_FUSE_DEFAULTS = """
    default_permissions nonempty kernel_cache auto_cache noauto_cache big_writes async_read
    sync_read large_read reconnect
"""
IGNORED = frozenset((_MOUNT_OPTIONS + _FUSE_DEFAULTS).split())
# The kernel's own options of a mounted FUSE file system, which mount(8) adds to those of a remount.
_KERNEL_OPTIONS = ("user_id=", "group_id=", "rootmode=", "max_read=", "blksize=")
# `uhelper` and `helper` are for umount(8).
PREFIXES = ("x-", "X-", "comment=", "uhelper=", "helper=", "subtype=")
# The flag and value that an option means. The last of several options decides.
FLAGS = {
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "user": ("noexec", True),  # also `user=NAME`, which mount(8) passes on
    "users": ("noexec", True),
    "nosymfollow": ("nosymfollow", True),
    "symfollow": ("nosymfollow", False),
}

_NAME_LIFETIME = "use --tag-ttl SECONDS, or `ocifs refresh MOUNTPOINT` after a push"
_LOG_IN = "log in with docker, podman or skopeo; see also --authfile"
_BACKGROUND = "mounts are in the background by default; --foreground stays in the foreground"
_DEBUG = "use --foreground -vv, or -v and --log-file"
_MODES = "use --umask"
_ADAPTS = "it adapts to the reader and cannot be set"
_FOREIGN = {
    "allow-root": "use --allow-other, which includes root",
    "daemon": _BACKGROUND,
    "background": _BACKGROUND,
    "daemon-timeout": "use --timeout",
    "daemon-wait": "the command returns when the mount answers",
    "debug": _DEBUG,
    "sshfs-debug": _DEBUG,
    "vv": _DEBUG,
    "log-level": _DEBUG,
    "log-directory": "use --log-file",
    "pid-file": "`ocifs status --json` contains the process ID",
    "pidfile": "`ocifs status --json` contains the process ID",
    "dir-mode": _MODES,
    "file-mode": _MODES,
    "dir-perms": _MODES,
    "file-perms": _MODES,
    "dmask": _MODES,
    "fmask": _MODES,
    "idmap": "files belong to the mounting user by default; see --owner, --uid and --gid",
    "dir-cache-time": _NAME_LIFETIME,
    "metadata-ttl": _NAME_LIFETIME,
    "poll-interval": _NAME_LIFETIME,
    "attr-timeout": _NAME_LIFETIME,
    "entry-timeout": _NAME_LIFETIME,
    "cache-timeout": _NAME_LIFETIME,
    "read-ahead": _ADAPTS,
    "max-readahead": _ADAPTS,
    "buffer-size": _ADAPTS,
    "max-threads": _ADAPTS,
    "transfers": _ADAPTS,
    "vfs-cache-mode": "all reads are cached; see --cache-dir and --cache-size",
    "vfs-cache-max-size": "use --cache-size",
    "cache": "use --cache-dir",
    "volname": "use --fsname",
    "allow-non-empty": "mounting over files is allowed",
    "ro": "mounts are always read-only",
    "read-write": "mounts are always read-only",
    "username": _LOG_IN,
    "password": _LOG_IN,
    "insecure": "use --plain-http or --insecure-tls",
    "tls-verify": "use --insecure-tls",
    "no-verify-ssl": "use --insecure-tls",
}


def hint_for(option: str) -> str:
    """What to use here in place of an option of another tool, or an empty text."""
    return _FOREIGN.get(option.lstrip("-").replace("_", "-"), "")


def translate(options: str, params: Iterable[click.Parameter], sloppy: bool = False) -> list[str]:
    """The words of `ocifs mount`, which has these parameters, for options of mount(8).

    Raises ValueError for an unknown option, unless `sloppy`.
    """
    known = {
        param.name: param for param in params if isinstance(param, click.Option) and param.name
    }
    words = [f"--{name}" for name, on in flags(options).items() if on]
    listed = options.split(",")
    foreign = (*PREFIXES, *(("remount", *_KERNEL_OPTIONS) if "remount" in listed else ()))
    for option in listed:
        if not option or option in IGNORED or option.startswith(foreign):
            continue
        if option in FLAGS or option.startswith("user="):
            continue
        word = _word(option, known, sloppy)
        if word:
            words.append(word)
    return words


def _word(option: str, known: Mapping[str, click.Option], sloppy: bool) -> str:
    """The word for one option; empty if it is unknown and `sloppy`."""
    key, equals, value = option.partition("=")
    parameter = known.get(key.replace("-", "_"))
    # In the foreground, mount(8) would wait for its helper until the mount ends.
    if parameter is None or parameter.name == "foreground" or not parameter.expose_value:
        if sloppy:
            return ""
        close = difflib.get_close_matches(key.replace("-", "_"), known, 1)
        hint = hint_for(key) or (f"did you mean {close[0]}?" if close else "")
        raise ValueError(f"unknown option: {key}{'; ' if hint else ''}{hint}")
    name = f"--{(parameter.name or '').replace('_', '-')}"
    switch = parameter.is_flag or parameter.count
    if switch == bool(equals):
        raise ValueError(f"{key} {'takes no value' if switch else 'needs a value'}")
    return name if switch else f"{name}={value}"


def flags(options: str) -> dict[str, bool]:
    """The values of the flags noexec and nosymfollow that options set."""
    values: dict[str, bool] = {}
    for option in options.split(","):
        key = "user" if option.startswith("user=") else option
        if key in FLAGS:
            name, on = FLAGS[key]
            values[name] = on
    return values
