"""`up/event`, `up/alert` and `up/chunk`: what goes into the diary as it comes. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cloud.store.events import Entry, Kind
from schemas import topics
from schemas.base import jsonable
from schemas.commands import LogChunk
from schemas.reported import DeviceEvent


def entry(topic: topics.Event, occurrence: DeviceEvent, now: datetime) -> Entry:
    """Return what the diary keeps of an event of a device."""
    return Entry(Kind.EVENT, topic.device, {"what": topic.kind, **jsonable(occurrence)}, now)


def alert_entry(topic: topics.Alert, alert: dict[str, Any] | None, now: datetime) -> Entry:
    """Return what the diary keeps of an alert the device raised itself; None: it is over."""
    data = {"rule": topic.rule, "raised": alert is not None, "data": alert or {}}
    return Entry(Kind.ALERT, topic.device, data, now)


def chunk_entry(topic: topics.Chunk, chunk: LogChunk, now: datetime) -> Entry:
    """Return a piece of followed logs as the diary keeps it for a while."""
    return Entry(Kind.CHUNK, topic.device, {"command": str(topic.transfer), **jsonable(chunk)}, now)
