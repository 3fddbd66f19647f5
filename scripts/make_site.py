"""Make the site of the documents from docs/, whose order is that of docs/README.md, with MkDocs.

    scripts/docs [--check]      with --check nothing is left behind

Rules that hold here: the list of pages is written once, in docs/README.md; a page that it does not name, and a link or an anchor that leads
nowhere, are errors.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]+)\]\(([\w/.-]+\.md)\)")


def navigation() -> list[dict[str, object]]:
    """The pages, in sections, as the list in docs/README.md has them."""
    sections: list[dict[str, object]] = [{"Documents": "README.md"}]
    pages: list[dict[str, str]] = []
    for line in (DOCS / "README.md").read_text().splitlines():
        heading = re.fullmatch(r"\*\*(.+)\*\*", line)
        if heading:
            pages = []
            sections.append({heading[1]: pages})
        pages += [{title[0].upper() + title[1:]: target} for title, target in LINK.findall(line)]
    return sections


def left_out() -> list[str]:
    """Pages that the list does not name."""
    named = {target for _, target in LINK.findall((DOCS / "README.md").read_text())} | {"README.md"}
    return sorted(
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if str(page.relative_to(DOCS)) not in named
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="leave nothing behind")
    options = parser.parse_args()
    forgotten = left_out()
    if forgotten:
        print(f"docs/README.md does not list {', '.join(forgotten)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        settings = yaml.safe_load((ROOT / "scripts/mkdocs.yml").read_text())
        settings |= {"docs_dir": str(DOCS), "site_dir": str(ROOT / "site"), "nav": navigation()}
        settings |= {"site_dir": f"{place}/site"} if options.check else {}
        (Path(place) / "mkdocs.yml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", f"{place}/mkdocs.yml"]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
