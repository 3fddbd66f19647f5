"""Make the documentation site from docs/ with MkDocs, in the order of docs/README.md.

    scripts/docs [--check]      with --check in a temporary directory

Rules that hold here:
- The list of pages exists once, in docs/README.md. A page that is not in the list is an error.
- The decisions are not in the side bar. Their list is docs/decisions/README.md.
- A broken link or anchor is an error. MkDocs does not check links to files outside of docs/, so the
  generated pages are also checked.
- A link to another site must be a valid URL. It is not fetched.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]+)\]\(([\w/.-]+\.md)\)")


def navigation() -> list[dict[str, object]]:
    """The pages and their sections, from the list in docs/README.md."""
    sections: list[dict[str, object]] = [{"ocifs": "README.md"}]
    pages: list[dict[str, str]] = []
    for line in (DOCS / "README.md").read_text().splitlines():
        heading = re.fullmatch(r"\*\*(.+)\*\*", line)
        if heading:
            pages = []
            sections.append({heading[1]: pages})
        pages += [{title[0].upper() + title[1:]: target} for title, target in LINK.findall(line)]
    return sections


def left_out() -> list[str]:
    """The pages that are not in the list."""
    named = {target for _, target in LINK.findall((DOCS / "README.md").read_text())} | {"README.md"}
    decisions = LINK.findall((DOCS / "decisions/README.md").read_text())
    named |= {f"decisions/{target}" for _, target in decisions}
    return sorted(
        str(page.relative_to(DOCS))
        for page in DOCS.rglob("*.md")
        if str(page.relative_to(DOCS)) not in named
    )


class Page(HTMLParser):
    """The links and anchors of a page of the site."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.anchors.add(value)


def broken(site: Path) -> Iterator[str]:
    """The broken links of a site, each with its page."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("https", "mailto", "data") or (
                    parts.scheme == "https" and not _host(link)
                ):
                    yield f"{path.relative_to(site)}: {link} is not a valid URL"
                continue
            base = site if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or not target.is_relative_to(site.resolve()):
                yield f"{path.relative_to(site)}: {link} is not in the site"
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                yield f"{path.relative_to(site)}: {link} is not an anchor of the page"


def _host(link: str) -> bool:
    return re.fullmatch(r"https://[a-z0-9-]+(?:\.[a-z0-9-]+)+(?:/[!-~]*)?", link) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only check, in a temporary directory")
    options = parser.parse_args()
    forgotten = left_out()
    if forgotten:
        print(f"not in the list of docs/README.md: {', '.join(forgotten)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        settings = yaml.safe_load((ROOT / "scripts/mkdocs.yml").read_text())
        settings |= {"docs_dir": str(DOCS), "site_dir": str(ROOT / "site"), "nav": navigation()}
        settings |= {"site_dir": f"{place}/site"} if options.check else {}
        settings["theme"] |= {"custom_dir": str(ROOT / "scripts/site")}
        (Path(place) / "mkdocs.yml").write_text(yaml.safe_dump(settings))
        command = [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "-f",
            f"{place}/mkdocs.yml",
        ]
        status = subprocess.run(command, check=False).returncode
        found = sorted(broken(Path(str(settings["site_dir"])).resolve()))
    print("\n".join(found), end="\n" * bool(found), file=sys.stderr)
    return status or bool(found)


if __name__ == "__main__":
    sys.exit(main())
