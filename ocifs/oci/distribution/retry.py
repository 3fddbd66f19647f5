"""Decides whether and when to retry a request.

`registry.http.throttle` calls this after each failed attempt.

Rules that hold here:

- Pure. The caller passes the random number, so that clients do not retry at the same moment.
- Only temporary failures are retried: the statuses of RETRIED, 429, a lost connection.
- Retry-After only lengthens a delay. "0" or a date in the past does not remove the back-off.
- A delay beyond the caller's deadline is not begun.
"""

from __future__ import annotations

from ocifs.errors import ConnectionRefused, OcifsError, RateLimited, RegistryFailed, Unreachable

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
# 499 and 520 to 530 are not registered: nginx and Cloudflare send them when their upstream server
# fails or is slow. 526 (invalid certificate) and 527 (withdrawn) are permanent.
RETRIED = frozenset({408, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 529, 530})


def retry_delay(
    attempt: int, error: OcifsError, attempts: int, chance: float, remaining: float
) -> float | None:
    """Seconds to wait after the failed `attempt` (from 1), or None to give up.

    `chance`: uniform in [0, 1). `remaining`: seconds until the caller's deadline, if it is known.
    """
    if attempt >= attempts or isinstance(error, ConnectionRefused):
        return None
    backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1)) * (0.5 + chance / 2)
    if (
        isinstance(error, RegistryFailed)
        and error.status is not None
        and error.status not in RETRIED
    ):
        return None
    if isinstance(error, RateLimited | RegistryFailed):
        if error.retry_after is None:
            return backoff
        # Not before Retry-After, and not at the same moment as other clients.
        earliest = error.retry_after + chance * min(1.0, error.retry_after / 10)
        if earliest > remaining:
            return None
        return max(earliest, min(max(backoff, FIRST_PAUSE), remaining))
    return backoff if isinstance(error, Unreachable) else None
