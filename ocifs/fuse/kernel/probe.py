"""Whether this process can mount EROFS from files of a directory, found out by a mount.

Versions and configurations of kernels are never compared: distributions backport. The probe makes
the same mount as a root filesystem does, in small: an image with an empty root, and a second file
for data. It blocks, for some milliseconds, and leaves nothing behind.

Called in a worker thread before a mount, and by `ocifs doctor`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ocifs.fuse.kernel import loop, syscalls

FLAGS = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
BLOCK = 4096
# The errnos of a kernel that wants a block device, or of a file system that cannot hold the image.
_NEEDS_DEVICE = (errno.ENOTBLK, errno.EINVAL, errno.EOPNOTSUPP)

_MAGIC = 0xE0F5E1E2
_CHUNKED_FILES, _DEVICE_TABLE = 4, 8
# Byte offsets in the image: the superblock, the table of devices, and the inode of the root.
_SUPERBLOCK, _DEVICES, _ROOT = 1024, 1152, 1536


@dataclass(frozen=True, slots=True)
class Probe:
    """The result. `method` is `file`, `loop` (with loop devices), or empty with the `reason`."""

    method: str
    reason: str = ""


def probe(directory: Path) -> Probe:
    """Probe with files in a directory. It must be on the file system of the images."""
    if os.geteuid() != 0:
        return Probe("", "only root may mount EROFS")
    try:
        place = Path(tempfile.mkdtemp(prefix=".tmp-probe-", dir=directory))
    except OSError as error:
        return Probe("", f"cannot write to {directory}: {error.strerror}")
    try:
        return _probe(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _probe(place: Path) -> Probe:
    image, data, target = place / "image", place / "data", place / "mnt"
    try:
        image.write_bytes(empty_image())
        data.write_bytes(bytes(BLOCK))
        target.mkdir()
    except OSError as error:
        return Probe("", f"cannot write to {place.parent}: {error.strerror}")
    try:
        _try(str(image), target, str(data))
        return Probe("file")
    except OSError as error:
        if error.errno not in _NEEDS_DEVICE:
            return Probe("", _reason(error))
    try:
        with contextlib.ExitStack() as stack:
            devices = []
            for path in (image, data):
                file = stack.enter_context(path.open("rb"))
                devices.append(stack.enter_context(loop.loop_device(file.fileno(), BLOCK)))
            _try(devices[0], target, devices[1])
        return Probe("loop", "the kernel does not mount EROFS from files of this file system")
    except OSError as error:
        return Probe("", f"neither from a file nor from a loop device: {_reason(error)}")


def _try(image: str, target: Path, data: str) -> None:
    syscalls.mount(image, target, "erofs", FLAGS, f"device={data}")
    syscalls.detach(target)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "this kernel has no EROFS (CONFIG_EROFS_FS, modprobe erofs)"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "this process may not mount EROFS (CAP_SYS_ADMIN in the initial user namespace)"
    return f"the kernel does not mount EROFS here: {error.strerror}"


def empty_image() -> bytes:
    """An image with an empty root directory and one device (the kernel's erofs_fs.h)."""
    image = bytearray(BLOCK)
    features = _CHUNKED_FILES | _DEVICE_TABLE
    root = _ROOT // 32
    # Magic, checksum, compatible features, block bits, extension slots, root, inodes, time,
    # nanoseconds, blocks, and the first blocks of metadata and of attributes.
    struct.pack_into(
        "<IIIBBHQQIIII", image, _SUPERBLOCK, _MAGIC, 0, 0, 12, 0, root, 1, 0, 0, 1, 0, 0
    )
    struct.pack_into("<I", image, _SUPERBLOCK + 80, features)
    struct.pack_into("<HH", image, _SUPERBLOCK + 86, 1, _DEVICES // 128)
    # The device: a tag of 64 bytes, its blocks, and the address of the first one.
    struct.pack_into("<II", image, _DEVICES + 64, 1, 1)
    # A compact inode with its data behind it: format, attributes, mode, links, size, reserved,
    # address, number, owner, group, reserved.
    names = struct.pack("<QHBBQHBB", root, 24, 2, 0, root, 25, 2, 0) + b"..."
    inode = (2 << 1, 0, 0o40755, 2, len(names), 0, 0, 1, 0, 0, 0)
    struct.pack_into("<HHHHIIIIHHI", image, _ROOT, *inode)
    image[_ROOT + 32 : _ROOT + 32 + len(names)] = names
    return bytes(image)
