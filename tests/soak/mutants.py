"""Faulty variants of ocifs, each of which the soak must notice.

A mutant is code that is appended to a module of a copy of the package, where it replaces a function
or a class by a faulty one. It names what it replaces, so it survives changes of how that works. If
the name is gone, the copy cannot be imported and the mutant "no longer applies"; if a run never
calls it, it was "not reached". Both are failures of the mutant, to be mended here.

Rules that hold here: the clone itself is never changed; each mutant is one fault, and as small as a
mistake would be.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("ocifs", "tests", "scripts")
APPLIES_SECONDS, MORE_SECONDS = (
    60,
    240,
)  # to import a module; beyond the run itself, to build its world and to end

PRELUDE = """

import os as _os
import random as _random

_leaked = []

def _reached():
    if "OCIFS_MUTANT" in _os.environ:
        open(_os.environ["OCIFS_MUTANT"], "a").close()
"""


@dataclass(frozen=True)
class Mutant:
    """A fault: the module that it is in, and the code that makes it.

    `faults`: those of the registry under which it shows. `reason`: what the soak has to notice, if
    one kind of failure alone shows that its bound works.
    """

    name: str
    module: str
    code: str
    faults: tuple[str, ...] = ()
    reason: str = ""


def wrapped(name: str, module: str, method: str, body: str, *faults: str) -> Mutant:
    """A mutant of `Class.method`: `body` has the original as `_original`, and the arguments as
    `self, *a, **k`.
    """
    keyword = "async def" if "await" in body else "def"
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    code = f"_original = {method}\n{keyword} _mutant(self, *a, **k):\n{lines}\n{method} = _mutant\n"
    return Mutant(name, module, code, faults)


MUTANTS = (
    wrapped(
        *(
            "fail a fifth of the reads that the kernel asks for",
            "ocifs.store.blobs.cached",
            "CachedBlobs.read_blob",
        ),
        "_reached()\nif _random.random() < 0.2:\n    raise Unreachable('mutant')\nreturn await _original(self, *a, **k)",
    ),
    wrapped(
        *("skip the checksums of blocks", "ocifs.store.blobs.blocks", "BlobBlocks.are_sound"),
        "_reached()\nreturn True",
    ),
    Mutant(
        "never retry a request",
        "ocifs.oci.distribution.retry",
        "_original = retry_delay\ndef retry_delay(*a, **k):\n    _reached()\n",
    ),
    Mutant(
        "apply no deadline to operations",
        "ocifs.concurrency",
        "_original = deadline\ndef deadline(*a, **k):\n    _reached()\n    return _original(1e9, 1e9)\n",
        ("trickle",),
    ),
    wrapped(
        *(
            "read from one byte later at the start of a block",
            "ocifs.store.blobs.open_blob",
            "OpenBlob.read",
        ),
        "_reached()\noffset, length = a\nwrong = offset > 0 and offset % BLOCK == 0 and offset + length < self.size\n"
        "return await _original(self, offset + wrong, length)",
    ),
    Mutant(
        "take an outage for absence",
        "ocifs.fuse.errno",
        "import errno as _errno\nfrom ocifs.errors import DeadlineExceeded, Unreachable\n_original = errno_of\n"
        "def errno_of(error):\n    if not isinstance(error, (DeadlineExceeded, Unreachable)):\n        return _original(error)\n"
        "    _reached()\n    return _errno.ENOENT\n",
        ("refuse", "silent"),
    ),
    replace(
        wrapped(
            *("leak a descriptor with each read", "ocifs.store.blobs.cached"),
            "CachedBlobs.read_blob",
            "_reached()\n_os.open('/dev/null', 0)\nreturn await _original(self, *a, **k)",
        ),
        reason="descriptors",
    ),
    wrapped(
        *("leak the bytes of each read", "ocifs.store.blobs.cached", "CachedBlobs.read_blob"),
        "_reached()\nfound = await _original(self, *a, **k)\n_leaked.append(bytes(bytearray(found)))\nreturn found",
    ),
    Mutant(
        "believe tags for an hour",
        "ocifs.store.names.answers",
        "_Cache = TTLCache\ndef TTLCache(size, ttl, timer=None):\n    _reached()\n    return _Cache(size, 3600, timer=timer)\n",
    ),
    wrapped(
        *(
            "let the error of a background fetch end the daemon",
            "ocifs.store.blobs.fetching",
            "FetchRunner.run",
        ),
        "_reached()\nawait _original(self, *a, **k)\nif a[-1].fetch.error is not None:\n    raise a[-1].fetch.error",
    ),
    Mutant(
        "share one outage between all hosts",
        "ocifs.store.names.outage",
        "_shared = []\n_original = Outage.__init__\ndef _init(self, *a):\n    _reached()\n    _original(self, *a)\n"
        "    _shared.append(self)\n_check = Outage.check\ndef _any(self):\n    for each in _shared:\n        _check(each)\n"
        "Outage.__init__, Outage.check = _init, _any\n",
    ),
    wrapped(
        *("believe that an outage goes on for ever", "ocifs.store.names.outage", "Outage.failed"),
        "_reached()\n_original(self, *a, **k)\nself._resume_at += 3600",
        *("refuse", "silent"),
    ),
    wrapped(
        *(
            "block the event loop for seconds now and then",
            "ocifs.store.blobs.cached",
            "CachedBlobs.read_blob",
        ),
        "_reached()\nif _random.random() < 0.005:\n    import time\n    time.sleep(7)\nreturn await _original(self, *a, **k)",
    ),
    wrapped(
        "show files that a higher layer removed",
        "ocifs.layers.merge.apply",
        "_Merger._white_out",
        "_reached()",
    ),
)


@dataclass
class Verdict:
    """What became of a mutant, and how that was seen.

    `killed`, `noticed by something else`, `survived`, `not reached` or `no longer applies`.
    """

    mutant: Mutant
    word: str
    seconds: float
    how: str

    def line(self) -> str:
        facts = {
            "mutant": self.mutant.name,
            "verdict": self.word,
            "seconds": round(self.seconds),
            "how": self.how,
        }
        return json.dumps(facts)


def copy_with(mutant: Mutant, place: Path) -> None:
    """Copy the clone's packages to a directory, and put the fault into them."""
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = place / f"{mutant.module.replace('.', '/')}.py"
    path.write_text(path.read_text() + PRELUDE + mutant.code)


