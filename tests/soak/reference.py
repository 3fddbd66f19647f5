"""What a mount may answer: a model of the promises, told of all that happens and asked about every
answer.

Rules that hold here: nothing of ocifs is used; what a tag meant is a history, and an answer is
judged by which of its moments it can come from: none that is older than the time to live unless the
registry could not be asked, and none before one that was already seen.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.soak.world import World

TTL = 60.0  # seconds for which a name is believed (--tag-ttl)
SLACK = 2.0  # seconds between an answer and its being judged
NEGATIVE = 7.0  # seconds for which absence is believed, and some slack

_LOST = {errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ETIMEDOUT}
_BROKEN = {errno.EIO}
CLASSES: dict[str, set[int]] = {
    "refuse": _LOST,
    "silent": _LOST,
    "stall": _LOST,
    "cut": _LOST | _BROKEN,
    "reset": _LOST | _BROKEN,
    "drip": _LOST,
    "trickle": _LOST,
    "no http": _LOST | _BROKEN,
    "429 until a date": {errno.EAGAIN, errno.ETIMEDOUT},
    "429 for a second": {errno.EAGAIN, errno.ETIMEDOUT},
    "500": _BROKEN,
    "502 of html": _BROKEN,
    "503 for a second": _BROKEN | {errno.ETIMEDOUT},
    "401": {errno.EACCES},
    "short": _LOST | _BROKEN,
    "long": _LOST | _BROKEN,
    "other range": _LOST | _BROKEN,
    "whole for a part": set(),
    "corrupt": _BROKEN,
}
"""The errnos of each fault. ENOENT is not one of them: only a registry reports absence."""

MUTE = frozenset(
    (
        "refuse",
        "silent",
        "no http",
        "429 until a date",
        "429 for a second",
        "500",
        "502 of html",
        "503 for a second",
    )
)
"""Faults that, in every answer, prevent the registry from reporting absence."""


@dataclass
class Reference:
    """What is promised of a mount of `world`, by the daemons' clock."""

    world: World
    now: Callable[[], float]
    passed: Callable[[float], float]  # how much of that passed in the last so many real seconds
    roomy: bool  # whether the cache has room for everything, so that what was here stays here
    fault: str = ""
    mute: bool = False  # whether the registry can tell nobody anything
    # whether the clock was moved for somebody who waited, so that whatever waited may have taken
    # too long
    hurried: bool = False
    kept: set[tuple[str, str, int]] = field(
        default_factory=set
    )  # layers that were read whole and not evicted since
    _names: set[tuple[str, str]] = field(
        default_factory=set
    )  # tags that were seen, and are written down
    _whole: bool = True  # whether the registry has either answered or not at all, of late
    _rotten: set[str] = field(default_factory=set)  # digests of what was damaged on the disk
    _said: dict[tuple[str, str], tuple[float, float]] = field(
        default_factory=dict
    )  # when what was said to be absent
    _felt: set[str] = field(default_factory=set)  # faults whose consequences may still be felt
    _seen: dict[tuple[str, str, str], int] = field(
        default_factory=dict
    )  # the moment of a tag's history last seen

    def set_fault(self, fault: str, share: float) -> None:
        """From now on answers go wrong in this way ("": in none)."""
        self.fault, self.mute = fault, fault in MUTE and share == 1.0
        self._felt |= {fault} - {""}
        self._whole &= not fault or (self.mute and not fault.startswith("429"))

    def recovered(self) -> None:
        """Nothing of the faults before can be felt any more."""
        self.hurried, self._whole = False, True
        self._felt.clear()

    def felt(self) -> set[str]:
        """The faults that may still be felt."""
        return set(self._felt)

    def errnos(self) -> set[int]:
        """Which errnos an operation may fail with now."""
        slow = _LOST if self.hurried else set()
        return slow | {number for fault in self.felt() for number in CLASSES[fault]}

    def must_show(self, repository: str, tag: str) -> bool:
        """Whether a tag has to be there although the registry may be away: nobody could ask, and it
        is known from before.
        """
        seen = self._meanings(repository, tag)[self._seen.get((repository, tag, "itself"), 0)]
        return self._whole and (repository, tag) in self._names and seen not in self._rotten

    def evicted(self) -> None:
        """Nothing that was here need be here any more."""
        self.kept.clear()
        self._names.clear()

    def may_be_absent(self, repository: str, name: str, sure: bool) -> bool:
        """Whether something may be absent; that it is, is noted.

        `sure`: the registry does not have it, or did not lately.
        """
        now = self.now(), time.monotonic()
        if self.mute:  # then only what it said before
            said = [
                self._said.get(key, (-100.0, -100.0))
                for key in ((repository, name), (repository, ""))
            ]
            return any(now[0] < when[0] + NEGATIVE or now[1] < when[1] + NEGATIVE for when in said)
        known = repository in {each for each, _ in self.world.meanings}
        self._said[repository, name if known else ""] = now
        return sure or not known or self._is_new(repository)

    def _is_new(self, repository: str) -> bool:
        """Whether somebody may still think that a repository is not there."""
        first = min(
            history[0][0]
            for (each, _), history in self.world.meanings.items()
            if each == repository
        )
        return bool(self.felt()) or first > self.now() - TTL - SLACK - self.passed(NEGATIVE)

    def meanings(self, repository: str, tag: str, way: str, grace: float = 0.0) -> set[str | None]:
        """What a tag may seem to be (None: absent) to who looks at it itself or at the list of tags
        (`way`).

        While the registry cannot be asked: what it meant at any time since it was last seen.
        `grace`: seconds for which somebody else may have remembered an answer.
        """
        return set(self._meanings(repository, tag)[self._first(repository, tag, way, grace) :])

    def saw(self, repository: str, tag: str, meaning: str | None) -> None:
        """A tag was seen to mean this: nothing that it meant before may come back."""
        first = self._first(repository, tag, "itself", 0.0)
        after = enumerate(self._meanings(repository, tag)[first:], first)
        self._seen[repository, tag, "itself"] = next(n for n, each in after if each == meaning)
        if meaning is None:
            self._names.discard((repository, tag))
        elif self.roomy:
            self._names.add((repository, tag))

    def saw_listed(self, repository: str, tag: str, listed: bool) -> bool:
        """Whether a tag may be listed, or not; if so, a list from before this may not come back."""
        first = self._first(repository, tag, "list", 0.0)
        after = enumerate(self._meanings(repository, tag)[first:], first)
        found = next((n for n, each in after if (each is not None) == listed), None)
        if found is not None:
            self._seen[repository, tag, "list"] = found
        return found is not None

    def keep(self, repository: str, digest: str, layer: int) -> None:
        """A layer was read whole."""
        content = self.world.artifacts[repository, digest].layers[layer]
        if not {digest, digest_of(content)} & self._rotten:
            self.kept.add((repository, digest, layer))

    def rot(self, digest: str) -> None:
        """Something of a manifest or a blob was damaged on the disk."""
        self._rotten.add(digest)
        for repository, manifest, layer in set(self.kept):
            content = self.world.artifacts[repository, manifest].layers[layer]
            if digest in (manifest, digest_of(content)):
                self.kept.discard((repository, manifest, layer))

    def damage(self, content: bytes) -> set[int]:
        """What reading something that may be damaged may fail with: nothing, as long as it can be
        fetched again.
        """
        return {errno.EIO} if self.felt() and digest_of(content) in self._rotten else set()

    def _first(self, repository: str, tag: str, way: str, grace: float) -> int:
        """The oldest of a tag's meanings that may still be seen."""
        seen = self._seen.get((repository, tag, way), 0)
        if self.felt():
            return seen
        believed = self.now() - TTL - SLACK - grace
        history = self._history(repository, tag)
        return max(seen, *(n for n, (since, _) in enumerate(history) if since <= believed))

    def _meanings(self, repository: str, tag: str) -> list[str | None]:
        return [meaning for _, meaning in self._history(repository, tag)]

    def _history(self, repository: str, tag: str) -> list[tuple[float, str | None]]:
        return [(float("-inf"), None), *self.world.meanings.get((repository, tag), [])]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
