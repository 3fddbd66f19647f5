"""Run the whole suite in parts, side by side: one pytest for each part.

    python -m scripts.suite                       the whole suite
    python -m scripts.suite --light [ARGUMENTS]   the tests that need only the extra `test`
    python -m scripts.suite --quick [ARGUMENTS]   the same side by side, and some real mounts

The light tests need no root, Go, FUSE, servers or other programs, and run in one pytest, to which
the arguments are passed. `--quick` passes them to each of its pytests.

Most tests wait for daemons and deadlines, so one after the other they leave the processors idle.
A part is a directory of tests, or every Nth file of a large one: its pytest builds the fixtures of
its session once, and no part is so long that the others wait for it at the end. Each part writes to
a file, which is printed when the part has ended.

A test that failed is run again after all parts have ended, with nothing beside it. If it passes
then, it is reported as unsteady and does not fail the suite. A part with more than `MOST_AGAIN`
failures is not run again. The exit status is 1 if any part failed. The last line adds up what
pytest reports of all parts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
# More than there are processors, because a part waits for half of its time.
SIDE_BY_SIDE = 2 * (os.cpu_count() or 1)
# The slowest parts begin first; the others follow in the order of their names.
FIRST = ("packaging", "soak", "mount", "cli", "registry", "documents", "layers", "fuzz", "store")
# The files of a part. The fixtures of packaging take longer than its tests, so it is not divided.
MOST_FILES, FILES = 10, {"packaging": 100, "soak": 2, "documents": 4, "oci": 20, "tree": 20}
# Directories whose tests take less time than the start of a pytest.
SMALL = ("conformance", "layout", "model", "oci", "posix", "python", "tree")
# The directories of the light tests.
LIGHT = ("oci", "layers", "layout", "tree", "fuse", "registry")
# Files in them that take too long for the light tests.
HEAVY = (
    "layers/test_kept_index.py",
    "layers/test_memory.py",
    "layers/test_seekable.py",
    "layout/test_archive.py",
)
# Real mounts that need no other program, for --quick.
MOUNTS = ("mount/test_layout_mount.py", "mount/test_links.py", "mount/test_view.py")
WORDS = re.compile(r"(\d+) (passed|failed|skipped|error)")
FAILED, NO_TESTS = 1, 5  # pytest's statuses
# More failures in one part than these are not chance.
MOST_AGAIN = 3


@dataclass(frozen=True)
class Part:
    """Tests for one pytest: the name of their directory, and the arguments."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a part: pytest's status, its output, and the seconds that it took.

    `again` is the number of tests that failed at first and passed alone.
    """

    part: Part
    status: int
    output: str
    seconds: float
    again: int = 0

    @property
    def counts(self) -> Counter[str]:
        """The numbers in pytest's last line."""
        last = self.output.rstrip().rpartition("\n")[2]
        return Counter({word: int(number) for number, word in WORDS.findall(last)})

    @property
    def failures(self) -> int:
        """The number of tests that failed or could not be set up."""
        return self.counts["failed"] + self.counts["error"]

    @property
    def is_red(self) -> bool:
        """Whether the part failed."""
        return self.status not in (0, NO_TESTS)


