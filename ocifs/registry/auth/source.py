"""The Protocol of a credential source, and the search through a list of them.

`app` makes the list (`sources.standard_sources`) and hands it to each registry's `Authenticator`,
which searches it from the task of a request.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from ocifs.registry.auth.credential import Credential

log = logging.getLogger("ocifs.registry")


class CredentialSource(Protocol):
    """A place where credentials are stored.

    - `find` runs on the event loop, so blocking work belongs into a thread, with a deadline.
    - A source without a credential, or one that fails, returns None. A failure is logged.
    - No secret is in a log message, an error or a repr.
    """

    async def find(self, host: str, repository: str, *, refresh: bool) -> Credential | None:
        """The credential for a repository (empty: the catalog) of a host.

        `refresh`: the registry has rejected the last one, so a cached one must not be returned.
        """
        ...

    def describe(self) -> str:
        """The name of the source for messages, such as a path."""
        ...


CredentialSources = Sequence[CredentialSource]


async def find_credential(
    sources: CredentialSources, host: str, repository: str, *, refresh: bool = False
) -> Credential | None:
    """The credential of the first source that has one."""
    for source in sources:
        credential = await source.find(host, repository, refresh=refresh)
        if credential is not None:
            log.debug("using the credential for %s from %s", host, source.describe())
            return replace(credential, origin=source.describe())
    return None
