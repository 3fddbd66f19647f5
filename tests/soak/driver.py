"""The soak: a mount of a real registry, driven by chance through pushes, deletions, faults, kills and evictions; every answer is compared.

Rules that hold here: a wrong byte, an absence that nobody caused, an errno that no fault explains and an operation that outlives its
deadline are failures, each remembered with what led to it; after the faults everything must be readable again without a restart; the
choices come from a seed, though threads and networks do not.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.world import REPOSITORIES, TAGS, World
from tests.support.faultproxy import LIES, SIZES, WAYS, FaultProxy, fault_proxy
from tests.support.mount import Mounted, mounted, run_ocifs
from tests.support.registry import running_registry

TTL, TIMEOUT, MAX_WAIT = 1.0, 4.0, 12.0
SLACK = 6.0  # for the negative time to live of five seconds
RECOVERY = 90.0  # seconds within which everything must be readable after the last fault: pauses grow to 60
OUTAGES = frozenset(
    {
        *(errno.EIO, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EAGAIN, errno.EACCES),
        errno.EFBIG,
    }
)
DEAD = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.EBADF, errno.ENODEV})
READERS = 8


@dataclass
class Report:
    """What was done, and what was wrong."""

    seed: int
    operations: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    failures: list[str] = field(default_factory=list)

    def line(self, proxy: FaultProxy) -> str:
        """Everything, as one line of JSON."""
        facts = {
            "seed": self.seed,
            "operations": sum(self.operations.values()),
            "bytes_compared": self.compared,
            "faults": sum(proxy.made.values()),
            "kinds_of_fault": len(proxy.made),
            **{name: self.operations[name] for name in ("kill", "restart", "evict", "push", "delete")},
            "errors_seen": dict(self.errors),
            "failures": self.failures,
        }
        return json.dumps(facts)


@dataclass
class Held:
    """A file that is held open: what it must read as, whatever becomes of its tag."""

    descriptor: int
    content: bytes


class Soak:
    """One run. `full`: verified in full before anything is served, so that even lies on the wire may be tried."""

    def __init__(self, world: World, proxy: FaultProxy, place: Path, *, full: bool) -> None:
        self.world, self.proxy, self.place, self.full = world, proxy, place, full
        self.report = Report(proxy.seed)
        self.chance = world.chance
        self.held: list[Held] = []
        self.last_fault = time.monotonic()
        self.quiet_since = time.monotonic()
        self._stack = contextlib.ExitStack()
        self.mount = self._mount()

    def _mount(self) -> Mounted:
        options = [f"--tag-ttl={TTL:g}", f"--timeout={TIMEOUT:g}", f"--max-wait={MAX_WAIT:g}", "--cache-size=24M"]
        options += ["--verify", "full"] * self.full
        return self._stack.enter_context(mounted(self.proxy.host, self.place / "mnt", self.place, options))

    def close(self) -> None:
        self._drop()
        self._stack.close()

    def _drop(self) -> None:
        for each in self.held:
            with contextlib.suppress(OSError):
                os.close(each.descriptor)
        self.held.clear()

    def run(self, seconds: float) -> Report:
        """Operations by chance for so long, then the quiet time in which all must come back."""
        for repository in REPOSITORIES:
            self.world.push(repository, "v1")
        choices: list[tuple[Callable[[], None], int]] = [
            *((self.read_tag, 30), (self.read_digest, 15), (self.hold, 6), (self.read_held, 14), (self.list_tags, 6)),
            *((self.absent, 5), (self.burst, 4), (self.push, 8), (self.delete, 3), (self.set_fault, 10)),
            *((self.kill, 1), (self.restart, 1), (self.evict, 2)),
        ]
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.report.failures) < 20:
            act = self.chance.choices([each for each, _ in choices], [weight for _, weight in choices])[0]
            self.report.operations[act.__name__] += 1
            began = time.monotonic()
            act()
            took = time.monotonic() - began
            if act not in (self.kill, self.restart) and took > (MAX_WAIT + 5) * 4:  # a handful of calls, each bounded
                self.fail(f"{act.__name__} took {took:.1f} s")
        self.recover()
        return self.report

    def fail(self, what: str) -> None:
        self.report.failures.append(f"{what} (fault {self.proxy.fault!r}, {dict(self.report.operations)})")

    @contextlib.contextmanager
    def judged(self, what: str, *, absent_is_fine: bool = False) -> Iterator[None]:
        """An operation that may fail for the faults' sake, and for no other."""
        try:
            yield
        except OSError as error:
            number = error.errno or 0
            name = errno.errorcode.get(number, str(number))
            self.report.errors[name] += 1
            outage = number in OUTAGES and self.seen_fault()
            if not outage and not (absent_is_fine and number == errno.ENOENT):
                self.fail(f"{what}: {name} {error.filename}")

    def seen_fault(self) -> bool:
        """Whether a fault can still be felt: pauses after failures grow while the registry fails."""
        return bool(self.proxy.fault) or time.monotonic() - self.last_fault < RECOVERY

    def pick(self) -> tuple[str, str]:
        return self.chance.choice(REPOSITORIES), self.chance.choice(TAGS)

    def path(self, repository: str, name: str) -> str:
        return str(self.mount.path / repository / "_manifests" / name)

    def read_tag(self) -> None:
        """Whatever a tag's directory holds belongs to one manifest, and to one that the tag may mean."""
        repository, tag = self.pick()
        began = time.monotonic()
        since = (self.quiet_since if self.seen_fault() else began) - TTL - SLACK
        maybe_absent = None in self.world.allowed(repository, tag, since)
        with self.judged(f"{repository}:{tag}", absent_is_fine=maybe_absent):
            directory = os.open(self.path(repository, tag), os.O_RDONLY)
            try:
                digest = read_at(directory, "digest").decode().strip()
                if digest not in self.world.allowed(repository, tag, since):
                    self.fail(f"{repository}:{tag} is {digest}, which it has not been")
                self.compare_layers(repository, digest, directory)
            finally:
                os.close(directory)

    def read_digest(self) -> None:
        known = [key for key in self.world.artifacts if key[0] in REPOSITORIES]
        repository, digest = self.chance.choice(known)
        gone = self.world.artifacts[repository, digest].gone is not None
        with self.judged(f"{repository}@{digest}", absent_is_fine=gone):
            directory = os.open(self.path(repository, digest), os.O_RDONLY)
            try:
                self.compare_layers(repository, digest, directory)
            finally:
                os.close(directory)

    def compare_layers(self, repository: str, digest: str, directory: int) -> None:
        artifact = self.world.artifacts.get((repository, digest))
        if artifact is None:
            return self.fail(f"{repository} shows {digest}, which nobody pushed there")
        number = self.chance.randrange(len(artifact.layers))
        content = artifact.layers[number]
        descriptor = os.open(f"layers/{number}/blob", os.O_RDONLY, dir_fd=directory)
        try:
            if self.chance.random() < 0.3:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            self.compare(descriptor, content)
        finally:
            os.close(descriptor)
        return None

    def compare(self, descriptor: int, content: bytes) -> None:
        """Some bytes of a file, or all of them, with what was pushed."""
        if self.chance.random() < 0.4:
            start, stop = 0, len(content)
        else:
            start = self.chance.randrange(len(content) + 1)
            stop = min(len(content), start + self.chance.choice((1, 4096, 100_000, 1_000_000)))
        found = read_span(descriptor, start, stop)
        self.report.compared += len(found)
        if found != content[start:stop]:
            self.fail(f"wrong bytes at {start}:{stop} of {len(content)}, {len(found)} came")

    def hold(self) -> None:
        """Open a file and keep it open."""
        repository, digest = self.chance.choice(list(self.world.artifacts))
        artifact = self.world.artifacts[repository, digest]
        number = self.chance.randrange(len(artifact.layers))
        with self.judged("hold", absent_is_fine=artifact.gone is not None):
            descriptor = os.open(f"{self.path(repository, digest)}/layers/{number}/blob", os.O_RDONLY)
            self.held.append(Held(descriptor, artifact.layers[number]))
        if len(self.held) > 12:
            os.close(self.held.pop(0).descriptor)

    def read_held(self) -> None:
        if self.held:
            each = self.chance.choice(self.held)
            with self.judged("a held file"):
                self.compare(each.descriptor, each.content)

    def list_tags(self) -> None:
        repository = self.chance.choice(REPOSITORIES)
        with self.judged(f"tags of {repository}"):
            extra = set(os.listdir(self.mount.path / repository / "_tags")) - set(TAGS)
            if extra:
                self.fail(f"tags of {repository} that nobody made: {extra}")

    def absent(self) -> None:
        """What was never there is absent when the registry can say so, and an outage otherwise: never there."""
        repository = self.chance.choice(REPOSITORIES)
        with self.judged("something absent", absent_is_fine=True):
            os.stat(self.path(repository, "never-pushed") + "/digest")
            self.fail("a tag that was never pushed is there")

    def burst(self) -> None:
        """Several readers of one file at once."""
        repository, digest = self.chance.choice(list(self.world.artifacts))
        artifact = self.world.artifacts[repository, digest]
        number = self.chance.randrange(len(artifact.layers))
        path, content = f"{self.path(repository, digest)}/layers/{number}/blob", artifact.layers[number]

        def read(_: int) -> bytes | OSError:
            try:
                return read_whole(Path(path))
            except OSError as error:
                return error

        with ThreadPoolExecutor(READERS) as pool:
            for found in pool.map(read, range(READERS)):
                with self.judged("a burst", absent_is_fine=artifact.gone is not None):
                    if isinstance(found, OSError):
                        raise found
                    self.report.compared += len(found)
                    if found != content:
                        self.fail("wrong bytes in a burst")

    def push(self) -> None:
        self.world.push(*self.pick())

    def delete(self) -> None:
        self.world.delete(*self.pick())

    def set_fault(self) -> None:
        """Another fault, or none."""
        kinds = (*WAYS, *SIZES, *(LIES * self.full))
        if self.proxy.fault:
            self.last_fault = time.monotonic()
        elif not self.seen_fault():
            self.quiet_since = time.monotonic()
        self.proxy.fault = "" if self.chance.random() < 0.5 else self.chance.choice(kinds)
        self.proxy.share = self.chance.choice((0.1, 0.5, 1.0))

    def kill(self) -> None:
        """End the daemon as a crash would, in the middle of a fetch; the next mount takes its place."""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._read_quietly)
            time.sleep(self.chance.random() * 0.2)  # a moment by chance, which is what is tried
            self.mount.kill()
        self._again()

    def _read_quietly(self) -> None:
        with contextlib.suppress(OSError):
            repository, digest = random.choice(list(self.world.artifacts))
            Path(self.path(repository, digest), "layers", "0", "blob").read_bytes()

    def restart(self) -> None:
        self._again()

    def _again(self) -> None:
        self._drop()
        self._stack.close()
        self.mount = self._mount()

    def evict(self) -> None:
        run_ocifs("cache", "gc", cache=self.place, check=False)

    def recover(self) -> None:
        """With the faults over, all that the registry has must be there, and nothing may be left under way."""
        self.proxy.fault = ""
        deadline = time.monotonic() + RECOVERY
        for (repository, digest), artifact in self.world.artifacts.items():
            if artifact.gone is not None:
                continue
            for number, content in enumerate(artifact.layers):
                found = self._in_time(Path(self.path(repository, digest), "layers", str(number), "blob"), deadline)
                if found != content:
                    self.fail(f"after all faults {repository}@{digest} layer {number} is not what was pushed")
                self.report.compared += len(content)
        status = self._status()
        while any(registry["fetches"] for registry in status["registries"]) and time.monotonic() < deadline:
            time.sleep(0.5)  # a fetch that was stalled ends by its own deadline, the stall time-out
            status = self._status()
        if any(registry["fetches"] for registry in status["registries"]):
            self.fail(f"fetches are under way that nobody waits for: {status['registries']}")
        if status["unexpected"]:
            self.fail(f"{status['unexpected']} unexpected exceptions")

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.mount.path / ".ocifs" / "status.json").read_bytes())
        return found

    def _in_time(self, path: Path, deadline: float) -> bytes | str:
        while True:
            try:
                return read_whole(path)
            except OSError as error:
                if time.monotonic() > deadline or error.errno == errno.ENOENT:
                    return str(error)
                time.sleep(0.5)  # pauses after failures are up to a minute; nothing says when one ends


def read_at(directory: int, name: str) -> bytes:
    """A small file of an open directory."""
    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def read_whole(path: Path) -> bytes:
    """A whole file. Python's own `read` gives None in place of EAGAIN."""
    with path.open("rb", buffering=0) as file:
        found = file.readall()
    if found is None:
        raise BlockingIOError(errno.EAGAIN, "the registry asks for patience", str(path))
    return found


def read_span(descriptor: int, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file, less only where it ends."""
    found = bytearray()
    while start + len(found) < stop:
        piece = os.pread(descriptor, stop - start - len(found), start + len(found))
        if not piece:
            break
        found += piece
    return bytes(found)


def soak(seed: int, seconds: float, place: Path, *, full: bool) -> tuple[Report, str]:
    """One run in a directory of its own: the report, and its line."""
    data = place / "registry"
    data.mkdir()
    with running_registry(data) as registry, fault_proxy(registry.host, seed) as proxy:
        world = World(registry, random.Random(seed))
        run = Soak(world, proxy, place, full=full)
        try:
            report = run.run(seconds)
        finally:
            run.close()
        return report, report.line(proxy)
