"""Messages that could not be read, kept for a person to look at. Bounded in number and in size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import DeadLetterRow
from schemas.errors import Problem
from schemas.reading import MAX_PAYLOAD

KEPT = timedelta(days=30)
MAX_ROWS = 2000
"""With the size of a payload this bounds the table to half a gigabyte, whoever fills it."""
_MAX_TOPIC = 600


@dataclass(frozen=True, slots=True)
class Letter:
    """A message and why it could not be read."""

    topic: str
    payload: bytes
    problem: Problem


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
    await add_all(session, [Letter(topic, payload, problem)], now, keep=keep)


async def add_all(
    session: AsyncSession, letters: Sequence[Letter], now: datetime, *, keep: int = MAX_ROWS
) -> None:
    """Keep messages, and forget the oldest beyond *keep* of them."""
    if not letters:
        return
    rows = [
        {
            "at": now,
            "topic": _storable(letter.topic)[:_MAX_TOPIC],
            "payload": letter.payload[:MAX_PAYLOAD],
            "code": letter.problem.code,
            "message": _storable(letter.problem.message),
        }
        for letter in letters
    ]
    await session.execute(insert(DeadLetterRow.__table__), rows)  # type: ignore[arg-type] # as in `events`
    newest = await session.scalar(select(func.max(DeadLetterRow.id))) or 0
    await session.execute(delete(DeadLetterRow).where(DeadLetterRow.id <= newest - keep))


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
