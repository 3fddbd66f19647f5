"""man formats the manual pages without a warning, and they describe every command and option."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from ocifs.cli.mount import command as mount
from scripts.make_man import PAGES, commands

ROOT = Path(__file__).parents[2]


def man(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("man")
    if program is None:
        assert not os.environ.get("CI"), "man must be there in CI: see scripts/setup"
        pytest.skip("man is not installed")
    environment = {**os.environ, "MANWIDTH": "300", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [program, *words], env=environment, capture_output=True, text=True, timeout=60, check=True
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([ROOT / "scripts/man", directory], timeout=60, check=True)
    return directory


@pytest.mark.parametrize("name", PAGES)
def test_man_has_no_warning_for_a_page(name: str, pages: Path) -> None:
    done = man("--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(pages / name))
    assert done.stderr == ""
    assert "x T utf8" in done.stdout


@pytest.mark.parametrize("name", PAGES)
def test_the_index_of_manuals_can_read_its_name(name: str, pages: Path) -> None:
    title = Path(name).name.rpartition(".")[0]
    assert man("-l", str(pages / name)).stdout.startswith(title.upper())
    if program := shutil.which("lexgrog"):
        done = subprocess.run(
            [program, pages / name], capture_output=True, text=True, timeout=120, check=True
        )
        assert f'"{title} - ' in done.stdout


def sections(text: str) -> dict[str, str]:
    """The text of each subsection, by its heading."""
    found = re.split(r"^ {3}(\S.*)$", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_option_of_every_command_is_in_its_section(
    name: str, command: click.Command, pages: Path
) -> None:
    page = man("-l", str(pages / "man1/ocifs.1")).stdout
    common = page.partition("COMMON OPTIONS\n")[2].partition("ENVIRONMENT\n")[0]
    section = sections(page)[f"ocifs {name}"]
    for option in (
        each for each in command.params if isinstance(each, click.Option) and not each.hidden
    ):
        where = section + common if "COMMON OPTIONS" in section else section
        for spelled in option.opts:
            assert re.search(rf"(^|[\s,]){re.escape(spelled)}([\s,]|$)", where, re.MULTILINE), (
                spelled
            )
            words = (option.help or "").replace("`", "").split()
            assert " ".join(words)[:60] in " ".join(where.split())


def test_every_option_of_a_mount_is_in_the_pages_of_fstab_and_of_the_file(pages: Path) -> None:
    helper, file = (
        man("-l", str(pages / name)).stdout for name in ("man8/mount.ocifs.8", "man5/ocifs.toml.5")
    )
    for option in (each for each in mount.params if isinstance(each, click.Option) and each.name):
        if option.name != "foreground":
            assert re.search(rf"^ +{option.name}(=| |$)", helper, re.MULTILINE), option.name
        assert re.search(rf"^ +{option.name.replace('_', '-')} = ", file, re.MULTILINE), option.name
    assert "_netdev" in helper and "x-..." in helper


def test_roff_does_not_change_the_text_of_the_pages(pages: Path) -> None:
    page = man("-l", str(pages / "man1/ocifs.1")).stdout
    for line in (
        "ocifs mount registry.example.com/team/app:v1 /mnt/root --view rootfs",
        "~/.cache/ocifs",
        "$XDG_CACHE_HOME",
    ):
        assert line in page
