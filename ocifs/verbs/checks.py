"""The checks of `ocifs doctor` on this machine: FUSE, permissions, credentials, the cache.

Called in a worker thread; everything here may block.

- A check changes nothing.
- A finding describes the state and, if there is a problem, the remedy.
- Credentials are reported by host and file, and never shown.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocifs.distributions import REMEDY, clash
from ocifs.errors import UsageError
from ocifs.fuse.kernel.probe import probe
from ocifs.fuse.mounts import mount_table
from ocifs.programs import find_program
from ocifs.registry.auth.files import hosts_in_files
from ocifs.registry.config import registries_conf
from ocifs.settings import GIB, Settings
from ocifs.units import format_size
from ocifs.userfiles import unsafe_permissions

OK, NOTE, WARNING, BAD = "ok", "note", "warning", "bad"
# Network file systems: their locks and renames differ from those of local ones.
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "glusterfs"})
_LITTLE_SPACE = 2 * GIB
_OTHER_DIRECTORY = "choose another directory with --cache-dir"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `todo` is the remedy, or empty."""

    level: str
    topic: str
    text: str
    todo: str = ""


def package() -> Iterator[Finding]:
    """Whether another distribution overwrites files of this package."""
    message = clash()
    if message:
        yield Finding(WARNING, "package", message, REMEDY)


def fuse(
    device: Path = Path("/dev/fuse"), conf: Path = Path("/etc/fuse.conf")
) -> Iterator[Finding]:
    """Whether this user can mount."""
    if not device.exists():
        todo = "modprobe fuse; in a container: --device /dev/fuse and the capability SYS_ADMIN"
        yield Finding(BAD, "fuse", f"no such device: {device}", todo)
    elif not os.access(device, os.R_OK | os.W_OK):
        todo = f"chmod 666 {device}, or join the group that owns it ({device.stat().st_gid})"
        yield Finding(BAD, "fuse", f"permission denied: {device}", todo)
    else:
        yield Finding(OK, "fuse", f"{device} can be opened")
    yield _helper()
    try:
        allowed = any(line.strip() == "user_allow_other" for line in conf.read_text().splitlines())
    except OSError:
        allowed = False
    if allowed or os.geteuid() == 0:
        yield Finding(OK, "allow-other", "--allow-other is permitted")
    else:
        todo = f"to share mounts with other users, add the line user_allow_other to {conf}"
        yield Finding(NOTE, "allow-other", "--allow-other is not permitted for this user", todo)


def _helper() -> Finding:
    topic, program = "fusermount3", find_program("fusermount3")
    if program is None:
        # Root mounts by mount(2), and needs the helper only for --auto-unmount.
        level = NOTE if os.geteuid() == 0 else BAD
        todo = "apt install fuse3, or dnf install fuse3"
        return Finding(level, topic, "fusermount3 is not on the PATH", todo)
    status = os.stat(program)
    if os.geteuid() != 0 and not (status.st_uid == 0 and status.st_mode & stat.S_ISUID):
        return Finding(BAD, topic, f"{program} is not setuid root", f"chmod u+s {program}")
    try:
        version = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(BAD, topic, f"cannot run {program}: {error}", "reinstall the package fuse3")
    return Finding(OK, topic, f"{program} ({version.strip() or 'unknown version'})")


def credentials(settings: Settings) -> Iterator[Finding]:
    """Which hosts have credentials, and in which files."""
    topic = "credentials"
    known = hosts_in_files(os.environ, settings.network.authfile)
    for host, files in sorted(known.items()):
        yield Finding(OK, topic, f"{host}: {', '.join(map(str, files))}")
        for file in files:
            if file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
                yield Finding(WARNING, topic, f"other users can read {file}", f"chmod 600 {file}")
            if why := unsafe_permissions(file):
                todo = "restrict its permissions: it decides which credential helper runs"
                yield Finding(WARNING, topic, why, todo)
    name, file_name = os.environ.get("OCIFS_USERNAME"), os.environ.get("OCIFS_PASSWORD_FILE")
    if name and file_name:
        readable = os.access(file_name, os.R_OK)
        todo = "" if readable else "set OCIFS_PASSWORD_FILE to a file that contains the password"
        text = f"OCIFS_USERNAME with {file_name}{'' if readable else ', which is not readable'}"
        yield Finding(OK if readable else BAD, topic, text, todo)
    elif name or file_name:
        text = "only one of OCIFS_USERNAME and OCIFS_PASSWORD_FILE is set"
        yield Finding(WARNING, topic, text, "set both of them, or none")
    elif not known:
        todo = "for a private registry: skopeo login, podman login or docker login"
        yield Finding(NOTE, topic, "no credentials found: registries are used anonymously", todo)


