"""Whether to try again, and when.

Rules that hold here: pure; only what may pass is tried again (429, 408, 5xx, a lost connection); Retry-After is honoured as long as
the caller would wait for it; chance is handed in, so that many clients do not come back at once.
"""

from __future__ import annotations

from ocifs.errors import ConnectionRefused, OcifsError, RateLimited, RegistryFailed, Unreachable

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


def pause_before(attempt: int, error: OcifsError, attempts: int, chance: float, patience: float) -> float | None:
    """Seconds to wait after the failed `attempt` (from 1), or None to give up.

    `chance` is uniform in [0, 1). `patience`: seconds that the caller would still wait, as far as they are known.
    """
    if attempt >= attempts or isinstance(error, ConnectionRefused):
        return None
    backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1)) * (0.5 + chance / 2)
    if isinstance(error, RegistryFailed) and error.status is not None and error.status not in RETRIED:
        return None
    if isinstance(error, RateLimited | RegistryFailed):
        asked: float | None = error.retry_after
        if asked is not None:
            later = asked + chance * min(1.0, asked / 10)  # not sooner than asked, and not all at once
            return later if later <= patience else None
        return backoff
    return backoff if isinstance(error, Unreachable) else None
