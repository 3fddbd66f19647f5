"""Write the tables of options in docs/reference/configuration.md and docs/reference/cli.md.

The tables come from the declarations in ocifs/options. Run it without arguments after a change of
an option. tests/house/test_reference.py fails if a page is out of date.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable

from ocifs.cli.options import own_options
from ocifs.options import CacheOptions, MountOptions, Options
from ocifs.options.declaration import DeclaredOption, ValueKind, declared

REFERENCE = pathlib.Path(__file__).parent.parent / "docs" / "reference"
BEGIN, END = "<!-- written by scripts/generate_options.py: {} -->\n\n", "\n<!-- end -->\n"
_VALUES = {
    ValueKind.FLAG: "`true` or `false`",
    ValueKind.COUNT: "a number",
    ValueKind.SECONDS: "seconds",
    ValueKind.SIZE: 'a size, `"20G"` or a number of bytes',
    ValueKind.TEXT: "a text",
    ValueKind.TEXTS: "a list of texts",
}


def own() -> list[DeclaredOption]:
    """The options that only `ocifs mount` has."""
    return list(own_options(MountOptions, Options))


def shared() -> list[DeclaredOption]:
    """The options that all commands about a source have."""
    options = (*own_options(Options, CacheOptions), *declared(CacheOptions))
    # Tables are written in the configuration file only.
    return [item for item in options if item.kind is not ValueKind.TABLES]


def configuration_keys() -> list[DeclaredOption]:
    """The options that the top of the configuration file can contain."""
    return [item for item in (*own(), *shared()) if item.option.everywhere]


def value(item: DeclaredOption) -> str:
    """How the configuration file writes a value."""
    if item.choices:
        return ", ".join(f'`"{choice}"`' for choice in item.choices)
    return _VALUES.get(item.kind, "a path")


def key_default(item: DeclaredOption) -> str:
    """The default as the configuration file would write it."""
    if item.kind in (ValueKind.FLAG, ValueKind.COUNT):
        return "`false`" if item.kind is ValueKind.FLAG else "0"
    return f'`"{item.default}"`' if item.choices else computed(item)


def computed(item: DeclaredOption) -> str:
    """The default of an option that is neither a flag nor a choice."""
    text = item.shown_default or "none"
    return f"`{text}`" if text[:1] in ("$", "/") else text


def key_table() -> str:
    """The keys of the configuration file."""
    rows = (
        f"| `{item.key}` | {value(item)} | {key_default(item)} | `{item.variable}` |"
        for item in configuration_keys()
    )
    return table("| key | value | default | variable |", rows)


def spelled(item: DeclaredOption) -> str:
    """An option on the command line, for a cell of a table."""
    metavar = f" {item.metavar}" if item.metavar else ""
    long = f"`{item.flag}{metavar}`".replace("|", "\\|")
    return f"`{item.option.short}`, {long}" if item.option.short else long


def meaning(item: DeclaredOption) -> str:
    """The text of an option in the reference: no capital, no full stop."""
    text = item.option.doc or item.option.help.rstrip(".")
    return text[:1].lower() + text[1:]


def mount_table() -> str:
    """The options that only `ocifs mount` has."""
    rows = (f"| {spelled(item)} | {meaning(item)} |" for item in own())
    return table("| option | meaning |", rows)


def shared_table() -> str:
    """The options that all commands about a source have."""
    rows = (f"| {spelled(item)} | {shared_default(item)} | {meaning(item)} |" for item in shared())
    return table("| option | default | meaning |", rows)


def shared_default(item: DeclaredOption) -> str:
    """The default of a shared option."""
    if item.kind is ValueKind.FLAG:
        return "off"
    return f"`{item.default}`" if item.choices else computed(item)


def table(head: str, rows: Iterable[str]) -> str:
    """A table in Markdown."""
    columns = head.count("|") - 1
    return "\n".join((head, "|" + "---|" * columns, *rows)) + "\n"


TABLES: dict[str, tuple[pathlib.Path, Callable[[], str]]] = {
    "keys": (REFERENCE / "configuration.md", key_table),
    "options of mount": (REFERENCE / "cli.md", mount_table),
    "shared options": (REFERENCE / "cli.md", shared_table),
}


def page(path: pathlib.Path) -> str:
    """A page with its tables in their places."""
    text = path.read_text()
    for name, (target, make) in TABLES.items():
        if target == path:
            begin = BEGIN.format(name)
            pattern = re.escape(begin) + ".*?" + re.escape(END)
            written = f"{begin}{make()}{END}"
            text = re.sub(pattern, lambda _, written=written: written, text, flags=re.DOTALL)
    return text


def main() -> None:
    for path in {path for path, _ in TABLES.values()}:
        path.write_text(page(path))


if __name__ == "__main__":
    main()
