"""How many different things one device may measure, so that none can fill the database with names."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from cloud.metrics.protocol import Point

MAX_SERIES = 1000
"""Series (a measurement with its tags) of one device, and as many fields."""
_REMEMBERED = 2_000_000


class Breadth:
    """What each device has measured since the process began.

    Which series are old is not asked of the database: after a restart a device may add as many again.
    """

    def __init__(self, *, limit: int = MAX_SERIES, remembered: int = _REMEMBERED) -> None:
        """Let each device have *limit* series and *limit* fields; know *remembered* of them all in all."""
        self._limit = limit
        self._remembered = remembered
        self._known = 0
        self._series: dict[UUID, set[int]] = {}
        self._fields: dict[UUID, set[int]] = {}

    def beyond(self, points: Iterable[Point]) -> dict[int, str]:
        """Return which of *points*, by identity, would be one series or field too many, and why."""
        found = {}
        for point in points:
            if reason := self._refusal(point):
                found[id(point)] = reason
        if self._known > self._remembered:
            self._series.clear()
            self._fields.clear()
            self._known = 0
        return found

    def _refusal(self, point: Point) -> str | None:
        series = self._series.setdefault(point.device, set())
        fields = self._fields.setdefault(point.device, set())
        new_series = {hash((point.measurement, point.tags))} - series
        new_fields = {hash((point.measurement, name)) for name in point.fields} - fields
        if len(series) + len(new_series) > self._limit:
            return f"{point.measurement}: the device has {self._limit} series already; use fewer tag values"
        if len(fields) + len(new_fields) > self._limit:
            return f"{point.measurement}: the device has {self._limit} fields already; use fewer names"
        series |= new_series
        fields |= new_fields
        self._known += len(new_series) + len(new_fields)
        return None
