"""What is demanded of every daemon of a soak, just before it ends: no surprise, and bounded memory,
descriptors and threads.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ocifs.settings import NetworkSettings
from tests.support.mount import Mounted

MEMORY_KIB = 160 << 10  # resident at any time: 128 MiB are promised, and the allocator's slack
THREADS = 64  # trio's workers, those that decompress, and the kernel's
RESTING = 40  # descriptors of a daemon that has read nothing yet
A_BLOB = 3  # descriptors: its content, its map, the map in memory
SAME = 12  # descriptors of one file; a leak is of few files, long before there are too many in all
TRACES = ("Traceback", "unexpected ")


@dataclass
class Held:
    """What daemons held at the most."""

    memory_kib: int = 0
    descriptors: int = 0
    threads: int = 0

    def complaints(self, mount: Mounted, blobs: int, hosts: int) -> list[str]:
        """What is wrong with a daemon that lives; `blobs` are those that it may have open.

        Notes what it holds.
        """
        process = Path(f"/proc/{mount.process.pid}")
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        memory, threads = int(fields["VmHWM"].split()[0]), int(fields["Threads"])
        files = targets(process / "fd")
        descriptors = files.total()
        self.memory_kib = max(self.memory_kib, memory)
        self.descriptors = max(self.descriptors, descriptors)
        self.threads = max(self.threads, threads)
        most = RESTING + A_BLOB * blobs + NetworkSettings().connections * hosts
        status = json.loads((mount.path / ".ocifs/status.json").read_bytes())
        return [
            *(
                [f"{status['unexpected']} unexpected errors of a daemon"]
                if status["unexpected"]
                else []
            ),
            *(
                [f"a daemon grew to {memory} KiB, more than {MEMORY_KIB}"]
                if memory > MEMORY_KIB
                else []
            ),
            *(
                f"a daemon has {count} descriptors of {path} open, more than {SAME}"
                for path, count in files.items()
                if count > SAME
            ),
            *(
                [
                    f"a daemon has {descriptors} descriptors open, more than {most}: "
                    f"{files.most_common(3)}"
                ]
                if descriptors > most
                else []
            ),
            *(
                [f"a daemon has {threads} threads, more than {THREADS}"]
                if threads > THREADS
                else []
            ),
        ]


def targets(directory: Path) -> Counter[str]:
    """How many descriptors each file is open by."""
    found: Counter[str] = Counter()
    for link in directory.iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found[os.readlink(link)] += 1
    return found


def traces(said: bytes) -> list[str]:
    """The lines of a daemon's log that a bug wrote."""
    return [
        line
        for line in said.decode(errors="replace").splitlines()
        if line.startswith(TRACES) or TRACES[0] in line
    ]
