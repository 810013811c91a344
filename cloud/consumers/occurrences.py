"""`up/event`, `up/alert` and `up/chunk`: what goes into the diary as it comes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cloud.store import events
from cloud.store.database import Session
from schemas import topics
from schemas.base import jsonable
from schemas.commands import LogChunk
from schemas.reported import DeviceEvent


async def record(session: Session, topic: topics.Event, occurrence: DeviceEvent, now: datetime) -> None:
    """Keep an event of a device."""
    data = {"what": topic.kind, **jsonable(occurrence)}
    await events.append(session, events.Kind.EVENT, topic.device, data, now)


async def record_alert(
    session: Session, topic: topics.Alert, alert: dict[str, Any] | None, now: datetime
) -> None:
    """Keep an alert the device raised itself; None: it is over."""
    data = {"rule": topic.rule, "raised": alert is not None, "data": alert or {}}
    await events.append(session, events.Kind.ALERT, topic.device, data, now)


async def record_chunk(session: Session, topic: topics.Chunk, chunk: LogChunk, now: datetime) -> None:
    """Keep a piece of followed logs for a while."""
    data = {"command": str(topic.transfer), **jsonable(chunk)}
    await events.append(session, events.Kind.CHUNK, topic.device, data, now)
