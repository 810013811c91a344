"""The fleet's diary: appended by the consumers, read by the event stream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import EventRow

KEPT = timedelta(days=7)
"""How long an event can be read."""
CHUNKS_KEPT = timedelta(hours=1)
"""How long a piece of followed logs can be read."""
MAX_OF_DEVICE = 10_000
"""Events of one device that outlive a pruning, however much it tells."""
_APPEND_LOCK = 0x464C4556
"""Any number nobody else locks: PostgreSQL's advisory locks are known by numbers."""


class Kind(StrEnum):
    """What an event tells of."""

    PRESENCE = "presence"
    REPORTED = "reported"
    RESULT = "result"
    EVENT = "event"
    CHUNK = "chunk"
    DEPLOYMENT = "deployment"
    CONFIG = "config"
    ENROLLED = "enrolled"
    ALERT = "alert"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something the diary is to tell."""

    kind: Kind
    device: UUID | None
    data: dict[str, Any]
    at: datetime
    ends: UUID | None = None
    """The command or deployment that this brings to an end on the device; not stored."""


_INSERT = insert(EventRow.__table__)  # type: ignore[arg-type] # SQLAlchemy types it as any selectable
_LOCK = select(func.pg_advisory_xact_lock(_APPEND_LOCK))


async def append(
    session: AsyncSession, kind: Kind, device: UUID | None, data: dict[str, Any], now: datetime
) -> None:
    """Add one event; do it last in a transaction, see `append_all`."""
    await append_all(session, [Entry(kind, device, data, now)])


async def append_all(session: AsyncSession, entries: Sequence[Entry]) -> None:
    """Add events in their order; do it last in a transaction.

    Readers go by the id, so ids must become visible in their order. SQLite has
    one writer at a time; on PostgreSQL writers queue here until the commit.
    """
    if not entries:
        return
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(_LOCK)
    rows = [
        {"at": each.at, "kind": each.kind.value, "device": each.device, "data": each.data} for each in entries
    ]
    await session.execute(_INSERT, rows)


async def after(
    session: AsyncSession,
    event: int,
    *,
    kinds: Collection[Kind] = (),
    device: UUID | None = None,
    limit: int = 100,
) -> list[EventRow]:
    """Return events later than *event*, oldest first; no kinds means all of them."""
    statement = select(EventRow).where(EventRow.id > event).order_by(EventRow.id).limit(limit)
    if kinds:
        statement = statement.where(EventRow.kind.in_(kinds))
    if device is not None:
        statement = statement.where(EventRow.device == device)
    return list(await session.scalars(statement))


async def newest(session: AsyncSession) -> int:
    """Return the id of the newest event, 0 if there is none."""
    return await session.scalar(select(func.max(EventRow.id))) or 0


async def prune(session: AsyncSession, now: datetime) -> int:
    """Delete what is too old to be read; return how many."""
    old = or_(
        EventRow.at < now - KEPT,
        (EventRow.kind == Kind.CHUNK) & (EventRow.at < now - CHUNKS_KEPT),
    )
    result = await session.execute(delete(EventRow).where(old))
    return cast("CursorResult[Any]", result).rowcount


async def curb(session: AsyncSession, *, keep: int = MAX_OF_DEVICE) -> dict[UUID, int]:
    """Delete the oldest events of devices that have more than *keep*; return how many of each."""
    counts = select(EventRow.device, func.count()).group_by(EventRow.device).having(func.count() > keep)
    dropped: dict[UUID, int] = {}
    for device, count in (await session.execute(counts)).all():
        if device is None:
            continue
        newest = select(EventRow.id).where(EventRow.device == device).order_by(EventRow.id.desc())
        edge = newest.offset(keep).limit(1).scalar_subquery()
        await session.execute(
            delete(EventRow)
            .where(EventRow.device == device, EventRow.id <= edge)
            .execution_options(synchronize_session=False)
        )
        dropped[device] = count - keep
    return dropped
