"""Messages that could not be read, kept for a person to look at. Bounded in number and in size."""

from __future__ import annotations

import re
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
MAX_OF_DEVICE = 200
"""Of these, so that one device leaves room for what others said."""
_MAX_TOPIC = 600
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
    """Keep a message as `add_all` does."""
    await add_all(session, [Letter(topic, payload, problem)], now, keep=keep)


async def add_all(
    session: AsyncSession, letters: Sequence[Letter], now: datetime, *, keep: int = MAX_ROWS
) -> None:
    """Keep messages; forget the oldest beyond *keep* of all and beyond `MAX_OF_DEVICE` of one device."""
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
    for device in {found[0] for letter in letters if (found := _ID.search(letter.topic))}:
        await _curb(session, device)


async def _curb(session: AsyncSession, device: str) -> None:
    of_device = DeadLetterRow.topic.contains(device)
    newest = select(DeadLetterRow.id).where(of_device).order_by(DeadLetterRow.id.desc())
    edge = newest.offset(MAX_OF_DEVICE).limit(1).scalar_subquery()
    await session.execute(
        delete(DeadLetterRow)
        .where(of_device, DeadLetterRow.id <= edge)
        .execution_options(synchronize_session=False)
    )


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