def environment_of(place: Path) -> dict[str, str]:
    """The environment in which programs use the copy."""
    return {**os.environ, "PYTHONPATH": str(place), "OCIFS_MUTANT": str(place / "reached")}


def why_not_applicable(mutant: Mutant, place: Path) -> str:
    """The error of importing a copy; empty if it can be imported."""
    command = [sys.executable, "-c", f"import {mutant.module} as m; print(m.__file__)"]
    done = subprocess.run(
        command,
        cwd=place,
        env=environment_of(place),
        capture_output=True,
        text=True,
        timeout=APPLIES_SECONDS,
        check=False,
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return (
        ""
        if done.stdout.startswith(str(place))
        else f"{done.stdout.strip()} was imported, and not the copy"
    )


def try_mutant(mutant: Mutant, seconds: float, seed: int, place: Path) -> Verdict:
    """Let the soak run on a mutant, until it notices or the time is over."""
    began = time.monotonic()

    def verdict(word: str, how: str = "") -> Verdict:
        return Verdict(mutant, word, time.monotonic() - began, how)

    try:
        copy_with(mutant, place)
    except FileNotFoundError as error:
        return verdict("no longer applies", str(error))
    if why := why_not_applicable(mutant, place):
        return verdict("no longer applies", why)
    words = ["--minutes", str(seconds / 60), "--runs", "1", "--seed", str(seed), "--first"]
    words += [word for fault in mutant.faults for word in ("--fault", fault)]
    command = [sys.executable, "-m", "scripts.soak", *words]
    with subprocess.Popen(
        command,
        cwd=place,
        env=environment_of(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = process.communicate(timeout=seconds + MORE_SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=MORE_SECONDS)
            return verdict("killed", "the soak did not end")
    if not (place / "reached").exists():
        return verdict("not reached")
    if process.returncode and mutant.reason not in how(said):
        return verdict("noticed by something else", how(said))
    return verdict("killed" if process.returncode else "survived", how(said))


def how(said: str) -> str:
    """What a soak noticed first."""
    last = (said.strip().splitlines() or [""])[-1]
    try:
        return str((json.loads(last)["failures"] or [""])[0])[:300]
    except (ValueError, KeyError):
        return last[:300]
