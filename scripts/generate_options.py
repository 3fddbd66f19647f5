"""Write the table of keys in docs/reference/configuration.md from the options of `ocifs mount`,
which has them all.

Run it without arguments after an option has changed. tests/house/test_reference.py fails while the
page is not what this makes.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import click

from ocifs.cli.mount import command as mount
from ocifs.cli.options import SIZE

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"
BEGIN, END = "<!-- written by scripts/generate_options.py: -->\n\n", "\n<!-- end -->\n"
_SAID = re.compile(r"\[([^]]+)\]$")  # how an option's help tells a default that is none of click's


def options() -> Iterator[click.Option]:
    """Every option that the file can have at its top."""
    for each in mount.params:
        if isinstance(each, click.Option) and each.name not in (None, "any"):
            yield each


def value(option: click.Option) -> str:
    """What the file may say of it."""
    if option.is_flag:
        return "`true` or `false`"
    if option.count:
        return "a number"
    if isinstance(option.type, click.Choice):
        return ", ".join(f'`"{each}"`' for each in option.type.choices)
    kind = "a path" if isinstance(option.type, click.Path) else "a text"
    if option.type is SIZE:
        kind = 'a size, `"20G"` or a number of bytes'
    if isinstance(option.type, click.FloatRange):
        kind = "seconds"
    return "a list of texts" if option.multiple else kind


def default(option: click.Option) -> str:
    """What holds where nothing says it."""
    if option.is_flag:
        return "`false`"
    if option.count:
        return "0"
    said = _SAID.search(option.help or "")
    if said:
        return said[1]
    if isinstance(option.default, float):
        return f"{option.default:g}"
    return f'`"{option.default}"`' if isinstance(option.default, str) else "none"


def table() -> str:
    """The table."""
    rows = (
        f"| `{(each.name or '').replace('_', '-')}` | {value(each)} | {default(each)} | "
        f"{f'`{each.envvar}`' if each.envvar else ''} |\n"
        for each in options()
    )
    return "| key | value | default | variable |\n|---|---|---|---|\n" + "".join(rows)


def page(text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
