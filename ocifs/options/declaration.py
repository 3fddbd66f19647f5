"""How an option is declared: a key of a TypedDict, annotated with its kind of value and an Option.

    class MountOptions(Options, total=False):
        noexec: Annotated[Flag, Option("Do not allow programs to be executed.")]

The declaration is the only place that lists an option. The click option, the environment variable,
the key of the configuration file, the keyword of the Python API and the tables of the documents are
derived from it (docs/decisions/0215-declaration-of-options.md).

Pure; called from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Literal, TypeAlias, get_args, get_origin, get_type_hints


class ValueKind(Enum):
    """The kind of an option's value: how it is written, parsed and documented."""

    FLAG = "flag"
    COUNT = "count"
    CHOICE = "choice"
    SECONDS = "seconds"
    SIZE = "size"
    TEXT = "text"
    TEXTS = "texts"
    # Paths are made absolute and resolved, except NEW_FILE, in which a link is an error later.
    EXISTING = "existing path"
    DIRECTORY = "directory"
    PATH = "path"
    NEW_FILE = "new file"
    # Tables of the configuration file, and a dictionary in Python.
    TABLES = "tables"


StrPath: TypeAlias = str | os.PathLike[str]
Flag: TypeAlias = Annotated[bool, ValueKind.FLAG]
Count: TypeAlias = Annotated[int, ValueKind.COUNT]
Seconds: TypeAlias = Annotated[float, ValueKind.SECONDS]
Size: TypeAlias = Annotated[int | None, ValueKind.SIZE]
Text: TypeAlias = Annotated[str | None, ValueKind.TEXT]
Texts: TypeAlias = Annotated[tuple[str, ...], ValueKind.TEXTS]
ExistingPath: TypeAlias = Annotated[StrPath | None, ValueKind.EXISTING]
DirectoryPath: TypeAlias = Annotated[StrPath | None, ValueKind.DIRECTORY]
AnyPath: TypeAlias = Annotated[StrPath | None, ValueKind.PATH]
Tables: TypeAlias = Annotated[Mapping[str, Mapping[str, object]] | None, ValueKind.TABLES]
NewFile: TypeAlias = Annotated[StrPath | None, ValueKind.NEW_FILE]

# The default of each kind, if the declaration has none.
_DEFAULTS: dict[ValueKind, object] = {
    ValueKind.FLAG: False,
    ValueKind.COUNT: 0,
    ValueKind.TEXTS: (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The metadata of an option.

    - `help` is the text of --help and of the manual pages.
    - `doc` is the text in docs/reference/cli.md, in Markdown, if it is longer than `help`.
    - `default` is the default; `default_text` describes one that is computed.
    - `setting` is the field of Settings or MountFlags that takes the value: `cache.offline`. None
      as a value leaves that field as it is.
    - `convert` makes the field's value from the option's and the hosts of the source.
    - `metavar` names the value in --help, and `group` is the section there.
    - `short` is a one-letter form: `-f`.
    - `everywhere` is False for an option that has no environment variable, and no key at the top of
      the configuration file.
    """

    help: str
    doc: str = ""
    default: object = None
    default_text: str = ""
    setting: str = ""
    convert: Callable[[object, frozenset[str]], object] | None = None
    metavar: str = ""
    group: str = ""
    short: str = ""
    everywhere: bool = True


@dataclass(frozen=True, slots=True)
class DeclaredOption:
    """An option with everything that follows from its declaration."""

    name: str
    kind: ValueKind
    choices: tuple[str, ...]
    option: Option

    @property
    def default(self) -> object:
        """The value if the option is not set."""
        default = self.option.default
        return _DEFAULTS.get(self.kind) if default is None else default

    @property
    def shown_default(self) -> str:
        """The default in --help and the documents. Empty for flags and if there is none."""
        if self.option.default_text:
            return self.option.default_text
        default = self.option.default
        if isinstance(default, float):
            return f"{default:g}"
        return "" if default is None else str(default)

    @property
    def flag(self) -> str:
        """The long form on the command line: `--tag-ttl`."""
        return f"--{self.key}"

    @property
    def key(self) -> str:
        """The key in the configuration file: `tag-ttl`."""
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, `OCIFS_TAG_TTL`, or an empty text."""
        return f"OCIFS_{self.name.upper()}" if self.option.everywhere else ""

    @property
    def metavar(self) -> str:
        """The name of the value: `SECONDS`. Empty for a flag."""
        if self.kind in (ValueKind.FLAG, ValueKind.COUNT):
            return ""
        if self.kind is ValueKind.CHOICE:
            return "|".join(self.choices)
        return self.option.metavar or _METAVARS[self.kind]


_METAVARS = {
    ValueKind.SECONDS: "SECONDS",
    ValueKind.SIZE: "SIZE",
    ValueKind.TEXT: "TEXT",
    ValueKind.TEXTS: "TEXT",
    ValueKind.EXISTING: "PATH",
    ValueKind.DIRECTORY: "PATH",
    ValueKind.PATH: "PATH",
    ValueKind.NEW_FILE: "PATH",
    ValueKind.TABLES: "TABLES",
}


@cache
def declared(options: type) -> tuple[DeclaredOption, ...]:
    """The options that a TypedDict and its bases declare, in their order."""
    hints = get_type_hints(options, include_extras=True)
    return tuple(_declared(name, hint) for name, hint in hints.items())


def _declared(name: str, hint: object) -> DeclaredOption:
    # Nested Annotated types are flattened, so the kind of `Flag` and the Option are in one list.
    value, *metadata = get_args(hint)
    option = next(item for item in metadata if isinstance(item, Option))
    if get_origin(value) is Literal:
        return DeclaredOption(name, ValueKind.CHOICE, get_args(value), option)
    kind = next(item for item in metadata if isinstance(item, ValueKind))
    return DeclaredOption(name, kind, (), option)
