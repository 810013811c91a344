"""Messages that could not be read, kept for a person to look at. Bounded in number and in size."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import DeadLetterRow
from schemas.errors import Problem
from schemas.reading import MAX_PAYLOAD

KEPT = timedelta(days=30)
MAX_ROWS = 2000
"""With the size of a payload this bounds the table to half a gigabyte, whoever fills it."""
_MAX_TOPIC = 600


async def add(
    session: AsyncSession,
    topic: str,
    payload: bytes,
    problem: Problem,
    now: datetime,
    *,
    keep: int = MAX_ROWS,
) -> None:
    """Keep a message, and forget the oldest beyond *keep* of them."""
    row = DeadLetterRow(
        at=now,
        topic=_storable(topic)[:_MAX_TOPIC],
        payload=payload[:MAX_PAYLOAD],
        code=problem.code,
        message=_storable(problem.message),
    )
    session.add(row)
    await session.flush()
    await session.execute(delete(DeadLetterRow).where(DeadLetterRow.id <= row.id - keep))


async def listing(
    session: AsyncSession, *, before: int | None = None, limit: int = 100
) -> Sequence[DeadLetterRow]:
    """Return messages, the newest first; *before* is the id the last page ended with."""
    statement = select(DeadLetterRow).order_by(DeadLetterRow.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(DeadLetterRow.id < before)
    return (await session.scalars(statement)).all()


async def prune(session: AsyncSession, now: datetime) -> int:
    """Delete what is older than `KEPT`; return how many."""
    result = await session.execute(delete(DeadLetterRow).where(DeadLetterRow.at < now - KEPT))
    return cast("CursorResult[Any]", result).rowcount


def _storable(text: str) -> str:
    """Return *text* without what PostgreSQL cannot keep: NUL and halves of a surrogate pair."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
