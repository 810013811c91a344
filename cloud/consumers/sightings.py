"""When something last came from each device, kept in memory so that the table need not take every message."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

EVERY = timedelta(seconds=1)
"""How far the table may be behind for a device that goes on talking."""
_REMEMBERED = 200_000


class Sightings:
    """What the table was last told, by device."""

    def __init__(self) -> None:
        self._told: dict[UUID, datetime] = {}

    def due(self, heard: Iterable[UUID], now: datetime) -> set[UUID]:
        """Return those of *heard* whose row is more than `EVERY` behind."""
        return {device for device in heard if not self._fresh(device, now)}

    def told(self, devices: Iterable[UUID], now: datetime) -> None:
        """Remember that the rows of *devices* were set to *now*."""
        if len(self._told) > _REMEMBERED:
            self._told.clear()
        self._told.update(dict.fromkeys(devices, now))

    def _fresh(self, device: UUID, now: datetime) -> bool:
        told = self._told.get(device)
        return told is not None and timedelta(0) <= now - told < EVERY
