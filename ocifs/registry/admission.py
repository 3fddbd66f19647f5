"""One question before a mount is made: whether it can work.

`app.Hosts` asks it in the task that opens the tree, before the daemon reports that it is ready; commands that read a tree do not.

Rules that hold here:

- An answer that says "no" (not there, not allowed, not a registry) is raised. It has a hint.
- Anything else that goes wrong is a warning: an outage passes, and what is in the cache can be read meanwhile.
- A host whose name does not exist is a "no", unless the cache knows the host: names of private networks come and go.
- A whole registry that needs a login is a "no", except with --repo: then the mount is not empty, and
  credentials are read again whenever they are asked for.
- A namespace is not a repository. It is admitted if the catalog has it, if --repo names something below it, or if the
  catalog cannot tell and it has one component, as no repository of a registry without a catalog has.
- Few requests: `/v2/` and a token for a whole registry, one page with one tag for a repository.
"""

from __future__ import annotations

from collections.abc import Iterable

from ocifs.content import Catalog
from ocifs.errors import AccessDenied, NotFound, OcifsError, Unreachable
from ocifs.registry.mirrors import Mirrored

_NAMED = 5  # repositories in a warning


async def admit(mirrored: Mirrored, catalog: Catalog, path: str, seeds: Iterable[str], *, is_cached: bool) -> str:
    """A warning, or "" if the mount can work. Raises what the registry said no with."""
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
        return await _namespace(mirrored.host, catalog, path, error)
    except OcifsError as error:
        if isinstance(error, Unreachable) and error.is_unknown_host and not is_cached and not mirrored.has_mirrors:
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
