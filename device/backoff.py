"""How long to wait before trying again: full jitter, so that a fleet does not return all at once."""

from __future__ import annotations

from datetime import timedelta

BASE = timedelta(seconds=0.5)
CAP = timedelta(seconds=60)
PROVEN = timedelta(seconds=30)
"""A connection that lasted longer than this was a success, and the count begins anew."""

_MOST_DOUBLINGS = 32


def ceiling(attempt: int) -> timedelta:
    """Return the longest pause after try *attempt* (0 is the first): doubling from `BASE` to `CAP`."""
    doublings = min(max(attempt, 0), _MOST_DOUBLINGS)
    return min(CAP, BASE * (1 << doublings))


def pause(attempt: int, draw: float) -> timedelta:
    """Return the pause after try *attempt*: a share *draw* (0 to 1, random) of its ceiling.

    Full jitter, after Marc Brooker, "Exponential Backoff And Jitter" (AWS, 2015).
    """
    return ceiling(attempt) * draw


def next_attempt(attempt: int, lasted: timedelta) -> int:
    """Return the number of the next try after try *attempt* held for *lasted* (zero: it failed at once)."""
    return 0 if lasted > PROVEN else attempt + 1
