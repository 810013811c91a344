"""How long to wait before trying again (pure): full jitter, so that many never knock at once."""

from __future__ import annotations

from random import Random


def pause(failures: int, *, random: Random, first: float = 0.5, longest: float = 30.0) -> float:
    """Return seconds to wait after the *failures*-th failure in a row, counted from 1.

    Source: "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0, min(longest, first * (1 << min(failures, 16))))
