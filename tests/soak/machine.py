"""Hypothesis drives a real mount of a real registry, and a model judges every answer.

Rules that hold here: a step is a rule, a law an assertion; the daemons' clock is moved, so that
times to live, pauses and deadlines pass without anybody waiting for them; whatever was done, at the
end the mount shows what the registry has, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.soak.clock import Clock
from tests.soak.reads import read_at, read_span, read_whole
from tests.soak.reference import TTL, Reference
from tests.soak.world import REPOSITORIES, TAGS, World
from tests.support.faultproxy import LIES, SIZES, WAYS, fault_proxy
from tests.support.mount import Mounted, mounted, run_ocifs
from tests.support.registry import running_registry

T = TypeVar("T")

MAX_WAIT = 300.0  # --max-wait
STEP = 11.0  # seconds of the daemons' that pass at once for who waits under a fault
REMEMBERED = 5.5  # seconds for which the kernel may believe an answer of ours, and a moment
STUCK = 60.0  # real seconds after which an operation without a fault is stuck
LONG = 500  # seconds after which no pause that followed a failure is still on: they grow to 300
DISTURBANCES = 6  # steps between two of them
SAID = 6_000  # characters of a daemon's log that a failure shows
LARGE, SMALL = "1G", "12M"

repositories, tags = st.sampled_from(REPOSITORIES), st.sampled_from(TAGS)
# Hypothesis wants the same draws in the same order for the same steps, whatever came of them: so no
# draw depends on an answer.
numbers = st.integers(0, 2**32)
chances = numbers.map(random.Random)


@dataclass
class Held:
    """A file that is open: what it must read as, whatever becomes of its tag."""

    descriptor: int
    content: bytes
    digest: str


class Machine(RuleBasedStateMachine):
    """One mount, its registry and what is known of both.

    `done`: what all runs did; `said`: what the last daemon of the last run said.
    """

    done: ClassVar[Counter[str]] = Counter()
    said: ClassVar[str] = ""

    @initialize(
        seed=st.integers(0, 2**32), full=st.booleans(), size=st.sampled_from((LARGE, SMALL))
    )
    def begin(self, seed: int, full: bool, size: str) -> None:
        self.full = full
        self.stack, self.mounts = contextlib.ExitStack(), contextlib.ExitStack()
        self.place = Path(tempfile.mkdtemp(prefix="ocifs-model-"))
        self.stack.callback(shutil.rmtree, self.place, ignore_errors=True)
        (self.place / "registry").mkdir()
        self.clock = Clock(self.place / "clock")
        registry = self.stack.enter_context(running_registry(self.place / "registry"))
        self.proxy = self.stack.enter_context(fault_proxy(registry.host, seed))
        self.world = World(registry, random.Random(seed), self.clock.now)
        self.model = Reference(self.world, self.clock.now, self.clock.passed, size == LARGE)
        self.threads = self.stack.enter_context(ThreadPoolExecutor(8))
        self.options = [f"--tag-ttl={TTL:g}", f"--max-wait={MAX_WAIT:g}", f"--cache-size={size}"]
        self.options += ["--verify", "full"] * full
        self.held: list[Held] = []
        self.strangers = self.steps = 0
        self.world.push(REPOSITORIES[0], TAGS[0])
        self.mount = self._mount()
        self.done["mounts"] += 1

    def _mount(self) -> Mounted:
        environment = {**os.environ, **self.clock.environment}
        where = self.place / "mnt"
        return self.mounts.enter_context(
            mounted(self.proxy.host, where, self.place, self.options, environment)
        )

    @invariant()
    def count(self) -> None:
        self.steps += 1

    # What happens to the registry.

    @rule(repository=repositories, tag=tags)
    def push(self, repository: str, tag: str) -> None:
        self.world.push(repository, tag)
        self.done["pushes"] += 1

    @rule(data=st.data(), tag=tags)
    def retag(self, data: st.DataObject, tag: str) -> None:
        there = [key for key, artifact in self.world.artifacts.items() if artifact.gone is None]
        if there:
            repository, digest = data.draw(st.sampled_from(there))
            self.world.retag(repository, tag, digest)
            self.done["retags"] += 1

    @rule(repository=repositories, tag=tags)
    def delete(self, repository: str, tag: str) -> None:
        self.world.delete(repository, tag)
        self.done["deletes"] += 1

    # What happens on the way.

    @rule(data=st.data(), share=st.sampled_from((1.0, 1.0, 0.3)))
    def fault(self, data: st.DataObject, share: float) -> None:
        kinds = (*WAYS, *SIZES, *(LIES * 6 * self.full))  # as often as a third of the others
        self._fault(data.draw(st.sampled_from(kinds)), share)

    @precondition(lambda self: self.model.fault)
    @rule()
    def mend(self) -> None:
        self._fault("", 1.0)

    @rule(
        fault=st.sampled_from(("refuse", "500")), repository=repositories, tag=tags, chance=chances
    )
    def away(self, fault: str, repository: str, tag: str, chance: random.Random) -> None:
        """The registry goes away, and a mount begins that believes nothing yet: it has what is
        written down.
        """
        self.read_tag(repository, tag, chance)
        self._fault(fault, 1.0)
        self._again()
        self.read_tag(repository, tag, chance)

    def _fault(self, fault: str, share: float) -> None:
        self.proxy.share, self.proxy.fault = share, fault
        self.model.set_fault(fault, share)

    @rule(seconds=st.sampled_from((3, 30, 70, 70, LONG, 100_000)))
    def time_passes(self, seconds: int) -> None:
        self.model.hurried = bool(self.model.felt())
        if seconds >= LONG:
            self._recover()
        elif not self.model.felt():
            self._until_quiet()
        self.clock.jump(seconds)
        self.done["jumps of the clock"] += 1

    def _recover(self) -> None:
        """Let what is under way end, and then the pauses that follow when it ended badly.

        With the fault over, nothing of it is felt.
        """
        self.clock.jump(MAX_WAIT + 60)
        for _ in range(
            10
        ):  # questions that wait are told nowhere; each look lets those end whose time is up
            self._status()
            time.sleep(0.02)
        self._until_quiet()
        if not self.model.fault:
            self.model.recovered()

    def _until_quiet(self) -> None:
        """Until nothing is under way: time does not jump under a request that nothing is wrong
        with.
        """
        deadline = time.monotonic() + STUCK
        while not self._is_quiet():
            assert time.monotonic() < deadline, "a fetch goes on that nobody waits for"
            time.sleep(0.1)  # what was begun ends by itself
            self.clock.jump(STEP if self.model.felt() else 0)

    def _is_quiet(self) -> bool:
        return not any(registry["fetches"] for registry in self._status()["registries"])

    # What happens to the mount and its cache.

    @precondition(lambda self: self.steps > DISTURBANCES)
    @rule(
        what=st.sampled_from(("restart", "kill", "kill", "gc", "clear", "rot", "rot")),
        data=st.data(),
        number=numbers,
    )
    def disturb(self, what: str, data: st.DataObject, number: int) -> None:
        """Something that is rare, and takes a while."""
        self.steps = 0
        if what == "restart":
            self._again()
            self.done["restarts"] += 1
        elif what == "kill":
            self._kill(data)
        elif what == "rot":
            self._rot(number)
        else:
            run_ocifs("cache", what, "--cache-size", "1M", cache=self.place, check=False)
            self.model.evicted()
            self.done["evictions by hand"] += 1

    def _kill(self, data: st.DataObject) -> None:
        """End the daemon as a crash would, in the middle of a read."""
        repository, digest = data.draw(st.sampled_from(list(self.world.artifacts)))
        reading = self.threads.submit(read_whole, self.path(repository, digest) / "layers/0/blob")
        wait([reading], data.draw(st.integers(0, 60)) / 1000)
        self.mount.kill()
        self.done["kills"] += 1
        self._again()

    def _again(self) -> None:
        self._drop()
        self.mounts.close()
        self.mount = self._mount()

    def _drop(self) -> None:
        for each in self.held:
            with contextlib.suppress(OSError):
                os.close(each.descriptor)
        self.held.clear()

    def _rot(self, number: int) -> None:
        """A bit of what is kept changes on the disk."""
        cache = self.place / "ocifs/v1"
        files = sorted(
            path
            for path in (*cache.glob("blobs/*/*"), *cache.glob("partial/*/*"))
            if path.stat().st_size
        )
        if not files:
            return
        path = files[number % len(files)]
        with path.open("r+b", buffering=0) as file:
            at = number % os.fstat(file.fileno()).st_size
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 0x10]), at)
        self.model.rot(f"sha256:{path.name.removesuffix('.map')}")
        self.done["bits flipped"] += 1

    # What is asked, and judged.

    def path(self, repository: str, name: str) -> Path:
        return self.mount.path / repository / "_manifests" / name

    def patiently(self, work: Callable[[], T]) -> T:
        """What an operation gives; under a fault the daemons' time passes quickly, and none may
        take more of it than it is allowed.
        """
        self.done["operations"] += 1
        running: Future[T] = self.threads.submit(work)
        began, real = self.clock.now(), time.monotonic()
        while True:
            if wait([running], 0.3).done:
                return running.result()
            if self.model.felt():
                self.clock.jump(STEP)
                self.model.hurried = True
                assert self.clock.now() < began + MAX_WAIT + 60, "an operation outlives --max-wait"
            assert time.monotonic() < real + STUCK, "an operation is stuck"

    @contextlib.contextmanager
    def judged(
        self, repository: str, name: str, *, absent: bool = False, content: bytes = b""
    ) -> Iterator[None]:
        """An operation on something that may fail for the faults' sake, or for that of damage to
        `content`, and for no other.
        """
        try:
            yield
        except OSError as error:
            number = error.errno or 0
            code = errno.errorcode.get(number, str(number))
            self.done[f"errno {code}"] += 1
            if number == errno.ENOENT:
                assert self.model.may_be_absent(repository, name, absent), (
                    f"{repository} {name} is absent, which nobody said"
                )
            else:
                allowed = self.model.errnos() | self.model.damage(content)
                assert number in allowed, (
                    f"{repository} {name}: {code}, with faults {self.model.felt()}"
                )

    @rule(repository=repositories, tag=tags, chance=chances)
    def read_tag(self, repository: str, tag: str, chance: random.Random) -> None:
        """Whatever a tag's directory holds belongs to one manifest, and to one that the tag may
        mean.
        """
        deadline = time.monotonic() + REMEMBERED
        while True:
            meaning = self._look(repository, tag, chance)
            if meaning == "":
                return
            if meaning in self.model.meanings(repository, tag, "itself"):
                self.model.saw(repository, tag, meaning)
                return
            remembered = self.model.meanings(
                repository, tag, "itself", self.clock.passed(REMEMBERED)
            )
            assert meaning in remembered, f"{repository}:{tag} is {meaning}, which it has not been"
            assert time.monotonic() < deadline, f"{repository}:{tag} is still {meaning}"
            time.sleep(0.1)  # nothing tells when the kernel forgets a name

    def _look(self, repository: str, tag: str, chance: random.Random) -> str | None:
        """What a tag means and, where it means something, whether all of it is as it was pushed.

        "": nobody can say.
        """
        digest: str | None = ""
        must = self.model.must_show(repository, tag)
        with self.judged(repository, tag):
            try:
                directory = self.patiently(lambda: os.open(self.path(repository, tag), os.O_RDONLY))
                try:
                    digest = self.patiently(lambda: read_at(directory, "digest")).decode().strip()
                    self._inside(repository, digest, directory, chance)
                finally:
                    os.close(directory)
            except FileNotFoundError:
                assert not digest, f"{repository}@{digest} lacks something"
                assert self.model.may_be_absent(repository, tag, True), (
                    f"{repository}:{tag} is absent, which nobody said"
                )
                return None
        assert digest or not must, (
            f"{repository}:{tag} was known, and is not shown while the registry is away"
        )
        return digest

    def _inside(self, repository: str, digest: str, directory: int, chance: random.Random) -> None:
        """What a directory holds is what was pushed under its digest."""
        assert (repository, digest) in self.world.artifacts, (
            f"{repository} shows {digest}, which nobody pushed there"
        )
        with self.judged(repository, digest):
            body = self.patiently(lambda: read_at(directory, "manifest.json"))
            assert f"sha256:{hashlib.sha256(body).hexdigest()}" == digest, (
                "a manifest that is not its digest's"
            )
            self._compare_layer(repository, digest, directory, chance)

    @rule(data=st.data(), chance=chances)
    def read_digest(self, data: st.DataObject, chance: random.Random) -> None:
        repository, digest = data.draw(st.sampled_from(list(self.world.artifacts)))
        gone = self.world.artifacts[repository, digest].gone is not None
        with self.judged(repository, digest, absent=gone):
            directory = self.patiently(lambda: os.open(self.path(repository, digest), os.O_RDONLY))
            try:
                self._inside(repository, digest, directory, chance)
            finally:
                os.close(directory)

    def _compare_layer(
        self, repository: str, digest: str, directory: int, chance: random.Random
    ) -> None:
        layers = self.world.artifacts[repository, digest].layers
        number = chance.randrange(len(layers))
        descriptor = self.patiently(
            lambda: os.open(f"layers/{number}/blob", os.O_RDONLY, dir_fd=directory)
        )
        try:
            if chance.random() < 0.5:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            with self.judged(repository, f"{digest} layer {number}", content=layers[number]):
                whole = self._compare(descriptor, layers[number], chance)
                if whole and self.model.roomy:
                    self.model.keep(repository, digest, number)
        finally:
            os.close(descriptor)

    def _compare(self, descriptor: int, content: bytes, chance: random.Random) -> bool:
        """Some bytes of a file, or all of them, are those that were pushed.

        Whether it was all of them.
        """
        start, stop = 0, len(content)
        if chance.random() < 0.5:
            start = chance.randrange(len(content) + 1)
            stop = min(len(content), start + chance.choice((1, 4096, 100_000, 1_000_000)))
        found = self.patiently(lambda: read_span(descriptor, start, stop))
        self.done["bytes compared"] += len(found)
        assert found == content[start:stop], (
            f"wrong bytes at {start}:{stop} of {len(content)}, {len(found)} came"
        )
        return (start, stop) == (0, len(content))

    @rule(number=numbers)
    def read_kept(self, number: int) -> None:
        """What was read whole, and not evicted since, is there whatever the registry does."""
        kept = sorted(self.model.kept)
        if kept:
            repository, digest, layer = kept[number % len(kept)]
            content = self.world.artifacts[repository, digest].layers[layer]
            path = self.path(repository, digest) / f"layers/{layer}/blob"
            assert self.patiently(lambda: read_whole(path)) == content

    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        """Open a file and keep it open."""
        repository, digest = data.draw(st.sampled_from(list(self.world.artifacts)))
        artifact = self.world.artifacts[repository, digest]
        with self.judged(repository, digest, absent=artifact.gone is not None):
            path = self.path(repository, digest) / "layers/0/blob"
            self.held.append(
                Held(self.patiently(lambda: os.open(path, os.O_RDONLY)), artifact.layers[0], digest)
            )

    @rule(number=numbers, chance=chances)
    def read_held(self, number: int, chance: random.Random) -> None:
        if not self.held:
            return
        each = self.held[number % len(self.held)]
        with self.judged("a held file of", each.digest, content=each.content):
            self._compare(each.descriptor, each.content, chance)

    @rule(repository=repositories)
    def list_tags(self, repository: str) -> None:
        """Every tag that is listed may be there, and every other one may be absent; so with
        repositories.
        """
        with self.judged("", "the catalog"):
            found = set(self.patiently(lambda: os.listdir(self.mount.path)))
            assert found <= {".ocifs", *(name.partition("/")[0] for name in REPOSITORIES)}, found
        deadline = time.monotonic() + REMEMBERED
        with self.judged(repository, "tags", absent=False):
            while True:
                listed = set(
                    self.patiently(lambda: os.listdir(self.mount.path / repository / "_tags"))
                )
                assert listed <= set(TAGS), f"tags that nobody made: {listed}"
                wrong = [
                    tag for tag in TAGS if not self.model.saw_listed(repository, tag, tag in listed)
                ]
                if not wrong:
                    return
                assert time.monotonic() < deadline, (
                    f"{repository} lists {listed}, wrongly for {wrong}"
                )
                time.sleep(0.1)  # nothing tells when the kernel forgets a name

    @rule(repository=repositories)
    def absent(self, repository: str) -> None:
        """What was never there is absent when the registry can say so, and an outage otherwise:
        never there.
        """
        self.strangers += 1
        name = f"never-{self.strangers}"
        with self.judged(repository, name, absent=True):
            self.patiently(lambda: os.stat(self.path(repository, name) / "digest"))
            raise AssertionError("a tag that was never pushed is there")

    @rule(data=st.data())
    def burst(self, data: st.DataObject) -> None:
        """Several readers of one file at once."""
        repository, digest = data.draw(st.sampled_from(list(self.world.artifacts)))
        artifact = self.world.artifacts[repository, digest]
        path = self.path(repository, digest) / "layers/0/blob"
        readers = [self.threads.submit(read_whole, path) for _ in range(4)]
        for reader in readers:
            with self.judged(
                repository, digest, absent=artifact.gone is not None, content=artifact.layers[0]
            ):
                found = self.patiently(reader.result)
                assert found == artifact.layers[0]
                self.done["bytes compared"] += len(found)

    def teardown(self) -> None:
        """With the faults over and the pauses too, all is as the registry has it."""
        if not hasattr(self, "mount"):
            return
        try:
            self._fault("", 1.0)
            self.time_passes(LONG)
            self._all_is_well()
        finally:
            self.done.update({f"fault {name}": count for name, count in self.proxy.made.items()})
            self._drop()
            self.mounts.close()
            type(self).said = self.mount.said.decode(errors="replace")
            self.stack.close()

    def _all_is_well(self) -> None:
        """Every tag, list and byte, with no error at all; nothing under way that nobody waits for,
        nothing that nobody thought of.
        """
        for repository in {repository for repository, _ in self.world.artifacts}:
            for tag in TAGS:
                self.read_tag(repository, tag, random.Random(1))
            self.list_tags(repository)
        for (repository, digest), artifact in self.world.artifacts.items():
            for number, content in enumerate(artifact.layers if artifact.gone is None else ()):
                path = self.path(repository, digest) / f"layers/{number}/blob"
                assert self.patiently(partial(read_whole, path)) == content
                self.done["bytes compared"] += len(content)
        self._until_quiet()
        assert self._status()["unexpected"] == 0, self._status()["errors"]

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.mount.path / ".ocifs/status.json").read_bytes())
        return found


def drive(number: int, *, examples: int, steps: int, shrink: bool) -> None:
    """So many runs of so many steps each, the same for the same number.

    Raises what was wrong, with the steps that led to it.
    """
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    machine: type[Machine] = type("Numbered", (Machine,), {})
    try:
        run_state_machine_as_test(seed(number)(machine), settings=limits)
    except BaseException:
        print(machine.said[-SAID:])
        raise


@dataclass
class Modelled:
    """What runs for some time did, and which seeds found something wrong."""

    seconds: float
    done: Counter[str]
    failures: list[int]

    def line(self) -> str:
        """Everything, as one line of JSON."""
        faults = {name: count for name, count in self.done.items() if name.startswith("fault ")}
        rest = {name: count for name, count in self.done.items() if name not in faults}
        return json.dumps(
            {
                **{"seconds": round(self.seconds), **dict(sorted(rest.items()))},
                **{
                    "faults": sum(faults.values()),
                    "kinds of fault": len(faults),
                    "failures": self.failures,
                },
            }
        )


def drive_for(seconds: float, number: int) -> Modelled:
    """Runs under seeds from `number` on until the time is over."""
    began = time.monotonic()
    failures: list[int] = []
    Machine.done.clear()
    while time.monotonic() < began + seconds and len(failures) < 5:
        try:
            drive(number, examples=5, steps=80, shrink=False)
        except Exception:
            traceback.print_exc()
            failures.append(number)
        number += 1
    return Modelled(time.monotonic() - began, Machine.done, failures)
