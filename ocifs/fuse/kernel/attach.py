"""Makes and ends one mount that the kernel serves: EROFS, and an overlay on top.

    /run/ocifs/<id>/private/fuse     the FUSE mount with the file `data`, until it is detached
    /run/ocifs/<id>/private/names    the source of the mount table, as a path to the image
    /run/ocifs/<id>/private/lower    the EROFS mount below an overlay, until it is detached

Every method blocks and is called in a worker thread, one at a time: mounting opens the file `data`,
for which the event loop has to answer.

- The image is mounted by its open descriptor, so that it is the file that was verified.
- The image is hostile: a mount is always nosuid, nodev and read-only. Only an overlay is writable.
- If a step fails, all steps before it are undone.
- The FUSE mount is detached once EROFS has opened the file. From then on the mounts end together.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ocifs.errors import UsageError
from ocifs.fuse.kernel import loop, overlay, records, syscalls
from ocifs.fuse.kernel.probe import BLOCK
from ocifs.fuse.kernel.watcher import Watcher
from ocifs.settings import MountFlags

log = logging.getLogger("ocifs.fuse")

_NAME_MAX, _PATH_MAX = 255, 3000


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """What to mount. `name` is the source in the mount table; `method` is that of the probe.

    `image` is an open descriptor. `status` is the status of a mount without a daemon.
    """

    mountpoint: Path
    name: str
    flags: MountFlags
    method: str
    image: int
    status: Mapping[str, object] = field(default_factory=dict)


class KernelMount:
    """One mount, with its place in /run/ocifs. `is_mounted` until it has been released."""

    def __init__(self, request: KernelRequest, place: Path) -> None:
        self.place = place
        self.fuse = records.private_of(place) / "fuse"
        self.is_mounted = False
        self.is_detached = False
        self._request = request
        self._device = ""
        self._watcher: Watcher | None = None

    @property
    def mountpoint(self) -> Path:
        """The mount point that the user chose."""
        return self._request.mountpoint

    @classmethod
    def create(cls, request: KernelRequest) -> KernelMount:
        """Create the place of a mount. Raises UsageError."""
        try:
            place = records.create_place()
            made = cls(request, place)
            made.fuse.mkdir()
            return made
        except OSError as error:
            raise UsageError(f"cannot write to {records.DIRECTORY}: {error.strerror}") from None

    def mount(self, data: Path | None, *, has_daemon: bool = True) -> None:
        """Mount the image with this file of data, and detach FUSE. Raises UsageError.

        An image without data has no file of it.
        """
        request, private = self._request, records.private_of(self.place)
        target = private / "lower" if request.flags.overlay else request.mountpoint
        with ExitStack() as undo:
            # Before anything is mounted: a mount of a killed process can then be identified.
            self._record(has_daemon=True)
            if has_daemon and request.flags.auto_unmount:
                self._watch()
            if target != request.mountpoint:
                target.mkdir()
                undo.callback(_quietly, target.rmdir)
            self._mount_image(data, target)
            undo.callback(_quietly, syscalls.detach, target)
            if target != request.mountpoint:
                flags = _flags(request.flags) & ~syscalls.MS_RDONLY
                changes = request.flags.overlay, request.flags.overlay_work
                name = _table_name(request.name, self.place)
                overlay.mount_overlay(target, request.mountpoint, changes, flags, name)
                undo.callback(_quietly, syscalls.detach, request.mountpoint)
            self._device = _device_of(request.mountpoint)
            self._record(has_daemon)
            undo.pop_all()
        self.is_mounted = True
        if target != request.mountpoint:
            # The overlay keeps the image mounted, and is the only mount that can be seen.
            _quietly(syscalls.detach, target)
            _quietly(target.rmdir)
        if has_daemon:
            syscalls.detach(self.fuse)
            self.is_detached = True
        _quietly(self.fuse.rmdir)

    def _watch(self) -> None:
        try:
            self._watcher = Watcher(self._request.mountpoint)
        except OSError as error:
            text = f"cannot start the process of --auto-unmount: {error.strerror}"
            raise UsageError(text, hint="omit --auto-unmount") from None

    def has_ended(self) -> bool:
        """Whether something else is at the mount point now."""
        return _device_of(self._request.mountpoint) != self._device

    def release(self) -> None:
        """End the mount if it has not ended, and remove its record. Programs that use it keep it,
        without a daemon.
        """
        # If another mount is there now, it is not this one's to end.
        if self.is_mounted and not self.has_ended():
            _quietly(syscalls.detach, self._request.mountpoint)
        self.is_mounted = False
        if self._watcher is not None:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                self._watcher.end()
            self._watcher = None
        records.remove(self.place)

    def _mount_image(self, data: Path | None, target: Path) -> None:
        request = self._request
        name = _table_name(request.name, self.place)
        names = records.private_of(self.place) / "names"
        try:
            with ExitStack() as stack:
                image, device = f"/proc/self/fd/{request.image}", str(data or "")
                if request.method == "loop":
                    image = stack.enter_context(loop.loop_device(request.image, BLOCK))
                    if data is not None:
                        file = stack.enter_context(data.open("rb"))
                        device = stack.enter_context(loop.loop_device(file.fileno(), BLOCK))
                (names / name).parent.mkdir(parents=True)
                stack.callback(shutil.rmtree, names, ignore_errors=True)
                (names / name).symlink_to(image)
                flags = _flags(request.flags)
                options = f"device={device}" if device else ""
                # A relative source is shown in the mount table as it is.
                syscalls.run_in_directory(
                    names, lambda: syscalls.mount(name, target, "erofs", flags, options)
                )
        except OSError as error:
            raise _refused(error, request.mountpoint) from None

    def _record(self, has_daemon: bool) -> None:
        request = self._request
        record = records.Record(
            self.place,
            str(request.mountpoint),
            _table_name(request.name, self.place),
            self._device,
            "overlay" if request.flags.overlay else "erofs",
            os.getpid() if has_daemon else 0,
            records.namespace(),
            request.status,
        )
        try:
            records.write(record)
        except OSError as error:
            raise UsageError(f"cannot write to {self.place}: {error.strerror}") from None


def _flags(flags: MountFlags) -> int:
    value = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    value |= syscalls.MS_NOEXEC if flags.noexec else 0
    return value | (syscalls.MS_NOSYMFOLLOW if flags.nosymfollow else 0)


def _table_name(name: str, place: Path) -> str:
    """The source in the mount table. It is also a relative path, which not all sources are."""
    parts = name.split("/")
    if name.startswith("/") or {".", ".."} & set(parts) or "\0" in name:
        return f"ocifs:{place.name}"
    encoded = [os.fsencode(part) for part in parts]
    if not parts[-1] or max(map(len, encoded)) > _NAME_MAX or sum(map(len, encoded)) > _PATH_MAX:
        return f"ocifs:{place.name}"
    return name


def _device_of(mountpoint: Path) -> str:
    try:
        device = os.stat(mountpoint).st_dev
    except OSError:
        return ""
    return f"{os.major(device)}:{os.minor(device)}"


def _quietly(work: Callable[..., object], *arguments: object) -> None:
    with contextlib.suppress(OSError):
        work(*arguments)


def _refused(error: OSError, mountpoint: Path) -> UsageError:
    hint = ""
    if error.errno == errno.EINVAL:
        hint = "`dmesg` has the kernel's reason"
    text = f"the kernel does not mount EROFS at {mountpoint}: {error.strerror}"
    return UsageError(text, hint=hint)
