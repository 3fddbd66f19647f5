"""Find the paths of a directory tree that match a pattern, as `ocifs find --path` does.

Runs in the event loop of an AsyncTree.

    /opt/x           this path; the first slash is optional
    etc/*.conf       `*`, `?` and `[…]` match within one component, also a dot at its beginning
    usr/**/libssl*   `**` matches any number of directories
    libssl*          a pattern without a slash matches names at any depth

- A component without a wildcard is looked up, so that a path costs no listing.
- Links are followed, except at the end of a path and below `**`.
- A directory is read once for each path that leads to it, however many `**` the pattern has.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from ocifs.errors import LimitExceeded, NotADirectory, NotFound, TooManyLinks, UsageError
from ocifs.tree.node import Directory, Node, Symlink
from ocifs.tree.walk import walk

T = TypeVar("T")

MAX_PATTERN = 4096
MAX_ENTRIES = 1_000_000
"""The names of one tree that are compared with a pattern."""
MAX_MATCHES = 10_000

_ANY_DEPTH = "**"
_WILD = re.compile(r"[*?\[]")


class Run(Protocol):
    """Runs a request with a deadline, such as `Pacer.run`."""

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T: ...


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A parsed pattern: its components, each with its expression if it has wildcards."""

    parts: tuple[str, ...]
    expressions: tuple[re.Pattern[str] | None, ...]

    def matches(self, position: int, name: str) -> bool:
        """Whether a name matches the component at a position."""
        expression = self.expressions[position]
        if expression is None:
            return self.parts[position] == name
        return expression.match(name) is not None

    def reachable(self, positions: set[int]) -> frozenset[int]:
        """The positions, and those after a `**`, which may match nothing."""
        pending, found = list(positions), set(positions)
        while pending:
            position = pending.pop()
            if self.parts[position : position + 1] == (_ANY_DEPTH,) and position + 1 not in found:
                found.add(position + 1)
                pending.append(position + 1)
        return frozenset(found)


def parse_pattern(text: str) -> PathPattern:
    """Parse a pattern. Raises UsageError if it cannot match a path."""
    parts = [part for part in text.split("/") if part]
    if not parts or len(text) > MAX_PATTERN:
        raise UsageError(f"invalid pattern: {text[:80]!r}", hint="use etc/*.conf or **/libssl*")
    if {".", ".."} & set(parts) or "\0" in text:
        raise UsageError(f"invalid pattern: {text!r}", hint="write it without . and ..")
    if "/" not in text.rstrip("/"):
        parts.insert(0, _ANY_DEPTH)
    expressions = tuple(
        re.compile(fnmatch.translate(part)) if part != _ANY_DEPTH and _WILD.search(part) else None
        for part in parts
    )
    return PathPattern(tuple(parts), expressions)


async def matching_paths(root: Directory, top: str, pattern: PathPattern, run: Run) -> list[str]:
    """The sorted paths below the directory `top` of a tree that match.

    Empty if there is no such directory. Raises LimitExceeded, and the errors of a read.
    """
    search = _PathSearch(root, pattern, run)
    try:
        node = await run(partial(walk, root, os.fsencode(top)))
    except NotFound as error:
        # With a hint, there is such a directory, but not for this platform.
        if error.hint:
            raise
        return []
    if isinstance(node, Directory):
        await search.run_from(top, node)
    return sorted(search.found)


@dataclass
class _PathSearch:
    """One search. A state is a set of positions in the pattern that come next."""

    root: Directory
    pattern: PathPattern
    run: Run
    found: list[str] = field(default_factory=list)
    _entries: int = 0

    async def run_from(self, top: str, directory: Directory) -> None:
        pending = [(top, directory, self.pattern.reachable({0}))]
        while pending:
            path, current, state = pending.pop()
            for name, node in await self._candidates(path, current, state):
                after = self._after(state, name)
                below = f"{path}/{name}"
                if len(self.pattern.parts) in after:
                    self._add(below)
                after -= {len(self.pattern.parts)}
                child = await self._directory(below, node, after)
                if child is not None:
                    pending.append((below, *child))

    async def _candidates(
        self, path: str, directory: Directory, state: frozenset[int]
    ) -> list[tuple[str, Node]]:
        """The entries that may match: those of a listing, or the names that the pattern spells."""
        parts, expressions = self.pattern.parts, self.pattern.expressions
        if any(parts[at] == _ANY_DEPTH or expressions[at] is not None for at in state):
            entries = await self.run(directory.entries)
            self._entries += len(entries)
            if self._entries > MAX_ENTRIES:
                raise LimitExceeded(f"more than {MAX_ENTRIES} names to compare")
            return [(os.fsdecode(entry.name), entry.node) for entry in entries]
        names = sorted({parts[at] for at in state})
        found = [(name, await self._look_up(f"{path}/{name}")) for name in names]
        return [(name, node) for name, node in found if node is not None]

    async def _look_up(self, path: str) -> Node | None:
        try:
            return await self.run(partial(walk, self.root, os.fsencode(path), follow=False))
        except (NotFound, NotADirectory):
            return None

    def _after(self, state: frozenset[int], name: str) -> frozenset[int]:
        """The state after a component."""
        parts = self.pattern.parts
        after = set()
        for position in state:
            if parts[position] == _ANY_DEPTH:
                after.add(position)
                if position == len(parts) - 1:
                    after.add(len(parts))
            elif self.pattern.matches(position, name):
                after.add(position + 1)
        return self.pattern.reachable(after)

    async def _directory(
        self, path: str, node: Node, state: frozenset[int]
    ) -> tuple[Directory, frozenset[int]] | None:
        """The directory to continue in, with its state."""
        if isinstance(node, Symlink):
            # Below `**` links are not followed: they may lead in circles.
            parts = self.pattern.parts
            first = min((at for at in state if parts[at] == _ANY_DEPTH), default=len(parts))
            state = frozenset(at for at in state if at < first)
            if not state:
                return None
            try:
                node = await self.run(partial(walk, self.root, os.fsencode(path)))
            except (NotFound, NotADirectory, TooManyLinks):
                return None
        return (node, state) if state and isinstance(node, Directory) else None

    def _add(self, path: str) -> None:
        if len(self.found) >= MAX_MATCHES:
            raise LimitExceeded(f"more than {MAX_MATCHES} paths match")
        self.found.append(path)
