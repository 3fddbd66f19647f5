"""The check before a mount: whether its sources can be read.

`app.Hosts` calls `admit_all` in the task that opens the tree, before the daemon reports that it is
ready. Commands that read a tree do not call it. No state.

- A refusal is raised, with a hint: an absent repository, a missing permission, not a registry.
- Any other failure is a warning: an outage passes, and cached content can be read meanwhile.
- An unknown host name is a refusal, unless the cache has the host: names of private networks come
  and go.
- A whole registry that requires a login is refused, except with --repo: then the mount is not
  empty, and credentials are read again for each request.
- Several sources are checked concurrently, within one deadline. A refusal of some of them is a
  warning that names the source. It is an error if all are refused and --any admits no others.
- A namespace is not a repository. It is admitted if the catalog has it, or if --repo names a
  repository below it. Without a catalog it is admitted if it has one component, since such
  registries have no repositories with one component.
- Few requests are sent: `/v2/` and a token for a whole registry, a page with one tag for a
  repository.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import trio

from ocifs.content import Catalog
from ocifs.errors import AccessDenied, NotFound, OcifsError, Unreachable
from ocifs.oci.reference import RegistrySource
from ocifs.registry.mirrors.mirrored import MirroredRegistry

_NAMED = 5  # repositories in a warning, refusals in an error


@dataclass(frozen=True, slots=True)
class AdmissionCandidate:
    """A source that is to be mounted.

    `seeds`: the repositories of --repo. `is_cached`: whether the cache has the host.
    """

    source: RegistrySource
    mirrored: MirroredRegistry
    catalog: Catalog
    seeds: tuple[str, ...]
    is_cached: Callable[[], Awaitable[bool]]


async def admit_all(
    candidates: Sequence[AdmissionCandidate], seconds: float, *, or_any: bool = False
) -> list[str]:
    """Check the sources. Returns warnings.

    Raises the refusal if every source is refused, unless the mount admits any host (`or_any`).
    """
    warnings: dict[RegistrySource, str] = {}
    refusals: dict[RegistrySource, OcifsError] = {}

    async def check(candidate: AdmissionCandidate) -> None:
        source, host = candidate.source, candidate.source.host
        # Remains the warning if the deadline passes first.
        warnings[source] = (
            f"{host} has not answered yet; until it does, the mount shows cached content"
        )
        try:
            with trio.move_on_after(seconds):
                warnings[source] = await admit(candidate)
        except OcifsError as error:
            refusals[source] = error
            warnings[source] = f"cannot read {source}: {error}"

    async with trio.open_nursery() as nursery:
        for candidate in candidates:
            nursery.start_soon(check, candidate)
    if refusals and len(refusals) == len(candidates) and not or_any:
        raise _merge([refusals[candidate.source] for candidate in candidates])
    texts = (warnings[candidate.source] for candidate in candidates)
    return [text for text in texts if text]


def _merge(refusals: Sequence[OcifsError]) -> OcifsError:
    """One error for several: the first, with the messages of all."""
    first = refusals[0]
    if len(refusals) > 1:
        more = f"; and {len(refusals) - _NAMED} more" if len(refusals) > _NAMED else ""
        # Changed in place, so that its class and its hint remain.
        first.args = ("; ".join(map(str, refusals[:_NAMED])) + more,)
    return first


async def admit(candidate: AdmissionCandidate) -> str:
    """Check one source. Returns a warning, or "" if it can be read. Raises the refusal."""
    mirrored, path = candidate.mirrored, candidate.source.path
    is_cached = await candidate.is_cached()
    try:
        await mirrored.admit(path)
    except (NotFound, AccessDenied) as error:
        if mirrored.has_mirrors:
            return f"{error}; its mirrors may serve content"
        seeds = [
            seed
            for seed in candidate.seeds
            if not path or seed == path or seed.startswith(f"{path}/")
        ]
        if seeds and path:
            return ""
        if seeds and isinstance(error, AccessDenied):
            listed = ", ".join(seeds[:_NAMED])
            return f"{error}; the mount lists {listed}, which can be read after a login"
        if not path:
            raise
        return await _admit_namespace(mirrored.host, candidate.catalog, path, error)
    except OcifsError as error:
        unknown = isinstance(error, Unreachable) and error.is_unknown_host
        if unknown and not is_cached and not mirrored.has_mirrors:
            raise
        return f"{error}; until it responds, the mount shows cached content"
    return ""


async def _admit_namespace(host: str, catalog: Catalog, path: str, refusal: OcifsError) -> str:
    """Check a path that is not a readable repository, and may be a namespace."""
    try:
        repositories: Iterable[object] = await catalog.repositories()
    except OcifsError as error:
        repositories = error.listed
        if "/" not in path and not repositories:
            return f"{refusal}; {host} lists no repositories, so {path} is used as a namespace"
    if any(name == path or str(name).startswith(f"{path}/") for name in repositories):
        return ""
    raise refusal
