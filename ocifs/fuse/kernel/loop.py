"""Loop devices, for kernels that mount EROFS from block devices only (loop(4)).

Blocks; called in worker threads. A device is read-only, and is released with its last user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

# <linux/loop.h>
_CTL_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
# struct loop_config: fd and block size, then struct loop_info64, then eight reserved words.
_CONFIG = struct.Struct("<II5Q4I64s64s32s2Q8Q")
_ATTEMPTS = 16


@contextmanager
def loop_device(descriptor: int, block_size: int) -> Iterator[str]:
    """The path of a loop device over an open file. It is released after the block, or when the
    kernel no longer uses it. Raises OSError.
    """
    device, path = _configured(descriptor, block_size)
    try:
        yield path
    finally:
        os.close(device)


def _configured(descriptor: int, block_size: int) -> tuple[int, str]:
    with contextlib.closing(_opened("/dev/loop-control", os.O_RDWR)) as control:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control.fd, _CTL_GET_FREE)
            path = f"/dev/loop{number}"
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, _config(descriptor, block_size))
            except OSError as error:
                os.close(device)
                # Another process took the device since it was found free.
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    raise OSError(errno.EBUSY, "no free loop device")


def _config(descriptor: int, block_size: int) -> bytes:
    # struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type,
    # encrypt_key_size, flags; file name, crypt name, key; init.
    info = (0, 0, 0, 0, 0, 0, 0, 0, _READ_ONLY | _AUTOCLEAR, b"", b"", b"", 0, 0)
    return _CONFIG.pack(descriptor, block_size, *info, *[0] * 8)


class _Descriptor:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


def _opened(path: str, flags: int) -> _Descriptor:
    return _Descriptor(os.open(path, flags | os.O_CLOEXEC))
