"""Each way of docs/how-to/install.md to install the clone works in an empty home directory.

test_deb.py and test_container.py test the other ways of the page.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.documents.session import blocks
from tests.packaging.test_wheel import SHARED
from tests.support.installed import ROOT, demo, elsewhere, run

PAGE = blocks((ROOT / "docs/how-to/install.md").read_text())
WAYS = {block.split()[0]: block for block in PAGE if block.split()[0] in ("pipx", "uv", "python3")}
[LINKS] = [block for block in PAGE if "cp -rsf" in block]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a wheel of pyfuse3, from pip's cache.

    PyPI has only its source, which uv would compile for half a minute.
    """
    place = tmp_path_factory.mktemp("compiled")
    version = importlib.metadata.version("pyfuse3")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        place,
        f"pyfuse3=={version}",
        seconds=280,
    )
    return place


def person(home: Path, compiled: Path) -> dict[str, str]:
    """The environment of a user with this clone, pipx, uv, and caches of downloads."""
    (home / "programs").mkdir(parents=True)
    (home / "ocifs").symlink_to(ROOT)
    for name in ("pipx", "uv"):
        (home / "programs" / name).symlink_to(Path(sys.executable).parent / name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = {
        "PIP_CACHE_DIR": str(cache / "pip"),
        "UV_CACHE_DIR": str(cache / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    kept |= {"PIP_FIND_LINKS": str(compiled), "UV_FIND_LINKS": str(compiled)}
    return elsewhere(home, home / ".local/bin", home / "programs") | kept


def test_the_page_shows_three_ways() -> None:
    assert sorted(WAYS) == ["pipx", "python3", "uv"] and len(PAGE) == 5


@pytest.mark.mount
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
def test_the_commands_of_the_page_install_it(
    way: str, built: Path, compiled: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    environment = person(home, compiled)
    place = home if way == "python3" else home / "ocifs"
    run("bash", "-euc", WAYS[way], env=environment, cwd=place, seconds=280)
    if way == "python3":
        environment["PATH"] = f"{home}/venv/bin:{environment['PATH']}"
    assert (
        run("bash", "-euc", "ocifs --version", env=environment, cwd=home).split()[-1]
        in next(built.glob("*.whl")).name
    )
    assert "Buy milk." in demo(tmp_path / "fresh", environment)
    if way != "python3":
        run("bash", "-euc", LINKS, env=environment, cwd=home)
    shared = home / ("venv/share" if way == "python3" else ".local/share")
    for name in SHARED:
        assert (shared / name).read_text(), name
    if way != "python3" and shutil.which("man"):
        for page, section in (("ocifs", "1"), ("mount.ocifs", "8"), ("ocifs.toml", "5")):
            assert run("man", "-w", section, page, env=environment).startswith(str(shared))
