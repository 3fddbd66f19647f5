"""Decisions to retry, and delays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs import errors
from ocifs.oci.distribution.retry import FIRST_PAUSE, LONGEST_PAUSE, retry_delay

PASSING = [errors.Unreachable("x"), errors.RegistryFailed("x"), errors.RateLimited("x")]
LASTING = [
    errors.NotFound("x"),
    errors.AccessDenied("x"),
    errors.Malformed("x"),
    errors.IntegrityError("x"),
    errors.LimitExceeded("x"),
    errors.ConnectionRefused("x"),
    errors.Unsupported("x"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again_until_the_last_attempt(error: errors.OcifsError) -> None:
    pauses = [retry_delay(attempt, error, 4, 0.5, 30) for attempt in (1, 2, 3)]
    assert all(pause is not None for pause in pauses)
    assert pauses == sorted(pauses)  # type: ignore[type-var]
    assert retry_delay(4, error, 4, 0.5, 30) is None


@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_what_stays_is_not_tried_again(error: errors.OcifsError) -> None:
    assert retry_delay(1, error, 4, 0.5, 30) is None


def test_a_registry_that_says_when_is_believed_within_patience() -> None:
    assert retry_delay(1, errors.RateLimited("x", retry_after=7), 4, 0.0, 30) == 7
    assert (
        retry_delay(1, errors.RateLimited("x", retry_after=LONGEST_PAUSE + 1), 4, 0.0, 30)
        is not None
    )
    assert retry_delay(1, errors.RateLimited("x", retry_after=31), 4, 0.0, 30) is None


@given(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True), st.floats(0, 300))
def test_a_registry_that_says_when_is_asked_no_sooner_and_within_patience(
    requested: float, chance: float, remaining: float
) -> None:
    pause = retry_delay(
        1, errors.RegistryFailed("x", status=503, retry_after=requested), 4, chance, remaining
    )
    assert pause is None or requested <= pause <= min(max(requested + 1, FIRST_PAUSE), remaining)


@pytest.mark.parametrize("kind", [errors.RateLimited, errors.RegistryFailed])
@pytest.mark.parametrize("requested", [0.0, 0.01])
def test_a_retry_after_of_nothing_does_not_remove_the_back_off(
    kind: type[errors.RateLimited] | type[errors.RegistryFailed], requested: float
) -> None:
    for attempt in range(1, 9):
        for chance in (0.0, 0.9):
            usual = retry_delay(attempt, kind("x"), 10, chance, 300)
            pause = retry_delay(attempt, kind("x", retry_after=requested), 10, chance, 300)
            assert usual is not None and pause == max(usual, FIRST_PAUSE)


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_bounded_and_never_nothing(attempt: int, chance: float) -> None:
    pause = retry_delay(attempt, errors.Unreachable("x"), 100, chance, 30)
    assert pause is not None
    assert FIRST_PAUSE / 2 <= pause <= LONGEST_PAUSE


@pytest.mark.parametrize("status", [408, 499, 500, 502, 503, 504, *range(520, 526), 529, 530])
def test_a_failure_that_may_pass_is_tried_again_when_the_registry_says(status: int) -> None:
    assert retry_delay(1, errors.RegistryFailed("x", status=status), 4, 0.0, 30) is not None
    assert retry_delay(1, errors.RegistryFailed("x", status=status, retry_after=3), 4, 0.0, 30) == 3
    assert (
        retry_delay(1, errors.RegistryFailed("x", status=status, retry_after=1000), 4, 0.0, 30)
        is None
    )


@pytest.mark.parametrize("status", [400, 405, 410, 418, 451, 501, 505, 526])
def test_a_refusal_for_good_is_asked_once(status: int) -> None:
    assert retry_delay(1, errors.RegistryFailed("x", status=status), 4, 0.5, 30) is None
