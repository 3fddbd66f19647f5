"""The registries of the soak: one wants tokens, the other has a mirror; each is behind a proxy that
makes faults.

Rules that hold here:
- Pushes go to a registry without a token over the same data, so that no fault and no refusal
  touches them.
- What a reader may see is a moment of a tag's history: none that is older than its time to live,
  unless the registry could not be asked meanwhile, and none before one that was seen already.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.soak.expect import MAX_WAIT, Faults
from tests.soak.world import World
from tests.support.faultproxy import FaultProxy, fault_proxy
from tests.support.registry import running_registry
from tests.support.tokens import TokenServer, token_server

TOKEN_SECONDS = 4.0  # a token is replaced that often
PASSWORD = "the password of the soak"


@dataclass
class House:
    """A registry as a mount sees it. `faults` are those that an operation may notice."""

    world: World
    proxy: FaultProxy
    mirror: FaultProxy | None = None
    faults: Faults = field(default_factory=Faults)
    delays: Faults = field(
        default_factory=Faults
    )  # under which a known name may be as it last was, and nothing fails
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.proxy.host

    def proxies(self) -> list[FaultProxy]:
        return [self.proxy, *([self.mirror] if self.mirror else [])]

    def seen(self, repository: str, tag: str) -> int:
        """The moment of a tag's history that was seen last."""
        return self._seen.get((repository, tag), 0)

    def may_mean(self, repository: str, tag: str, since: float, seen: int) -> list[str | None]:
        """What an operation may see that ends now.

        `since`: what was believed then may be believed still; `seen`: the last moment seen.

        The caller holds the lock.
        """
        first, now = seen, time.monotonic()
        if not self.faults.felt(since, now) and not self.delays.felt(since, now):
            first = max(first, self.world.first_since(repository, tag, since))
        return [meaning for _, meaning in self.world.moments(repository, tag)[first:]]

    def saw(self, repository: str, tag: str, meaning: str | None, seen: int) -> None:
        """A tag was seen to mean this. The caller holds the lock."""
        later = enumerate(self.world.moments(repository, tag))
        found = next(
            (number for number, (_, each) in later if number >= seen and each == meaning), seen
        )
        self._seen[repository, tag] = max(self.seen(repository, tag), found)


@dataclass
class Village:
    """All of them, and the options of a mount that knows them."""

    houses: list[House]
    options: list[str]


@contextmanager
def village(place: Path, seed: int) -> Iterator[Village]:
    """Two registries in a directory of their own, for the length of the block."""
    with ExitStack() as stack:
        for name in ("open", "guarded", "plain", "tokens"):
            (place / name).mkdir()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(place / "ca.pem"))
        tokens = TokenServer("me", PASSWORD, lasts=300, says=TOKEN_SECONDS)
        stack.enter_context(token_server(place / "tokens", tokens, authority))
        behind = stack.enter_context(running_registry(place / "open", place / "data-a"))
        guarded = stack.enter_context(
            running_registry(place / "guarded", place / "data-a", tokens.config)
        )
        plain = stack.enter_context(running_registry(place / "plain", place / "data-b"))
        first = House(
            World(behind, random.Random(seed)), stack.enter_context(fault_proxy(guarded.host, seed))
        )
        proxies = [stack.enter_context(fault_proxy(plain.host, seed + n)) for n in (1, 2)]
        second = House(World(plain, random.Random(seed + 1)), *proxies)
        proxies[1].met = proxies[0].met  # a request that met a fault of the mirror meets no other
        for proxy in (first.proxy, second.proxy):
            proxy.again = MAX_WAIT
        packed = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        (place / "auth.json").write_text(json.dumps({"auths": {first.host: {"auth": packed}}}))
        table = f'location = "{second.host}"\n[[registry.mirror]]\nlocation = "{proxies[1].host}"\n'
        (place / "registries.conf").write_text(f"[[registry]]\n{table}")
        options = ["--ca-file", str(place / "ca.pem"), "--authfile", str(place / "auth.json")]
        yield Village(
            [first, second], [*options, "--registries-conf", str(place / "registries.conf")]
        )
