"""The pauses between tries: bounded, jittered, and forgotten after a success."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.backoff import BASE, CAP, PROVEN, ceiling, next_attempt, pause

ATTEMPTS = st.integers(min_value=0, max_value=10**9)
DRAWS = st.floats(min_value=0, max_value=1)


@given(ATTEMPTS, DRAWS)
def test_a_pause_never_exceeds_the_cap_and_is_never_negative(attempt: int, draw: float) -> None:
    assert timedelta(0) <= pause(attempt, draw) <= CAP


@given(ATTEMPTS)
def test_a_later_try_never_waits_less_at_most(attempt: int) -> None:
    assert ceiling(attempt) <= ceiling(attempt + 1)


@given(ATTEMPTS, DRAWS)
def test_the_draw_spreads_the_pause_over_its_whole_range(attempt: int, draw: float) -> None:
    assert pause(attempt, 0) == timedelta(0)
    assert pause(attempt, 1) == ceiling(attempt)
    assert pause(attempt, draw) <= ceiling(attempt)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(0, 0.5), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60), (10**6, 60)]
)
def test_the_ceiling_doubles_up_to_the_cap(attempt: int, seconds: float) -> None:
    assert ceiling(attempt) == timedelta(seconds=seconds)


def test_the_first_ceiling_is_the_base() -> None:
    assert ceiling(0) == BASE


@pytest.mark.parametrize(
    ("lasted", "following"),
    [(timedelta(0), 6), (PROVEN, 6), (PROVEN + timedelta(milliseconds=1), 0), (timedelta(days=-1), 6)],
)
def test_only_a_connection_that_lasted_resets_the_count(lasted: timedelta, following: int) -> None:
    assert next_attempt(5, lasted) == following
