"""Whether to try again, and when.

Rules that hold here:

- Pure. The caller passes the random number, which keeps many clients from returning at the same
  moment.
- Only failures that may pass are retried: the statuses of RETRIED, 429, a lost connection.
- Retry-After only lengthens a pause. "0" or a date in the past does not remove the back-off.
- A pause longer than the caller would wait is not begun.
"""

from __future__ import annotations

from ocifs.errors import ConnectionRefused, OcifsError, RateLimited, RegistryFailed, Unreachable

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
# 499 and 520 to 530 are not registered: nginx and Cloudflare answer so when what is behind them
# fails or is slow. 526 (invalid certificate) and 527 (withdrawn) do not pass by themselves.
RETRIED = frozenset({408, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 529, 530})


def retry_delay(
    attempt: int, error: OcifsError, attempts: int, chance: float, patience: float
) -> float | None:
    """Seconds to wait after the failed `attempt` (from 1), or None to give up.

    `chance` is uniform in [0, 1). `patience`: seconds that the caller would still wait, as far as
    they are known.
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
        asked: float | None = error.retry_after
        if asked is not None:
            later = asked + chance * min(
                1.0, asked / 10
            )  # not sooner than asked, and not all at once
            return (
                max(later, min(max(backoff, FIRST_PAUSE), patience)) if later <= patience else None
            )
        return backoff
    return backoff if isinstance(error, Unreachable) else None
