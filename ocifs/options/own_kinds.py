"""Kinds of artifact that the user declares: tables `[kinds.WORD]` of the configuration file, or the
keyword `own_kinds` of the Python API.

    [kinds.acme-report]
    description = "Report of Acme's scanner"
    types = ["application/vnd.acme.report.*"]
    files = { "application/vnd.acme.report.v1+json" = "report.json" }

Called from any thread, before a source is opened.

- Every list, text and number of kinds is bounded.
- An error names the file and the key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sized

from ocifs.errors import UsageError
from ocifs.oci.kinds.kind import ArtifactKind
from ocifs.printable import printable

MAX_KINDS, MAX_ITEMS, MAX_TEXT, MAX_STARS = 200, 100, 200, 8
_WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_WORD = 40
_LISTS = (
    "types",
    "index-types",
    "annotations",
    "layer-annotations",
    "layer-types",
    "joined-types",
)
_TABLES = {"files": "file_names", "annotation-files": "annotation_files"}
_TEXTS = ("description", "config-file")
_FLAGS = ("all-layers",)
_KEYS = (*_TEXTS, *_LISTS, *_FLAGS, *_TABLES)
_IDENTIFYING = ("types", "index-types", "annotations", "layer-annotations", "layer-types")


def own_kinds(tables: object, origin: str) -> tuple[ArtifactKind, ...]:
    """The kinds of these tables, by their words. `origin` is the file. Raises UsageError."""
    if not isinstance(tables, Mapping):
        raise UsageError(f"{origin}: kinds is not a table", hint="write [kinds.WORD]")
    if len(tables) > MAX_KINDS:
        raise UsageError(f"{origin}: {len(tables)} kinds, at most {MAX_KINDS} are allowed")
    return tuple(_kind(word, table, origin) for word, table in tables.items())


def kinds_of(value: object, _: frozenset[str]) -> tuple[ArtifactKind, ...]:
    """The kinds of an option: tables, or the kinds that were read from the configuration file."""
    if isinstance(value, tuple) and all(isinstance(kind, ArtifactKind) for kind in value):
        return value
    return own_kinds(value, "own_kinds") if value else ()


def _kind(word: object, table: object, origin: str) -> ArtifactKind:
    where = f"{origin}: kinds.{printable(str(word))[:MAX_TEXT]}"
    if not isinstance(word, str) or not _WORD.fullmatch(word) or len(word) > _MAX_WORD:
        hint = f"use at most {_MAX_WORD} lower-case letters, digits and hyphens: acme-report"
        raise UsageError(f"{where}: invalid name of a kind", hint=hint)
    # Imported here because only configurations with own kinds need the table.
    from ocifs.oci.kinds.table import KINDS_BY_NAME

    if word in KINDS_BY_NAME:
        raise UsageError(f"{where}: ocifs has a kind of this name", hint="choose another name")
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} is not a table", hint=f"write [kinds.{word}]")
    # In Python, keys are written with underscores.
    members = {str(key).replace("_", "-"): value for key, value in table.items()}
    for key in members:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {close[0]}?" if close else f"available: {', '.join(_KEYS)}"
            raise UsageError(f"{where}: unknown key: {printable(key)[:MAX_TEXT]}", hint=hint)
    lists = {key: _list(members.get(key, ()), f"{where}.{key}") for key in _LISTS}
    if not any(lists[key] for key in _IDENTIFYING):
        hint = 'add: types = ["application/vnd.example.*"]'
        raise UsageError(f"{where}: nothing identifies the kind", hint=hint)
    texts = {key: _text(members.get(key, ""), f"{where}.{key}") for key in _TEXTS}
    flags = {key: _flag(members.get(key, False), f"{where}.{key}") for key in _FLAGS}
    tables = {key: _pairs(members.get(key, {}), f"{where}.{key}") for key in _TABLES}
    return ArtifactKind(
        name=word,
        description=texts["description"],
        types=_patterns(lists["types"], f"{where}.types"),
        index_types=_patterns(lists["index-types"], f"{where}.index-types"),
        # An index is recognized by its type only.
        annotations=lists["annotations"],
        layer_annotations=lists["layer-annotations"],
        layer_types=_patterns(lists["layer-types"], f"{where}.layer-types"),
        all_layers=flags["all-layers"],
        file_names=tables["files"],
        joined_types=_patterns(lists["joined-types"], f"{where}.joined-types"),
        annotation_files=tables["annotation-files"],
        config_file=texts["config-file"],
        origin=f"[kinds.{word}] of {origin}",
    )


def _list(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}: expected a list of strings")
    _check_count(value, where)
    return tuple(_filled(item, f"{where}[{n}]") for n, item in enumerate(value))


def _patterns(values: Iterable[str], where: str) -> tuple[str, ...]:
    """Patterns of types, which are compared in lower case and without parameters."""
    for n, value in enumerate(values):
        if value.count("*") > MAX_STARS:
            raise UsageError(f"{where}[{n}]: more than {MAX_STARS} asterisks")
        if ";" in value:
            hint = "types are compared without parameters"
            raise UsageError(f"{where}[{n}]: a type with parameters: {value}", hint=hint)
    return tuple(value.strip().lower() for value in values)


def _pairs(value: object, where: str) -> tuple[tuple[str, str], ...]:
    """The pairs of a table of texts. A pattern of a type is compared in lower case."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected a table of strings")
    _check_count(value, where)
    pairs = []
    for key, name in value.items():
        text = _filled(key, where)
        pairs.append((text, _filled(name, f'{where}."{text}"')))
    return tuple(pairs)


def _check_count(value: Sized, where: str) -> None:
    if len(value) > MAX_ITEMS:
        raise UsageError(f"{where}: {len(value)} items, at most {MAX_ITEMS} are allowed")


def _filled(value: object, where: str) -> str:
    text = _text(value, where)
    if not text.strip():
        raise UsageError(f"{where}: empty text")
    return text


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: expected a string")
    if len(value) > MAX_TEXT:
        raise UsageError(f"{where}: {len(value)} characters, at most {MAX_TEXT} are allowed")
    if any(not character.isprintable() for character in value):
        raise UsageError(f"{where}: control characters in {printable(value)}")
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: expected true or false")
    return value
