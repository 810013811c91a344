"""How a measurement is printed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile (the largest of fewer than 100 values)."""
    return quantiles(values, n=100)[98] if len(values) >= 100 else max(values)


def milliseconds(name: str, seconds: Sequence[float]) -> None:
    """Print median, p99 and count of *seconds* as milliseconds."""
    middle, high = median(seconds) * 1000, p99(seconds) * 1000
    print(f"{name:<44} p50 {middle:8.2f} ms   p99 {high:8.2f} ms   n {len(seconds)}")


def ratio(name: str, ours: Sequence[float], baseline: Sequence[float], *, aim: str) -> None:
    """Print the ratio of two medians and what it should be."""
    print(f"{name:<44} {median(ours) / median(baseline):.2f} x   (aim: {aim})")
