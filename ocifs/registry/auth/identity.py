"""Who the registries take the caller for, as a name that reveals nothing of the credentials.

The cache files what a registry said under this name, so that nobody is shown what another
credential saw.

Rules that hold here: pure and slow on purpose (`identity_of` takes 20 ms: it may be that a cache is
read by others, who must not learn passwords by trying them); it runs in a worker thread, once for
each set of credentials.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ocifs.registry.auth.credential import Credential
from ocifs.registry.config.endpoint import Endpoint

ANONYMOUS = "anonymous"
_COST, _BLOCK, _PARALLEL = 1 << 13, 8, 1  # scrypt, RFC 7914: 8 MiB


@dataclass(frozen=True, slots=True)
class PresentedIdentity:
    """What one endpoint is shown: a credential, if there is one, and the headers and certificates
    of its configuration.
    """

    site: Endpoint
    credential: Credential | None

    @property
    def is_empty(self) -> bool:
        return self.credential is None and not self.site.headers and not self.site.identities


def identity_of(proofs: Sequence[PresentedIdentity]) -> str:
    """The same text for the same proofs: ANONYMOUS for none, else a hash."""
    shown = [
        [
            each.site.host,
            [each.credential.kind, each.credential.username, each.credential.secret]
            if each.credential
            else [],
            [list(header) for header in each.site.headers],
            [[str(path) for path in pair] for pair in each.site.identities],
        ]
        for each in proofs
        if not each.is_empty
    ]
    if not shown:
        return ANONYMOUS
    text = json.dumps(sorted(shown, key=json.dumps)).encode()
    made = hashlib.scrypt(text, salt=b"ocifs identity", n=_COST, r=_BLOCK, p=_PARALLEL, dklen=16)
    return made.hex()
