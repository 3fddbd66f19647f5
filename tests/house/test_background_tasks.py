"""Every background task has a guard, so that its error never ends the mount.

A task in a nursery of the function that waits for it is a part of that function, and its error is
raised to the caller. Every other task must be started through `guarded`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ocifs"
MODULES = sorted(PACKAGE.rglob("*.py"))
# The nurseries of these modules last as long as a mount, so a task in them belongs to no operation.
OF_THE_MOUNT = {"app.py", "mounting.py", "fuse/session.py"}
EXCEPTIONS = {
    ("concurrency.py", "self._fly"): "raises every error in its waiters",
    (
        "fuse/session.py",
        "_report_ready",
    ): "runs before the mount is ready: the command reports its error",
}
THREADS = {
    ("api.py", "threading.Thread"): "started by the caller of ocifs.open, who gets the error",
    (
        "fuse/kernel/syscalls.py",
        "threading.Thread",
    ): "joined at once: the thread has a working directory of its own",
    ("fuse/mounts.py", "threading.Thread"): "started by a command, not by a mount",
    (
        "layers/indexing/worker.py",
        "threading.Thread",
    ): "started by start_thread, which waits for one",
}


def functions(tree: ast.AST) -> Iterator[ast.AsyncFunctionDef | ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
            yield node


def opened_in(function: ast.AST) -> set[str]:
    """The names of the nurseries that a function opens, and therefore waits for."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                if (
                    ast.unparse(item.context_expr) == "trio.open_nursery()"
                    and item.optional_vars is not None
                ):
                    found.add(ast.unparse(item.optional_vars))
    return found


def unguarded(name: str, text: str) -> list[str]:
    """The background tasks of a module without a guard, as `line: target`."""
    tree = ast.parse(text)
    parts: set[ast.Call] = set()
    if name not in OF_THE_MOUNT:
        for function in functions(tree):
            own = opened_in(function)
            parts |= {
                node
                for node in ast.walk(function)
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) in own
            }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in ("start_soon", "start", "spawn_system_task") or node in parts:
            continue
        if node.func.attr == "start" and not ast.unparse(node.func.value).endswith("nursery"):
            continue
        target = ast.unparse(node.args[0]) if node.args else ""
        if target != "guarded" and (name, target) not in EXCEPTIONS:
            found.append(f"{node.lineno}: {target}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_background_task_has_a_guard(path: Path) -> None:
    assert unguarded(str(path.relative_to(PACKAGE)), path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_work_in_threads_waits_for_a_thread(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    called = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    assert "trio.to_thread.run_sync" not in called or name == "concurrency.py"
    assert "threading.Thread" not in called or (name, "threading.Thread") in THREADS


def test_the_exceptions_still_exist() -> None:
    for name, target in (*EXCEPTIONS, *THREADS):
        assert target in (PACKAGE / name).read_text()


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.py", "def f(self):\n  self._nursery.start_soon(work, 1)", 1),
        ("a.py", "def f(self):\n  self._nursery.start_soon(guarded, 'work', work, 1)", 0),
        (
            "a.py",
            "async def f():\n  async with trio.open_nursery() as nursery:\n"
            "    nursery.start_soon(work)",
            0,
        ),
        (
            "app.py",
            "async def f():\n  async with trio.open_nursery() as nursery:\n"
            "    nursery.start_soon(work)",
            1,
        ),
        ("a.py", "async def f(nursery):\n  await nursery.start(work)", 1),
        ("a.py", "def f():\n  trio.lowlevel.spawn_system_task(work)", 1),
        ("a.py", "def f(nursery):\n  nursery.start_soon(lambda: work())", 1),
    ],
)
def test_a_task_without_a_guard_is_found(name: str, text: str, found: int) -> None:
    assert len(unguarded(name, text)) == found
