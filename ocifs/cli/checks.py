"""What `ocifs doctor` looks at on this machine: FUSE, permissions, credentials, the cache.

Rules that hold here: looking changes nothing; a finding says what is, and where something is wrong
what to do; a credential is named by host and place, never shown.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocifs.cli.status import amount
from ocifs.errors import UsageError
from ocifs.fuse.mounts import mount_table
from ocifs.programs import find_program
from ocifs.registry.auth.files import hosts_in_files
from ocifs.registry.config import registries_conf
from ocifs.settings import GIB, Settings
from ocifs.userfiles import unsafe_permissions

OK, NOTE, WARNING, BAD = "ok", "note", "warning", "bad"
# Locks, and renames over what is open, are not what they are elsewhere.
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "glusterfs"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `todo`: what to do about it, where something is to be done."""

    level: str
    topic: str
    text: str
    todo: str = ""


def fuse(
    device: Path = Path("/dev/fuse"), conf: Path = Path("/etc/fuse.conf")
) -> Iterator[Finding]:
    """Whether this user can mount."""
    if not device.exists():
        todo = "modprobe fuse; in a container, run it with --device /dev/fuse and the capability SYS_ADMIN"
        yield Finding(BAD, "fuse", f"{device} is not there", todo)
    elif not os.access(device, os.R_OK | os.W_OK):
        todo = f"chmod 666 {device}, or join the group that owns it ({device.stat().st_gid})"
        yield Finding(BAD, "fuse", f"{device} may not be opened by this user", todo)
    else:
        yield Finding(OK, "fuse", f"{device} can be opened")
    yield _helper()
    try:
        allowed = any(line.strip() == "user_allow_other" for line in conf.read_text().splitlines())
    except OSError:
        allowed = False
    if allowed or os.geteuid() == 0:
        yield Finding(OK, "allow-other", "--allow-other can be used")
    else:
        todo = f"where other users must see a mount: add the line user_allow_other to {conf}"
        yield Finding(NOTE, "allow-other", "--allow-other cannot be used by this user", todo)


def _helper() -> Finding:
    program = find_program("fusermount3")
    if program is None:
        level = NOTE if os.geteuid() == 0 else BAD
        return Finding(
            level,
            "fusermount3",
            "fusermount3 is not on the PATH",
            "apt install fuse3, or dnf install fuse3",
        )
    found = os.stat(program)
    if os.geteuid() != 0 and not (found.st_uid == 0 and found.st_mode & stat.S_ISUID):
        return Finding(BAD, "fusermount3", f"{program} is not setuid root", f"chmod u+s {program}")
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(
            BAD,
            "fusermount3",
            f"{program} cannot be run: {error}",
            "install the package fuse3 again",
        )
    return Finding(OK, "fusermount3", f"{program} ({said.strip() or 'of unknown version'})")


def credentials(settings: Settings) -> Iterator[Finding]:
    """For which hosts there are credentials, and where they are kept."""
    known = hosts_in_files(os.environ, settings.network.authfile)
    for host, places in sorted(known.items()):
        yield Finding(OK, "credentials", f"{host}: {', '.join(map(str, places))}")
        for place in places:
            if place.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
                yield Finding(
                    WARNING, "credentials", f"others can read {place}", f"chmod 600 {place}"
                )
            if why := unsafe_permissions(place):
                yield Finding(
                    WARNING, "credentials", why, "whoever changes it decides which helper is run"
                )
    name, file = os.environ.get("OCIFS_USERNAME"), os.environ.get("OCIFS_PASSWORD_FILE")
    if name and file:
        readable = os.access(file, os.R_OK)
        todo = "" if readable else "OCIFS_PASSWORD_FILE names a file that holds the password"
        text = f"OCIFS_USERNAME with {file}{'' if readable else ', which cannot be read'}"
        yield Finding(OK if readable else BAD, "credentials", text, todo)
    elif name or file:
        todo = "set OCIFS_USERNAME and OCIFS_PASSWORD_FILE, both or none"
        yield Finding(
            WARNING,
            "credentials",
            "only one of OCIFS_USERNAME and OCIFS_PASSWORD_FILE is set",
            todo,
        )
    elif not known:
        todo = "for a private registry: skopeo login, podman login or docker login"
        yield Finding(NOTE, "credentials", "none are found: registries are asked as anybody", todo)


def cache(settings: Settings) -> Iterator[Finding]:
    """Whether the cache can be kept where it is to be."""
    directory = settings.cache.directory
    here = directory
    while not here.exists() and here != here.parent:
        here = here.parent
    found = here.stat()
    if here == directory and found.st_uid != os.geteuid():
        text = (
            f"{directory} belongs to {_name_of(found.st_uid)}, and you are {_name_of(os.geteuid())}"
        )
        yield Finding(
            BAD, "cache", text, "name another with --cache-dir; each user has a cache of their own"
        )
    elif here == directory and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(BAD, "cache", f"others can write to {directory}", f"chmod go-w {directory}")
    elif not os.access(here, os.W_OK | os.X_OK) or not here.is_dir():
        yield Finding(
            BAD,
            "cache",
            f"{directory} cannot be written: {here} is the obstacle",
            "name another with --cache-dir",
        )
    else:
        yield Finding(
            OK, "cache", f"{directory} {'can be written' if here == directory else 'can be made'}"
        )
    space = os.statvfs(here)
    free = space.f_bavail * space.f_frsize
    todo = "free some space, or name another place with --cache-dir" if free < 2 * GIB else ""
    yield Finding(
        WARNING if todo else OK,
        "cache",
        f"{amount(free)} are free on its file system ({filesystem_of(here)})",
        todo,
    )
    if filesystem_of(here) in _REMOTE:
        todo = "name a local directory with --cache-dir"
        yield Finding(
            WARNING,
            "cache",
            "its file system is over a network, which is slow and whose locks may not hold",
            todo,
        )


def registries(settings: Settings) -> Iterator[Finding]:
    """Entries of containers-registries.conf(5) that cannot be used."""
    try:
        problems = registries_conf.load(os.environ, settings.network.registries_conf).problems()
    except UsageError as error:
        yield Finding(
            BAD,
            "registries.conf",
            str(error),
            "correct the file, or name another with --registries-conf",
        )
        return
    for problem in problems:
        todo = "correct the entry: the names that it is about cannot be used"
        yield Finding(WARNING, "registries.conf", problem, todo)


def filesystem_of(path: Path) -> str:
    """The type of the file system that a path is on (proc_pid_mountinfo(5))."""
    device, found = os.stat(path).st_dev, "unknown"
    for line in mount_table():
        left, _, right = line.partition(" - ")
        if left.split(" ")[2] == f"{os.major(device)}:{os.minor(device)}":
            found = right.split(" ")[0]
    return found


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
