"""The troubleshooting page has every error and every finding of `ocifs doctor`.

Each error has its errno and its exit status.
"""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocifs.cli.errors import status_of
from ocifs.errors import OcifsError
from ocifs.fuse.errno import errno_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def classes(kind: type[OcifsError] = OcifsError) -> Iterator[type[OcifsError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == "ocifs.errors":
            yield from classes(below)


def test_every_class_has_a_section_and_no_other_has_one() -> None:
    assert set(SECTIONS) == {kind.__name__ for kind in classes()}


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.__name__)
def test_a_section_has_the_errno_the_exit_status_and_what_to_do(kind: type[OcifsError]) -> None:
    error, text = kind("x"), SECTIONS[kind.__name__]
    told = re.match(r"\s*errno (E[A-Z]+), exit status (\d)", text)
    assert told is not None and (getattr(errno, told[1]), int(told[2])) == (
        errno_of(error),
        status_of(error),
    )
    assert (
        len(re.sub(r"^- .*$", "", text, flags=re.MULTILINE).split()) > 15
    )  # a section with the message alone does not help


def test_the_words_of_programs_are_those_of_the_system() -> None:
    rows = re.findall(r"^\| ([A-Z][\w /-]+) \| (E[A-Z]+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 10
    for words, name, links in rows:
        assert os.strerror(getattr(errno, name)) == words
        for kind in re.findall(r"\[(\w+)\]", links):
            assert f"errno {name}," in SECTIONS[kind]


def literals(tree: ast.AST) -> set[str]:
    """The strings of a module, without the parts that are filled in."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_the_messages_are_those_of_the_code() -> None:
    known = "\n".join(
        text
        for path in ROOT.glob("ocifs/**/*.py")
        for text in literals(ast.parse(path.read_text()))
    )
    shown = [
        message
        for text in SECTIONS.values()
        for message in re.findall(r"^- `(.*)`$", text, re.MULTILINE)
    ]
    assert len(shown) > 40
    for message in shown:
        parts = [re.sub(r" (\d{3}|5)$", "", part.strip(" ()")) for part in message.split("…")]
        assert [part for part in parts if part not in known] == [], message


def findings() -> Iterator[tuple[str, set[str]]]:
    """The topic and the constant strings of each finding of `ocifs doctor` that can be a problem.

    The findings on mounts, registries, sources, registries.conf and the owners of files are left
    out: they repeat errors of other parts.
    """
    for module in ("checks", "doctor"):
        tree = ast.parse((ROOT / f"ocifs/verbs/{module}.py").read_text())
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(function):
                if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Finding"):
                    continue
                texts = assigned(function, call.lineno)
                level, topic, text = (
                    texts.get(node.id, node) if isinstance(node, ast.Name) else node
                    for node in call.args[:3]
                )
                if getattr(level, "id", "") != "OK":
                    assert isinstance(topic, ast.Constant) and isinstance(topic.value, str)
                    names = [
                        texts[node.id]
                        for node in ast.walk(text)
                        if isinstance(node, ast.Name) and node.id in texts
                    ]
                    yield topic.value, {part for each in (text, *names) for part in literals(each)}


def assigned(function: ast.AST, line: int) -> dict[str, ast.expr]:
    """The last value assigned to each name of a function, before a line."""
    texts: dict[str, tuple[int, ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and node.lineno <= line:
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=True))
                for name, value in pairs:
                    if isinstance(name, ast.Name) and node.lineno >= texts.get(name.id, (0,))[0]:
                        texts[name.id] = node.lineno, value
    return {name: value for name, (_, value) in texts.items()}


def test_every_finding_of_doctor_is_in_the_table() -> None:
    rows = re.findall(
        r"^\| ([\w.-]+) \| [^|]*(?:bad|warning|note)[^|]* \| ([^|]+) \|", PAGE, re.MULTILINE
    )
    found = list(findings())
    assert len(found) > 15
    for topic, parts in found:
        told = [words for row, words in rows if row == topic]
        long = {part.strip(" ,(") for part in parts if len(part) > 8}
        repeats = topic in ("mount", "registry", "source", "registries.conf") or not long
        assert told and (repeats or any(part in words for part in long for words in told)), (
            topic,
            parts,
        )
