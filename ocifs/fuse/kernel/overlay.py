"""A writable layer on top of a root filesystem: overlayfs, with changes in a directory or a tmpfs.

Blocks; called in a worker thread while a mount is made.

- The directories are checked before the mount, because the kernel reports most problems as EINVAL.
- A new upper directory gets the attributes of the image's root, because it is the root of the
  overlay.
- The lower mount and the tmpfs are detached afterwards, so that one unmount ends all of them.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ocifs.errors import UsageError
from ocifs.fuse.kernel import syscalls

TMPFS = "tmpfs"
"""The name of the upper directory for changes that are lost when the mount ends."""
FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV


def mount_overlay(
    lower: Path, target: Path, changes: tuple[str, Path | None], flags: int, name: str
) -> None:
    """Mount an overlay of `lower` at `target`.

    `changes`: the upper directory or `tmpfs`, and the work directory or None. Raises UsageError.
    """
    chosen, work = changes
    if chosen != TMPFS:
        upper = Path(chosen)
        _mount(lower, (upper, work or upper.with_name(f"{upper.name}.work")), target, flags, name)
        return
    memory = lower.with_name("tmpfs")
    memory.mkdir()
    try:
        syscalls.mount(TMPFS, memory, TMPFS, FLAGS, "mode=0700")
        try:
            _mount(lower, (memory / "upper", memory / "work"), target, flags, name)
        finally:
            # The overlay keeps the tmpfs, which ends with it.
            syscalls.detach(memory)
    finally:
        memory.rmdir()


def _mount(lower: Path, writable: tuple[Path, Path], target: Path, flags: int, name: str) -> None:
    upper, work = writable
    created = _prepare(upper, work)
    try:
        if upper in created:
            _copy_attributes(lower, upper)
        pairs = (("lowerdir", lower), ("upperdir", upper), ("workdir", work))
        data = ",".join(f"{key}={_escaped(path)}" for key, path in pairs)
        try:
            syscalls.mount(name, target, "overlay", flags, data)
        except OSError as error:
            raise _refused(error, upper) from None
    except BaseException:
        for directory in reversed(created):
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _prepare(upper: Path, work: Path) -> list[Path]:
    """Create the directories if they are missing, and return those. Raises UsageError."""
    if upper == work or upper in work.parents or work in upper.parents:
        raise UsageError(f"the work directory {work} and {upper} contain one another")
    created: list[Path] = []
    try:
        for path in (upper, work):
            with suppress(FileExistsError):
                path.mkdir(mode=0o755 if path == upper else 0o700)
                created.append(path)
        _check(upper, work)
    except OSError as error:
        _remove(created)
        hint = "create its parent directory" if error.errno == errno.ENOENT else ""
        text = f"cannot create {error.filename}: {error.strerror}"
        raise UsageError(text, hint=hint) from None
    except BaseException:
        _remove(created)
        raise
    return created


def _remove(directories: Sequence[Path]) -> None:
    for directory in reversed(directories):
        with suppress(OSError):
            directory.rmdir()


def _check(upper: Path, work: Path) -> None:
    for path in (upper, work):
        if not path.is_dir():
            raise UsageError(f"not a directory: {path}")
    if upper.stat().st_dev != work.stat().st_dev:
        text = f"the work directory {work} is on another file system than {upper}"
        raise UsageError(text, hint="choose one beside it with --overlay-work")
    # `work` and `index` in it are overlayfs' own.
    if set(os.listdir(work)) - {"work", "index"}:
        text = f"the work directory is not empty: {work}"
        raise UsageError(text, hint="choose an empty one with --overlay-work")
    user = _user_of(upper, work)
    if user:
        raise UsageError(
            f"{upper} or {work} is in use by the overlay at {user}",
            hint=f"run `umount {user}` first, or choose another directory",
        )


def _user_of(upper: Path, work: Path) -> str:
    """The mount point of an overlay that writes to one of these directories, or an empty text."""
    wanted = {f"upperdir={_escaped(upper)}", f"workdir={_escaped(work)}"}
    lines = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape")
    for line in lines.split("\n"):
        left, _, right = line.partition(" - overlay ")
        if wanted & set(_unescape(right).rpartition(" ")[2].split(",")):
            return _unescape(left.split(" ")[4])
    return ""


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _escaped(path: Path) -> str:
    """A path as an option: a backslash escapes backslashes, commas and colons (overlayfs)."""
    text = str(path)
    for character in "\\,:":
        text = text.replace(character, f"\\{character}")
    return text


def _copy_attributes(lower: Path, upper: Path) -> None:
    status = lower.stat()
    os.chown(upper, status.st_uid, status.st_gid)
    upper.chmod(status.st_mode & 0o7777)
    for attribute in os.listxattr(lower):
        # The file system of `upper` may not store all of them.
        with suppress(OSError):
            os.setxattr(upper, attribute, os.getxattr(lower, attribute))
    os.utime(upper, ns=(status.st_atime_ns, status.st_mtime_ns))


def _refused(error: OSError, upper: Path) -> UsageError:
    if error.errno == errno.ENODEV:
        return UsageError("this kernel has no overlayfs", hint="modprobe overlay")
    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
        text = f"overlayfs cannot write to the file system of {upper}"
        return UsageError(text, hint="choose a directory on ext4, xfs, btrfs or tmpfs")
    return UsageError(f"cannot mount an overlay with {upper}: {error.strerror}")
