"""The reference page of kinds is generated from the table."""

from __future__ import annotations

import runpy
from pathlib import Path

from ocifs.oci.kinds.table import KINDS

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_kinds_is_up_to_date() -> None:
    generated = runpy.run_path(str(ROOT / "scripts" / "generate_kinds.py"))
    text = generated["page"]()
    assert (ROOT / "docs" / "reference" / "artifact-kinds.md").read_text() == text
    assert all(f"| `{kind.name}` |" in text for kind in KINDS)
