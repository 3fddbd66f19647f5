"""Memory limits, and the limit of file descriptors."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ocifs.memory import fit_to_limit, memory_limit
from ocifs.settings import MIB, Settings

SHOWN = """
import resource
from ocifs.memory import raise_descriptor_limit
raise_descriptor_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize("hard", [64, 512, 4096])
def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(hard: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    done = subprocess.run(
        [sys.executable, "-c", SHOWN], preexec_fn=limit, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(hard), str(hard)]


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "157286400\n"}, 150 * MIB),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "157286400\n"}, 150 * MIB),
        ("0::/a/b\n", {"a/b/memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "157286400\n"}, 150 * MIB),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:cpu:/a\n0::/a\n", {"memory/a/memory.limit_in_bytes": "1\n"}, None),
        ("garbage\n::::\n\n", {}, None),
        ("0::/../../etc\n", {}, None),
    ],
)
def test_the_limit_of_memory_is_that_of_the_control_group(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(groups, tmp_path) == limit


def test_with_little_memory_large_windows_are_refused_and_little_is_held() -> None:
    settings = Settings()
    assert fit_to_limit(settings, None) == settings
    assert fit_to_limit(settings, 8 << 30) == settings
    fitted = fit_to_limit(settings, 150 * MIB)
    assert fitted.limits.layer_window == 32 * MIB
    assert fitted.cache.memory_bytes < 40 * MIB
