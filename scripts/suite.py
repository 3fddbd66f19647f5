"""Run the whole suite in parts, side by side: one pytest for each directory of tests.

    python -m scripts.suite                       the whole suite
    python -m scripts.suite --light [ARGUMENTS]   the tests that need only the extra `test`

The light tests need no root, Go, FUSE, servers or other programs, and run in one pytest, to which
the arguments are passed.

Most tests wait for daemons and deadlines, so one after the other they leave the processors idle.
Each part writes to a file, which is printed when the part has ended. The exit status is 1 if any
part failed. The last line adds up what pytest reports of all parts.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIDE_BY_SIDE = 3
# The slowest parts begin first; the others follow in the order of their names.
FIRST = ("layers", "mount", "registry", "packaging", "cli", "soak", "documents", "fuzz", "store")
# The directories of the light tests.
LIGHT = ("oci", "layers", "layout", "tree", "fuse", "registry")
# Files in them that take too long for the light tests.
HEAVY = (
    "layers/test_kept_index.py",
    "layers/test_memory.py",
    "layers/test_seekable.py",
    "layout/test_archive.py",
)
WORDS = re.compile(r"(\d+) (passed|failed|skipped|error)")
NO_TESTS = 5  # pytest's status


@dataclass(frozen=True)
class Part:
    """Tests of one directory, or the files at the top."""

    name: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a part: pytest's status, its output, and the seconds that it took."""

    part: Part
    status: int
    output: str
    seconds: float

    @property
    def counts(self) -> Counter[str]:
        """The numbers in pytest's last line."""
        last = self.output.rstrip().rpartition("\n")[2]
        return Counter({word: int(number) for number, word in WORDS.findall(last)})


def parts(tests: Path) -> list[Part]:
    """All parts, the slowest first."""
    found = [
        Part(each.name, (str(each),))
        for each in sorted(tests.iterdir())
        if each.is_dir() and any(each.rglob("test_*.py"))
    ]
    top = tuple(str(each) for each in sorted(tests.glob("test_*.py")))
    found.sort(key=lambda part: FIRST.index(part.name) if part.name in FIRST else len(FIRST))
    return [*found, *([Part("top", top)] if top else [])]


def run(part: Part) -> Outcome:
    """Run one part to its end."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "pytest", *part.paths]
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Outcome(part, done.returncode, text, time.monotonic() - began)


def outcomes(all_parts: list[Part]) -> Iterator[Outcome]:
    """The parts as they end."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for future in as_completed([pool.submit(run, part) for part in all_parts]):
            yield future.result()


def light(arguments: list[str]) -> int:
    """Run the light tests, and return pytest's status."""
    tests = ROOT / "tests"
    paths = [*(tests / name for name in LIGHT), *sorted(tests.glob("test_*.py"))]
    heavy = [f"--ignore={tests / name}" for name in HEAVY]
    command = [sys.executable, "-m", "pytest", "-m", "not mount and not servers", *heavy]
    command += [*arguments, *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Run all parts and print them."""
    if sys.argv[1:2] == ["--light"]:
        return light(sys.argv[2:])
    total: Counter[str] = Counter()
    failed: list[str] = []
    for outcome in outcomes(parts(ROOT / "tests")):
        print(f"=== tests/{outcome.part.name}: {outcome.seconds:.0f} s", flush=True)
        print(outcome.output, flush=True)
        total += outcome.counts
        if outcome.status not in (0, NO_TESTS):
            failed.append(outcome.part.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    errors = total["failed"] + total["error"]
    print(f"{total['passed']} passed, {errors} failed, {total['skipped']} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
