"""What a process takes from the system."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

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

    done = subprocess.run([sys.executable, "-c", SHOWN], preexec_fn=limit, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(hard), str(hard)]
