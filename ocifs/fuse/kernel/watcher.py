"""`--auto-unmount` for mounts that the kernel serves: a process that unmounts when the daemon dies.

FUSE's own helper unmounts FUSE only. Here a shell reads from a pipe to the daemon. A line means
that the mount has ended; the end of the pipe without a line means that the daemon has died, and
`ocifs umount --lazy` detaches the mount.

Started in a worker thread after the mount was made. The shell ignores the signals of a terminal,
and ends with the daemon.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ocifs.programs import find_program

_SCRIPT = 'trap "" INT HUP QUIT TERM; read -r line || exec "$@"'


class Watcher:
    """The process. `end` must be called when the mount has ended."""

    def __init__(self, mountpoint: Path) -> None:
        """Raises OSError if it cannot be started."""
        shell = find_program("sh") or "/bin/sh"
        umount = [sys.executable, "-P", "-m", "ocifs", "umount", "--lazy", "--", str(mountpoint)]
        self._process = subprocess.Popen(
            [shell, "-c", _SCRIPT, "sh", *umount],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def end(self) -> None:
        """End the process, which then unmounts nothing."""
        self._process.communicate(b"\n", timeout=10)
