"""Check sizes of modules, classes and functions, links between documents, and paths of one machine.

No linter has these checks.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_MODULE, MAX_CLASS, MAX_FUNCTION, MAX_PARAMETERS = 350, 200, 50, 5
ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]+)?\)")
# Split, so that this file does not contain them.
FORBIDDEN = ("/" + "work/", "../" + "shared")


def tracked() -> list[Path]:
    """All files that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def sizes(path: Path) -> Iterator[str]:
    """The parts of a module that exceed the limits."""
    text = path.read_text()
    if text.count("\n") > MAX_MODULE:
        yield f"{text.count(chr(10))} lines, at most {MAX_MODULE} are allowed"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            if lines > MAX_CLASS:
                yield f"{node.name} has {lines} lines, at most {MAX_CLASS} are allowed"
            continue
        if lines > MAX_FUNCTION:
            yield f"{node.name} has {lines} lines, at most {MAX_FUNCTION} are allowed"
        names = [
            argument.arg
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        ]
        count = len([name for name in names if name not in ("self", "cls")])
        if count > MAX_PARAMETERS and not any(
            "command" in ast.unparse(decorator) for decorator in node.decorator_list
        ):
            yield f"{node.name} has {count} parameters, at most {MAX_PARAMETERS} are allowed"


def links(path: Path) -> Iterator[str]:
    """The links of a document to missing files or headings."""
    for target, anchor in LINK.findall(path.read_text()):
        linked = path.parent / target if target else path
        if not linked.exists():
            yield f"links to {target}, which does not exist"
        elif anchor and linked.suffix == ".md" and anchor[1:] not in headings(linked):
            yield f"links to {target}{anchor}, a heading that does not exist"


def headings(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    found = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text.lower())) for text in found}


def main() -> int:
    found = []
    for path in tracked():
        name = path.relative_to(ROOT)
        if path.suffix == ".py" and name.parts[0] == "ocifs":
            found += [f"{name}: {problem}" for problem in sizes(path)]
        if path.suffix == ".md":
            found += [f"{name}: {problem}" for problem in links(path)]
        text = path.read_bytes().decode(errors="replace")
        found += [f"{name}: names {word}" for word in FORBIDDEN if word in text]
    print("\n".join(found) or "house: in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