def parts(tests: Path) -> list[Part]:
    """All parts, the slowest first."""
    found, small = [], []
    for each in sorted(tests.iterdir()):
        files = sorted(map(str, each.rglob("test_*.py"))) if each.is_dir() else []
        if each.name in SMALL:
            small += [str(each)]
        elif files:
            count = -(-len(files) // FILES.get(each.name, MOST_FILES))
            found += [Part(each.name, tuple(files[n::count])) for n in range(count)]
    found.sort(key=lambda part: FIRST.index(part.name) if part.name in FIRST else len(FIRST))
    top = sorted(map(str, tests.glob("test_*.py")))
    return [*found, *([Part("small", (*small, *top))] if small or top else [])]


def run(part: Part, arguments: tuple[str, ...] = ()) -> Outcome:
    """Run one part to its end."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "pytest", *arguments, *part.arguments]
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Outcome(part, done.returncode, text, time.monotonic() - began)


def outcomes(all_parts: list[Part], caches: Path) -> list[Outcome]:
    """Run the parts side by side, then their failures again.

    Each pytest keeps the names of its failures in a directory of its own.
    """
    caching = {
        part: ("-o", f"cache_dir={caches / str(number)}") for number, part in enumerate(all_parts)
    }
    first = []
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for future in as_completed([pool.submit(run, part, caching[part]) for part in all_parts]):
            first.append(future.result())
            print_outcome(first[-1], "")
    return [again(outcome, caching[outcome.part]) for outcome in first]


def again(outcome: Outcome, option: tuple[str, ...]) -> Outcome:
    """Run the tests of a part that failed again, alone. The outcome of both runs together."""
    if outcome.status != FAILED or not 0 < outcome.failures <= MOST_AGAIN:
        return outcome
    second = run(outcome.part, (*option, "--last-failed", "--last-failed-no-failures=none", "-rA"))
    print_outcome(second, ", its failures again, alone")
    if second.status or second.counts["passed"] < outcome.failures:
        return outcome
    return replace(outcome, status=0, again=outcome.failures)


def print_outcome(outcome: Outcome, remark: str) -> None:
    """Print the output of a pytest."""
    print(f"=== tests/{outcome.part.name}{remark}: {outcome.seconds:.0f} s", flush=True)
    print(outcome.output, flush=True)


def light_tests(tests: Path) -> tuple[list[str], list[str]]:
    """The options that select the light tests, and their directories and files."""
    paths = [*(tests / name for name in LIGHT), *sorted(tests.glob("test_*.py"))]
    heavy = [f"--ignore={tests / name}" for name in HEAVY]
    return ["-m", "not mount and not servers", *heavy], [str(path) for path in paths]


def light(arguments: list[str]) -> int:
    """Run the light tests, and return pytest's status."""
    options, paths = light_tests(ROOT / "tests")
    command = [sys.executable, "-m", "pytest", *options, *arguments, *paths]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def quick(tests: Path, arguments: list[str]) -> list[Part]:
    """The light tests in two parts, and some mounts."""
    options, paths = light_tests(tests)
    options += arguments
    layers = [path for path in paths if Path(path).name == "layers"]
    rest = [path for path in paths if path not in layers]
    mounts = [*arguments, *(str(tests / name) for name in MOUNTS)]
    return [
        Part("light", (*options, *rest)),
        Part("layers", (*options, *layers)),
        Part("mount", tuple(mounts)),
    ]


def main() -> int:
    """Run all parts and print them."""
    if sys.argv[1:2] == ["--light"]:
        return light(sys.argv[2:])
    tests = ROOT / "tests"
    if sys.argv[1:2] == ["--quick"]:
        chosen = quick(tests, sys.argv[2:])
    else:
        chosen = parts(tests)
        # Before the tests, so that none of them waits for a compiler.
        subprocess.run([ROOT / "scripts/tools"], check=False)
    with tempfile.TemporaryDirectory() as caches:
        return report(outcomes(chosen, Path(caches)))


def report(ended: list[Outcome]) -> int:
    """Print the parts that failed and the sums, and return the exit status."""
    total: Counter[str] = Counter()
    for outcome in ended:
        total += outcome.counts
    unsteady = sum(outcome.again for outcome in ended)
    if unsteady:
        names = ", ".join(outcome.part.name for outcome in ended if outcome.again)
        print(f"unsteady: {unsteady} passed only when run again, in {names}")
    failed = [outcome.part.name for outcome in ended if outcome.is_red]
    if failed:
        print(f"failed: {', '.join(failed)}")
    failures = total["failed"] + total["error"] - unsteady
    print(f"{total['passed'] + unsteady} passed, {failures} failed, {total['skipped']} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
