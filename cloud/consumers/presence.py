"""`up/presence`: whether a device is connected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from cloud.store import devices
from cloud.store.database import Session
from cloud.store.events import Entry, Kind
from schemas.base import jsonable
from schemas.presence import Presence


async def record(session: Session, device: UUID, presence: Presence, now: datetime) -> Sequence[Entry]:
    """Store *presence*; return what the diary is to tell of it: nothing if it was no news."""
    news = await devices.record_presence(session, device, presence)
    return [Entry(Kind.PRESENCE, device, jsonable(presence), now)] if news else []
