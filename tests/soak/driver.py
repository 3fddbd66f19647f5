"""The soak: one mount of two registries, driven by chance through pushes, deletions, faults, kills,
evictions and damage.

Workers read at the same time, each in a thread of its own; one director changes the world. Every
answer is compared with what was pushed.

Rules that hold here:
- A wrong byte, an absence that the registry never reported, an errno that no fault explains
  (`expect`), a call that outlives its deadline by half, an unexpected error or a leak of any daemon
  (`daemons`) is a failure, remembered with what led to it.
- A fault of one registry explains nothing of the other. A fault that only first requests meet, and
  a fault of a mirror, explain nothing.
- The choices come from a seed, though threads and networks do not.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar

from tests.soak.daemons import Held, traces
from tests.soak.expect import FAULTS, MAX_WAIT, MIRRORED, REPEATED, SLOW, TIMEOUT, TTL
from tests.soak.house import House, Village, village
from tests.soak.reads import read_at, read_span, read_whole
from tests.soak.world import REPOSITORIES, TAGS, Artifact
from tests.support.faultproxy import LIES
from tests.support.mount import Mounted, mounted, run_ocifs

T = TypeVar("T")

DEADLINE = MAX_WAIT * 1.5  # of one system call
# Of a read, which may wait for pages that another reader has asked for, and ask itself when that
# one's request fails.
READ_DEADLINE = MAX_WAIT * 2.5
# Of a name, which the kernel looks up twice: it revalidates a name that it knows (LOOKUP), and if
# that fails, it looks it up (LOOKUP).
NAME_DEADLINE = MAX_WAIT * 2.5
CONTROL_DEADLINE = 5.0  # of one that needs no network
RECOVERY = 3 * TIMEOUT + 2  # seconds after the last fault within which everything is readable
DEAD = frozenset(
    {errno.ENOTCONN, errno.ECONNABORTED, errno.EBADF, errno.ENODEV, errno.ENOENT, errno.EIO}
)
WORKERS, HELD, FAILURES = 4, 6, 10
SLACK = 6.0  # the time to live of absence, and a moment between an answer and the judgement
SAID = 1_500  # characters of a daemon's last errors that the report has
CALM, NAME, MANIFEST, CONTENT = "calm", "name", "manifest", "content"


@dataclass
class Report:
    """What was done, and what was wrong."""

    seed: int
    operations: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    slowest: float = 0.0
    held: Held = field(default_factory=Held)
    failures: list[str] = field(default_factory=list)
    last_errors: str = ""  # of the daemon, at the first failure


@dataclass
class Call:
    """System calls under way. `reported`: they have outlived their deadline."""

    name: str
    began: float
    deadline: float
    reported: bool = False


@dataclass(frozen=True)
class Plan:
    """What a run is like.

    `full`: blobs are verified before anything of them is served. `most`: failures after which it
    ends. `first`: the first faults.
    """

    full: bool = False
    most: int = FAILURES
    first: tuple[str, ...] = ()


@dataclass
class Open:
    """A file that a worker keeps open: what it must read as, whatever becomes of its tag."""

    house: House
    descriptor: int
    content: bytes


@dataclass
class Look:
    """One operation: since when it runs, and which moment of its tag's history had been seen by
    then.
    """

    house: House
    what: str
    steps: tuple[str, ...]
    began: float = field(default_factory=time.monotonic)
    seen: int = 0


class Soak:
    """One run."""

    def __init__(self, village: Village, place: Path, seed: int, plan: Plan) -> None:
        self.village, self.place, self.full, self.most = village, place, plan.full, plan.most
        self.report = Report(seed)
        self.chance = random.Random(seed)
        self.recent: deque[str] = deque(maxlen=12)
        self.up, self.over = threading.Event(), threading.Event()
        self.downs: list[list[float]] = []  # when there was no daemon: from, until
        self.rotten = False
        self._note = threading.Lock()
        self._calls: dict[int, Call] = {}  # by thread
        self._took: deque[tuple[float, float]] = deque(
            maxlen=2_000
        )  # when calls ended, and how long they took
        self._changes: dict[int, float] = {}  # when each house gets its next phase
        kinds = [kind for kind in FAULTS if plan.full or kind not in LIES]
        self.plans = [
            phases(random.Random(seed + number), kinds, house, plan.first)
            for number, house in enumerate(village.houses)
        ]
        self._stack = contextlib.ExitStack()
        self.mount = self._mount()

    def _mount(self) -> Mounted:
        options = [
            f"--tag-ttl={TTL:g}",
            f"--timeout={TIMEOUT:g}",
            f"--max-wait={MAX_WAIT:g}",
            "--cache-size=24M",
        ]
        options += ["--verify", "full"] * self.full
        hosts = [house.host for house in self.village.houses]
        entered = mounted(hosts, self.place / "mnt", self.place, [*options, *self.village.options])
        mount = self._stack.enter_context(entered)
        self.up.set()
        return mount

    def run(self, seconds: float) -> Report:
        """Operations by chance for so long, then the quiet time in which all must come back."""
        for house in self.village.houses:
            for number, repository in enumerate(REPOSITORIES):
                house.world.push(repository, "v1", image=number == 0)
        workers = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        try:
            self._direct(time.monotonic() + seconds)
            self._calm()
        finally:
            self.over.set()
            for worker in workers:
                worker.join(READ_DEADLINE + TIMEOUT)
            self._watch()
        if any(worker.is_alive() for worker in workers):
            self.fail("a worker is stuck")
            self.mount.kill()  # which frees it
        elif len(self.report.failures) < self.most:
            self._recover()
        self._end()
        return self.report

    # What happens to the world.

    def _direct(self, end: float) -> None:
        acts: list[tuple[Callable[[], None], int]] = [
            *(
                (self._push, 30),
                (self._delete, 8),
                (self._kill, 2),
                (self._restart, 1),
                (self._evict, 3),
            ),
            (self._rot, 8),
        ]
        while time.monotonic() < end and len(self.report.failures) < self.most:
            for number in range(len(self.village.houses)):
                if time.monotonic() >= self._changes.get(number, 0.0):
                    self._next_phase(number)
            self._watch()
            act = self.chance.choices([each for each, _ in acts], [weight for _, weight in acts])[0]
            if act not in (self._kill, self._restart) or not self._is_slow():
                self._count(act.__name__.strip("_"))
                act()
            self.over.wait(self.chance.uniform(0.0, 0.8))

    def _next_phase(self, number: int) -> None:
        """A fault, and then phases that explain no errno: faults of first requests only, faults of
        the mirror, or none.
        """
        house, plan, now = self.village.houses[number], self.plans[number], time.monotonic()
        self._quiet(house)
        phase, kind = next(plan)
        seconds = self.chance.choice((3.0, 3.0, 9.0)) if phase == "fault" else 7.0
        if phase == "fault":
            house.faults.begin(kind, now)
            house.proxy.fault, house.proxy.share = kind, self.chance.choice((0.3, 1.0, 1.0))
        elif phase == "once":
            if kind in SLOW:
                house.delays.begin(kind, now)
            house.proxy.fault, house.proxy.share, house.proxy.once = kind, 1.0, True
        elif phase == "mirror" and house.mirror:
            house.mirror.fault = kind
        self.recent.append(f"{now:.1f} host {number}: {phase} {kind}")
        self.report.phases[f"{phase} {kind}".strip()] += 1
        self._changes[number] = now + seconds * self.chance.uniform(0.7, 1.3)

    def _is_slow(self) -> bool:
        """Whether calls wait under a slow fault: they must meet their deadline, and not the end of
        the daemon.
        """
        past = [fault for house in self.village.houses for fault in house.faults.past]
        return any(
            fault.kind in SLOW and fault.ended > time.monotonic() - DEADLINE for fault in past
        )

    def _quiet(self, house: House) -> None:
        for proxy in house.proxies():
            proxy.fault, proxy.once = "", False
        house.faults.end(time.monotonic())
        house.delays.end(time.monotonic())

    def _calm(self) -> None:
        for house in self.village.houses:
            self._quiet(house)

    def _push(self) -> None:
        repository, tag = self.chance.choice(REPOSITORIES), self.chance.choice(TAGS)
        self._house(self.chance).world.push(repository, tag, image=self.chance.random() < 0.4)

    def _delete(self) -> None:
        self._house(self.chance).world.delete(
            self.chance.choice(REPOSITORIES), self.chance.choice(TAGS)
        )

    def _kill(self) -> None:
        """Kill the daemon while the workers read; the next mount takes its place."""
        self._inspect()
        self._down()
        self.mount.kill()
        self._again()

    def _restart(self) -> None:
        self._inspect()
        self._down()
        self._again()

    def _down(self) -> None:
        self.up.clear()
        self.downs.append([time.monotonic(), float("inf")])

    def _again(self) -> None:
        self._end()
        self.mount = self._mount()
        self.downs[-1][1] = time.monotonic()
        self.recent.append(f"{time.monotonic():.1f} another daemon")

    def _end(self) -> None:
        mount = self.mount
        try:
            self._stack.close()
        except AssertionError as error:
            self.fail(str(error))
        for line in traces(mount.said):
            self.fail(f"a daemon's log has: {line}")

    def _evict(self) -> None:
        what = self.chance.choice(("gc", "clear"))
        run_ocifs("cache", what, cache=self.place, check=False)

    def _rot(self) -> None:
        """A bit of the cache changes on the disk."""
        cache = self.place / "ocifs/v1"
        files = [*cache.glob("blobs/*/*"), *cache.glob("partial/*/*")]
        with contextlib.suppress(FileNotFoundError):
            files = sorted(path for path in files if path.stat().st_size)
            if not files:
                return
            self.rotten = True
            with self.chance.choice(files).open("r+b", buffering=0) as file:
                at = self.chance.randrange(os.fstat(file.fileno()).st_size)
                byte = os.pread(file.fileno(), 1, at)
                if byte:
                    os.pwrite(file.fileno(), bytes([byte[0] ^ 0x10]), at)

    # What is asked, and judged.

    def _work(self, number: int) -> None:
        worker = Worker(self, random.Random(self.report.seed * 1000 + number))
        while not self.over.is_set() and len(self.report.failures) < self.most:
            if self.up.wait(0.5):
                worker.step()
        worker.drop()

    def _house(self, chance: random.Random) -> House:
        return chance.choice(self.village.houses)

    def path(self, house: House, repository: str, name: str) -> Path:
        return self.mount.path / house.host / repository / "_manifests" / name

    def open(self, path: Path, directory: int | None = None) -> int:
        """Open a file below the mount, or below an open directory, name by name.

        The kernel asks for each name of a path by itself, so each has a deadline of its own.
        """
        if directory is None:
            names = path.relative_to(self.mount.path).parts
            here = os.open(self.mount.path, os.O_PATH)
        else:
            names, here = path.parts, os.dup(directory)
        try:
            for name in names:
                found = self.timed(os.open, name, os.O_PATH, dir_fd=here, deadline=NAME_DEADLINE)
                os.close(here)
                here = found
            return self.timed(os.open, f"/proc/self/fd/{here}", os.O_RDONLY)
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(here)

    def timed(
        self,
        work: Callable[..., T],
        *arguments: object,
        deadline: float = DEADLINE,
        **named: object,
    ) -> T:
        """What a handful of system calls give; failed if they outlive their deadline."""
        began, name = time.monotonic(), getattr(work, "__name__", str(work))
        call = self._calls[threading.get_ident()] = Call(name, began, deadline)
        try:
            return work(*arguments, **named)
        finally:
            took = time.monotonic() - began
            self.report.slowest = max(self.report.slowest, took)
            self._took.append((began + took, took))
            if took > deadline and not call.reported:
                self.fail(f"{name} took {took:.1f} s, more than {deadline:g}")
            del self._calls[threading.get_ident()]

    def _watch(self) -> None:
        """Report the calls that outlive their deadline, while they do."""
        for call in list(self._calls.values()):
            if time.monotonic() > call.began + call.deadline and not call.reported:
                call.reported = True
                self.fail(f"{call.name} takes longer than {call.deadline:g} s")

    @contextlib.contextmanager
    def judged(self, look: Look, absent: Callable[[], bool]) -> Iterator[None]:
        """An operation that may fail for the faults' sake, and for no other."""
        try:
            yield
        except OSError as error:
            number, now = error.errno or 0, time.monotonic()
            if self._was_down(look.began, now) and number in DEAD:
                return
            name = errno.errorcode.get(number, str(number))
            with self._note:
                self.report.errors[name] += 1
            if number == errno.ENOENT:
                with look.house.world.lock:
                    allowed = absent()
            else:
                numbers = look.house.faults.errnos(look.steps, look.began, now)
                allowed = number in numbers or (
                    number == errno.EIO and bool(numbers) and self.rotten
                )
            if not allowed:
                self.fail(f"{look.what} {name} after {now - look.began:.1f} s: {error.filename}")

    def believed(self, look: Look) -> float:
        """Since when an operation's answer may have been believed.

        On a busy machine, what is slow may be older by what it took.
        """
        now = time.monotonic()
        return (
            look.began
            - TTL
            - SLACK
            - 2
            * max((took for ended, took in list(self._took) if ended > now - RECOVERY), default=0)
        )

    def _was_down(self, began: float, ended: float) -> bool:
        return any(first <= ended and began <= last for first, last in self.downs)

    def fail(self, what: str) -> None:
        faults = [
            [f"{each.kind} {each.began:.1f}-{each.ended:.1f}" for each in h.faults.past[-2:]]
            for h in self.village.houses
        ]
        self.report.last_errors = self.report.last_errors or self.errors()
        with self._note:
            self.report.failures.append(
                f"{time.monotonic():.1f} {what} (faults {faults}, recently {list(self.recent)})"
            )

    def _count(self, name: str) -> None:
        with self._note:
            self.report.operations[name] += 1

    def add(self, count: int) -> None:
        with self._note:
            self.report.compared += count

    def _inspect(self) -> None:
        """Hold what the daemon has used against its bounds."""
        blobs = sum(
            len(each.layers) + 2
            for house in self.village.houses
            for each in house.world.artifacts.values()
        )
        hosts = sum(len(house.proxies()) for house in self.village.houses)
        try:
            complaints = self.timed(
                self.report.held.complaints, self.mount, blobs, hosts, deadline=CONTROL_DEADLINE
            )
        except OSError as error:
            complaints = [f"the daemon cannot be inspected: {error}"]
        for complaint in complaints:
            self.fail(complaint)

    def _recover(self) -> None:
        """After the faults, everything that the registries have is readable, at first within a
        while, then at once.
        """
        deadline = time.monotonic() + RECOVERY
        for allowance in (deadline, 0.0):
            for house in self.village.houses:
                for (repository, digest), artifact in house.world.artifacts.items():
                    for path, content in contents(self.path(house, repository, digest), artifact):
                        if len(self.report.failures) < self.most:
                            self._must_read(path, content, allowance)
        while self._fetches() and time.monotonic() < deadline + RECOVERY:
            time.sleep(0.2)  # read-ahead that was begun ends by itself
        if self._fetches():
            self.fail(f"fetches are under way that no reader waits for: {self._fetches()}")
        self._inspect()

    def _must_read(self, path: Path, content: bytes, deadline: float) -> None:
        while True:
            try:
                found = self.timed(read_whole, path, deadline=READ_DEADLINE)
            except OSError as error:
                if time.monotonic() > deadline or error.errno == errno.ENOENT:
                    return self.fail(f"{path} after all faults: {error}")
                time.sleep(0.2)  # pauses after failures; nothing reports when one ends
            else:
                self.add(len(found))
                return (
                    None if found == content else self.fail(f"{path} after all faults: wrong bytes")
                )

    def errors(self) -> str:
        """The last lines of what the daemon has to say of errors."""
        with contextlib.suppress(OSError):
            return (self.mount.path / ".ocifs/errors").read_text()[-SAID:]
        return ""

    def _fetches(self) -> int:
        status = json.loads((self.mount.path / ".ocifs/status.json").read_bytes())
        return sum(registry["fetches"] for registry in status["registries"])


