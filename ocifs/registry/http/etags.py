"""Answers that came with an ETag, so that the same question can be "has it changed?" (RFC 9110,
13.1.2).

Rules that hold here: only answers that may change are kept, with what is needed to give them again;
bounded in bytes, oldest first out; what is kept is given only after the registry said, just now,
that it has not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RegistryResponse:
    """A small answer, whole. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class EtagStore:
    """By target. `bound`: bytes of bodies together."""

    bound: int
    _kept: dict[str, tuple[str, RegistryResponse]] = field(default_factory=dict)
    _size: int = 0

    def condition(self, target: str) -> dict[str, str]:
        """The header that makes a question conditional; none where nothing is kept."""
        kept = self._kept.get(target)
        return {"If-None-Match": kept[0]} if kept else {}

    def take(self, target: str, answer: RegistryResponse) -> RegistryResponse:
        """The answer that is meant: this one, which is kept where it can be, or with 304 the one
        that was kept.
        """
        before = self._kept.pop(target, None)
        if before is not None:
            self._size -= len(before[1].body)
        if answer.status == 304 and before is not None:
            return self._keep(target, *before)
        etag = answer.headers.get("etag", "")
        return self._keep(target, etag, answer) if answer.status == 200 and etag else answer

    def _keep(self, target: str, etag: str, answer: RegistryResponse) -> RegistryResponse:
        if len(answer.body) <= self.bound:
            self._kept[target] = (etag, answer)
            self._size += len(answer.body)
            while self._size > self.bound:
                _, dropped = self._kept.pop(next(iter(self._kept)))
                self._size -= len(dropped.body)
        return answer