def cache(settings: Settings) -> Iterator[Finding]:
    """Whether the cache directory is usable."""
    directory = settings.cache.directory
    existing = directory
    # The first mount creates the cache, and a check creates nothing.
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    yield _cache_directory(directory, existing)
    space = os.statvfs(existing)
    # Not f_bfree, which includes the blocks reserved for root (statvfs(3)).
    free = space.f_bavail * space.f_frsize
    kind = filesystem_of(existing)
    todo = f"free some space, or {_OTHER_DIRECTORY}" if free < _LITTLE_SPACE else ""
    text = f"{format_size(free)} free on its file system ({kind})"
    yield Finding(WARNING if todo else OK, "cache", text, todo)
    if kind in _REMOTE:
        text = "it is on a network file system, which is slow and may not support locks"
        yield Finding(WARNING, "cache", text, "choose a local directory with --cache-dir")


def kernel(settings: Settings) -> Iterator[Finding]:
    """Whether the kernel can serve root filesystems (`ocifs mount --kernel`)."""
    existing = settings.cache.directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    found = probe(existing)
    if found.method:
        how = "" if found.method == "file" else ", through loop devices"
        yield Finding(OK, "kernel", f"it can serve root filesystems as EROFS{how}")
    else:
        todo = "without it, FUSE serves root filesystems as well"
        yield Finding(NOTE, "kernel", f"it cannot serve root filesystems: {found.reason}", todo)


def _cache_directory(directory: Path, existing: Path) -> Finding:
    """The state of a cache directory, of which `existing` is the part that exists."""
    status = existing.stat()
    if existing == directory and status.st_uid != os.geteuid():
        owner, user = _name_of(status.st_uid), _name_of(os.geteuid())
        text = f"{directory} belongs to {owner}, and you are {user}"
        return Finding(BAD, "cache", text, f"{_OTHER_DIRECTORY}: a cache is private to its user")
    if existing == directory and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        text = f"other users can write to {directory}"
        return Finding(BAD, "cache", text, f"chmod go-w {directory}")
    if not existing.is_dir():
        text = f"cannot create {directory}: not a directory: {existing}"
        return Finding(BAD, "cache", text, _OTHER_DIRECTORY)
    if not os.access(existing, os.W_OK | os.X_OK):
        text = f"cannot write to {directory}: permission denied: {existing}"
        return Finding(BAD, "cache", text, _OTHER_DIRECTORY)
    state = "is writable" if existing == directory else "can be created"
    return Finding(OK, "cache", f"{directory} {state}")


def registries(settings: Settings) -> Iterator[Finding]:
    """Invalid entries of containers-registries.conf(5)."""
    topic = "registries.conf"
    try:
        problems = registries_conf.load(os.environ, settings.network.registries_conf).problems()
    except UsageError as error:
        todo = "correct the file, or choose another with --registries-conf"
        yield Finding(BAD, topic, str(error), todo)
        return
    for problem in problems:
        todo = "correct the entry: the names that it is about cannot be used"
        yield Finding(WARNING, topic, problem, todo)


def filesystem_of(path: Path) -> str:
    """The type of the file system that contains a path (proc_pid_mountinfo(5))."""
    device, kind = os.stat(path).st_dev, "unknown"
    for line in mount_table():
        mount_fields, _, type_fields = line.partition(" - ")
        # The third field is the device. After the separator, the first field is the type.
        if mount_fields.split(" ")[2] == f"{os.major(device)}:{os.minor(device)}":
            kind = type_fields.split(" ")[0]
    return kind


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
