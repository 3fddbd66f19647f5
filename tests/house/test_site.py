"""A broken link of the documentation site is found in the generated pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_house import links
from scripts.make_site import broken

GOOD = """<a id="top"></a><a href="b/two.html#here">x</a><a href="#top">x</a><a href="https://example.com/a?b=c#d">x</a>
<a href="mailto:a@example.com">x</a><img src="/p.svg"><a href="b/">x</a>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "one.html").write_text(GOOD)
    (tmp_path / "b/two.html").write_text('<h1 id="here">x</h1><a href="../one.html">x</a>')
    (tmp_path / "b/index.html").write_text("<p>x</p>")
    (tmp_path / "p.svg").write_text("<svg/>")
    return tmp_path


def test_working_links_are_accepted(site: Path) -> None:
    assert list(broken(site)) == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("three.html", "three.html is not in the site"),
        ("b/two.html#there", "is not an anchor of the page"),
        ("#bottom", "is not an anchor of the page"),
        ("../outside.py", "is not in the site"),
        ("http://example.com/", "is not a valid URL"),
        ("https://exa mple.com/", "is not a valid URL"),
        ("https:/example.com", "is not a valid URL"),
        ("ftp://example.com/", "is not a valid URL"),
    ],
)
def test_broken_links_are_found(link: str, said: str, site: Path) -> None:
    (site / "one.html").write_text(f'{GOOD}<a href="{link}">x</a>')
    (problem,) = broken(site)
    assert problem.startswith("one.html: ") and said in problem


def test_links_of_documents_outside_of_the_site_are_checked(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# The `head` of it\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Top\n[a](there.md#the-head-of-it) [b](#top) [c](there.md#nothing)"
        " [d](gone.md) [e](#bottom)\n"
    )
    assert [problem.split()[2].rstrip(",") for problem in links(page)] == [
        "there.md#nothing",
        "gone.md",
        "#bottom",
    ]
