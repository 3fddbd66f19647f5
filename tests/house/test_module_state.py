"""No module has state that event loops or threads could share by accident.

`ocifs.open` runs an event loop for each tree, so two trees in one process are two threads in the
same modules.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import logging
import pkgutil
import re
from contextvars import ContextVar
from pathlib import Path, PurePath
from struct import Struct
from types import FunctionType, MappingProxyType, ModuleType
from typing import TypeVar

import click
import pytest
import trio

import ocifs

MODULES = sorted(
    each.name
    for each in pkgutil.walk_packages(ocifs.__path__, "ocifs.")
    if each.name != "ocifs.__main__"
)
# Tables are read-only by convention, which `mutations` checks.
TABLES = (dict, list, set)
FIXED = (
    type, str, bytes, int, float, complex, tuple, frozenset, range, type(None), re.Pattern, Struct,
    PurePath, enum.Enum, MappingProxyType, FunctionType, ModuleType, TypeVar, logging.Logger,
    click.ParamType, click.Command,
    # One value for each task, and one for each event loop.
    ContextVar, trio.lowlevel.RunVar,
)  # fmt: skip
MUTATORS = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "move_to_end", "pop",
    "popitem", "popleft", "remove", "reverse", "setdefault", "sort", "update",
}  # fmt: skip


def mutations(tree: ast.Module, names: set[str]) -> set[str]:
    """The module's names that its code changes in place, or rebinds in a function."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found |= set(node.names)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            found |= {node.value.id} if isinstance(node.value, ast.Name) else set()
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in MUTATORS
        ):
            found |= {node.func.value.id} if isinstance(node.func.value, ast.Name) else set()
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found & names


def is_fixed(value: object) -> bool:
    """Whether the type of a value is immutable."""
    if isinstance(value, FIXED) or (callable(value) and not isinstance(value, memoryview)):
        return True
    if dataclasses.is_dataclass(value):
        return bool(type(value).__dataclass_params__.frozen)  # type: ignore[attr-defined]
    return type(value).__module__ in ("typing", "types", "datetime", "ipaddress", "_ctypes")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_no_state_of_its_own(name: str) -> None:
    module = importlib.import_module(name)
    source = ast.parse(Path(str(module.__file__)).read_text())
    own = {
        target.id
        for node in source.body
        for target in (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        if isinstance(target, ast.Name) and hasattr(module, target.id)
    }
    tables = {each for each in own if isinstance(getattr(module, each), TABLES)}
    assert mutations(source, own) == set()
    assert [each for each in sorted(own - tables) if not is_fixed(getattr(module, each))] == []
    assert [each for each in sorted(tables) if type(getattr(module, each)) not in TABLES] == []


@pytest.mark.parametrize(
    "source",
    [
        "seen = {}\ndef f(): seen['a'] = 1",
        "seen = []\ndef f(): seen.append(1)",
        "count = 0\ndef f():\n global count\n count = 1",
        "seen = {}\ndef f(): del seen['a']",
    ],
)
def test_state_is_recognised(source: str) -> None:
    tree = ast.parse(source)
    assert mutations(tree, {"seen", "count"})


def test_a_buffer_is_recognised() -> None:
    assert not is_fixed(bytearray(3)) and not is_fixed(memoryview(b""))
