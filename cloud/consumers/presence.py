"""`up/presence`: whether a device is connected."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from cloud.store import devices, events
from cloud.store.database import Session
from schemas.base import jsonable
from schemas.presence import Presence


async def record(session: Session, device: UUID, presence: Presence, now: datetime) -> bool:
    """Store *presence* and note it in the diary; return whether it was news."""
    news = await devices.record_presence(session, device, presence)
    if news:
        await events.append(session, events.Kind.PRESENCE, device, jsonable(presence), now)
    return news
