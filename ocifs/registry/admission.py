"""One question before a mount is made: whether it can work.

`app.Hosts` asks it in the task that opens the tree, before the daemon reports that it is ready;
commands that read a tree do not.

Rules that hold here:

- An answer that says "no" (not there, not allowed, not a registry) is raised. It has a hint.
- Anything else that goes wrong is a warning: an outage passes, and what is in the cache can be read
  meanwhile.
- A host whose name does not exist is a "no", unless the cache knows the host: names of private
  networks come and go.
- A whole registry that needs a login is a "no", except with --repo: then the mount is not empty,
  and credentials are read again whenever they are asked for.
- Several sources are asked side by side, within one deadline. A "no" to some of them is a warning
  that names the source. It is an error if all are refused and --any lets no others in.
- A namespace is not a repository. It is admitted if the catalog has it, if --repo names something
  below it, or if the catalog cannot tell and it has one component, as no repository of a registry
  without a catalog has.
- Few requests: `/v2/` and a token for a whole registry, one page with one tag for a repository.
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

    `seeds`: the repositories that --repo names. `is_cached`: whether the cache has its host.
    """

    source: RegistrySource
    mirrored: MirroredRegistry
    catalog: Catalog
    seeds: tuple[str, ...]
    is_cached: Callable[[], Awaitable[bool]]


async def admit_all(
    applicants: Sequence[AdmissionCandidate], seconds: float, *, or_any: bool = False
) -> list[str]:
    """Warnings of what may not work.

    Raises the refusal if every source was refused, unless the mount is for any host (`or_any`).
    """
    warnings: dict[RegistrySource, str] = {}
    refusals: dict[RegistrySource, OcifsError] = {}

    async def ask(applicant: AdmissionCandidate) -> None:
        source, host = applicant.source, applicant.source.host
        warnings[source] = (
            f"{host} has not answered yet; the mount shows what the cache has until it does"
        )
        try:
            with trio.move_on_after(seconds):
                warnings[source] = await admit(applicant)
        except OcifsError as error:
            refusals[source] = error
            warnings[source] = f"{source} cannot be read: {error}"

    async with trio.open_nursery() as nursery:
        for applicant in applicants:
            nursery.start_soon(ask, applicant)
    if refusals and len(refusals) == len(applicants) and not or_any:
        raise _together([refusals[applicant.source] for applicant in applicants])
    return [warnings[applicant.source] for applicant in applicants if warnings[applicant.source]]


def _together(refusals: Sequence[OcifsError]) -> OcifsError:
    """One error for several: the first, with the messages of all."""
    first = refusals[0]
    if len(refusals) > 1:
        more = f"; and {len(refusals) - _NAMED} more" if len(refusals) > _NAMED else ""
        first.args = ("; ".join(map(str, refusals[:_NAMED])) + more,)
    return first


async def admit(applicant: AdmissionCandidate) -> str:
    """A warning, or "" if the mount can work. Raises what the registry said no with."""
    mirrored, path, seeds = applicant.mirrored, applicant.source.path, applicant.seeds
    is_cached = await applicant.is_cached()
    try:
        await mirrored.admit(path)
    except (NotFound, AccessDenied) as error:
        if mirrored.has_mirrors:
            return f"{error}; its mirrors are asked"
        named = [seed for seed in seeds if not path or seed == path or seed.startswith(f"{path}/")]
        if named and path:
            return ""
        if named and isinstance(error, AccessDenied):
            return f"{error}; the mount lists {', '.join(named[:_NAMED])} and waits for a login"
        if not path:
            raise
        return await _namespace(mirrored.host, applicant.catalog, path, error)
    except OcifsError as error:
        if (
            isinstance(error, Unreachable)
            and error.is_unknown_host
            and not is_cached
            and not mirrored.has_mirrors
        ):
            raise
        return f"{error}; the mount shows what the cache has until it can be asked"
    return ""


async def _namespace(host: str, catalog: Catalog, path: str, refusal: OcifsError) -> str:
    """The same for what is not a repository that may be read, and may be a namespace."""
    try:
        listed: Iterable[object] = await catalog.repositories()
    except OcifsError as error:
        listed = error.listed
        if "/" not in path and not listed:
            return f"{refusal}; {host} lists no repositories, so {path} is taken for a namespace"
    if any(name == path or str(name).startswith(f"{path}/") for name in listed):
        return ""
    raise refusal
