"""The tests that documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "docs/SECURITY.md",
    "docs/explanation/reliability.md",
    "docs/explanation/verification.md",
    "docs/reference/registries.md",
    "docs/reference/conformance.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / page).read_text())
    assert len(named) > 12
    for path, name in named:
        text = (ROOT / path).read_text()
        assert name or not page.startswith("docs/explanation/"), f"{path}: which of its tests?"
        assert not name or re.search(rf"def {name}\(", text), f"{path}::{name}"