def phases(
    chance: random.Random, kinds: Sequence[str], house: House, first: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Phases without end: each kind of fault in turn, `first` before the others, each followed by
    some that explain no errno.
    """
    decks = {
        "fault": chain(first, deck(chance, kinds)),
        "once": deck(chance, REPEATED),
        "mirror": deck(chance, MIRRORED),
    }
    while True:
        yield "fault", next(decks["fault"])
        yield CALM, ""
        for _ in range(chance.choice((0, 3))):
            phase = chance.choice(("once", "mirror" if house.mirror else "once", CALM))
            yield phase, next(decks[phase]) if phase in decks else ""


def deck(chance: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    """Each of them once in a random order, and again."""
    while True:
        yield from chance.sample(kinds, len(kinds))


def contents(place: Path, artifact: Artifact) -> Iterator[tuple[Path, bytes]]:
    """Every file that an artifact's directory must have, unless it was deleted."""
    if artifact.gone is None:
        for number, content in enumerate(artifact.layers):
            yield place / f"layers/{number}/blob", content
        for name, content in artifact.files.items():
            yield place / "rootfs" / name, content


class Worker:
    """A thread that reads. It keeps some files open."""

    def __init__(self, soak: Soak, chance: random.Random) -> None:
        self.soak, self.chance = soak, chance
        self.held: list[Open] = []
        self._daemon = soak.mount

    def step(self) -> None:
        acts: list[tuple[Callable[[], None], int]] = [
            *(
                (self.read_tag, 30),
                (self.read_digest, 15),
                (self.hold, 6),
                (self.read_held, 14),
                (self.list_tags, 6),
            ),
            *((self.absent, 5), (self.control, 4)),
        ]
        if self._daemon is not self.soak.mount:
            self.drop()  # what the last daemon had open is dead
            self._daemon = self.soak.mount
        act = self.chance.choices([each for each, _ in acts], [weight for _, weight in acts])[0]
        self.soak._count(act.__name__)
        act()

    def drop(self) -> None:
        for each in self.held:
            with contextlib.suppress(OSError):
                os.close(each.descriptor)
        self.held.clear()

    def read_tag(self) -> None:
        """Whatever a tag's directory holds belongs to one manifest, and to one that the tag may
        mean.
        """
        house = self.soak._house(self.chance)
        repository, tag = self.chance.choice(REPOSITORIES), self.chance.choice(TAGS)
        look = Look(
            house,
            f"{repository}:{tag}",
            (NAME, MANIFEST, CONTENT),
            seen=house.seen(repository, tag),
        )

        def absent() -> bool:
            may_be = None in house.may_mean(repository, tag, self.soak.believed(look), look.seen)
            if may_be:
                house.saw(repository, tag, None, look.seen)
            return may_be

        with self.soak.judged(look, absent):
            directory = self.soak.open(self.soak.path(house, repository, tag))
            try:
                digest = self.soak.timed(read_at, directory, "digest").decode().strip()
                with house.world.lock:
                    if digest not in house.may_mean(
                        repository, tag, self.soak.believed(look), look.seen
                    ):
                        return self.soak.fail(
                            f"{repository}:{tag} is {digest}, which it has not been"
                        )
                    house.saw(repository, tag, digest, look.seen)
                self.compare(house, repository, digest, directory)
            finally:
                os.close(directory)

    def read_digest(self) -> None:
        house = self.soak._house(self.chance)
        repository, digest, artifact = self.pick(house)
        look = Look(house, f"{repository}@{digest}", (MANIFEST, CONTENT))
        with self.soak.judged(look, lambda: artifact.gone is not None):
            directory = self.soak.open(self.soak.path(house, repository, digest))
            try:
                self.compare(house, repository, digest, directory)
            finally:
                os.close(directory)

    def pick(self, house: House) -> tuple[str, str, Artifact]:
        with house.world.lock:
            (repository, digest), artifact = self.chance.choice(list(house.world.artifacts.items()))
        return repository, digest, artifact

    def compare(self, house: House, repository: str, digest: str, directory: int) -> None:
        """Read a layer's blob, or a file of an image."""
        artifact = house.world.artifacts.get((repository, digest))
        if artifact is None:
            return self.soak.fail(f"{repository} shows {digest}, which was not pushed there")
        number = self.chance.randrange(len(artifact.layers))
        name, content = f"layers/{number}/blob", artifact.layers[number]
        if artifact.files and self.chance.random() < 0.6:
            file = self.chance.choice(sorted(artifact.files))
            name, content = f"rootfs/{file}", artifact.files[file]
            if self.chance.random() < 0.3:
                self.list_root(house, artifact, directory)
        descriptor = self.soak.open(Path(name), directory)
        try:
            if self.chance.random() < 0.3:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            self.read(descriptor, content, f"{repository}@{digest} {name}")
        finally:
            os.close(descriptor)
        return None

    def list_root(self, house: House, artifact: Artifact, directory: int) -> None:
        """An image's root has what its layers leave of it."""
        opened = self.soak.open(Path("rootfs/d"), directory)
        try:
            found = {f"d/{name}" for name in self.soak.timed(os.listdir, opened)}
        finally:
            os.close(opened)
        if found != {name for name in artifact.files if "/" in name}:
            self.soak.fail(f"the root of {artifact.digest} at {house.host} has {found}")

    def read(self, descriptor: int, content: bytes, what: str) -> None:
        """Some bytes of a file, or all of them, are those that were pushed."""
        start, stop = 0, len(content)
        if self.chance.random() < 0.6:
            start = self.chance.randrange(len(content) + 1)
            stop = min(len(content), start + self.chance.choice((1, 4096, 100_000, 1_000_000)))
        found = bytearray()
        while start + len(found) < stop:
            until = min(stop, start + len(found) + 65_536)
            piece = self.soak.timed(
                read_span, descriptor, start + len(found), until, deadline=READ_DEADLINE
            )
            if not piece:
                break
            found += piece
        self.soak.add(len(found))
        if found != content[start:stop]:
            self.soak.fail(
                f"wrong bytes at {start}:{stop} of {len(content)} of {what}, {len(found)} came"
            )

    def hold(self) -> None:
        """Open a file and keep it open."""
        house = self.soak._house(self.chance)
        repository, digest, artifact = self.pick(house)
        number = self.chance.randrange(len(artifact.layers))
        look = Look(house, f"hold {repository}@{digest}", (MANIFEST, CONTENT))
        with self.soak.judged(look, lambda: artifact.gone is not None):
            path = self.soak.path(house, repository, digest) / f"layers/{number}/blob"
            self.held.append(Open(house, self.soak.open(path), artifact.layers[number]))
        if len(self.held) > HELD:
            os.close(self.held.pop(0).descriptor)

    def read_held(self) -> None:
        if not self.held:
            return
        each = self.chance.choice(self.held)
        with self.soak.judged(Look(each.house, "a held file", (CONTENT,)), lambda: False):
            self.read(each.descriptor, each.content, "a held file")

    def list_tags(self) -> None:
        house = self.soak._house(self.chance)
        repository = self.chance.choice(REPOSITORIES)
        with self.soak.judged(Look(house, f"tags of {repository}", (NAME,)), lambda: False):
            place = self.soak.mount.path / house.host / repository / "_tags"
            opened = self.soak.open(place)
            try:
                extra = set(self.soak.timed(os.listdir, opened)) - set(TAGS)
            finally:
                os.close(opened)
            if extra:
                self.soak.fail(f"{repository} lists tags that were never pushed: {extra}")

    def absent(self) -> None:
        """What was never there is absent when the registry can say so, and an outage otherwise:
        never there.
        """
        house = self.soak._house(self.chance)
        repository = self.chance.choice(REPOSITORIES)
        with self.soak.judged(Look(house, "something absent", (NAME,)), lambda: True):
            os.close(self.soak.open(self.soak.path(house, repository, "never-pushed") / "digest"))
            self.soak.fail("a tag that was never pushed is there")

    def control(self) -> None:
        """The mount's own files and statfs never wait for a network."""
        began, place = time.monotonic(), self.soak.mount.path
        try:
            status = self.soak.timed(
                read_whole, place / ".ocifs/status.json", deadline=CONTROL_DEADLINE
            )
            self.soak.timed(read_whole, place / ".ocifs/errors", deadline=CONTROL_DEADLINE)
            self.soak.timed(os.statvfs, place, deadline=CONTROL_DEADLINE)
            hosts = {registry["host"] for registry in json.loads(status)["registries"]}
            if hosts != {house.host for house in self.soak.village.houses}:
                self.soak.fail(f"status.json has the hosts {hosts}")
        except (OSError, ValueError) as error:
            if not self.soak._was_down(began, time.monotonic()):
                self.soak.fail(f"a control file: {error}")


def soak(seed: int, seconds: float, place: Path, plan: Plan) -> tuple[Report, str]:
    """One run in a directory of its own, until the time is over or there are too many failures: the
    report, and its line.
    """
    with village(place, seed) as built:
        run = Soak(built, place, seed, plan)
        try:
            report = run.run(seconds)
        finally:
            run._stack.close()
        made = sum(
            (proxy.made for house in built.houses for proxy in house.proxies()), Counter[str]()
        )
        return report, line(report, made)


def line(report: Report, made: Counter[str]) -> str:
    """Everything, as one line of JSON."""
    facts = {
        "seed": report.seed,
        "operations": sum(report.operations.values()),
        "bytes_compared": report.compared,
        "faults": sum(made.values()),
        "kinds_of_fault": len(made),
        **{
            name: report.operations[name]
            for name in ("kill", "restart", "evict", "rot", "push", "delete")
        },
        "slowest_call": round(report.slowest, 1),
        "memory_mib": report.held.memory_kib >> 10,
        "descriptors": report.held.descriptors,
        "threads": report.held.threads,
        "errors_seen": dict(report.errors),
        "failures": report.failures,
        **({"last_errors": report.last_errors} if report.failures else {}),
    }
    return json.dumps(facts)
