"""The name under which the cache stores a registry's lists and tags: a hash of the credentials.

Callers with different credentials may see different content, so their caches are separate.

- `identity_of` is slow on purpose (20 ms): other users may be able to read the cache, and must not
  learn passwords by trying them. It runs in a worker thread, once for each set of credentials.
- Pure.
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
    """The identity presented to one endpoint.

    It consists of the credential, and of the endpoint's headers and client certificates.
    """

    endpoint: Endpoint
    credential: Credential | None

    @property
    def is_anonymous(self) -> bool:
        return (
            self.credential is None and not self.endpoint.headers and not self.endpoint.identities
        )


def identity_of(identities: Sequence[PresentedIdentity]) -> str:
    """ANONYMOUS without credentials, otherwise a hash of them."""
    presented = [_parts(identity) for identity in identities if not identity.is_anonymous]
    if not presented:
        return ANONYMOUS
    # The order of the endpoints does not change the identity.
    text = json.dumps(sorted(presented, key=json.dumps)).encode()
    # The salt is fixed: each process must compute the same name for the shared cache.
    digest = hashlib.scrypt(text, salt=b"ocifs identity", n=_COST, r=_BLOCK, p=_PARALLEL, dklen=16)
    return digest.hex()


def _parts(identity: PresentedIdentity) -> list[object]:
    credential, endpoint = identity.credential, identity.endpoint
    return [
        endpoint.host,
        [credential.kind, credential.username, credential.secret] if credential else [],
        [list(header) for header in endpoint.headers],
        [[str(path) for path in pair] for pair in endpoint.identities],
    ]
