"""`INSERT ... ON CONFLICT DO NOTHING`, which both databases speak and SQLAlchemy spells twice."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import CursorResult, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import Base


async def insert_missing(session: AsyncSession, table: type[Base], rows: list[dict[str, Any]]) -> None:
    """Insert those of *rows* that break no uniqueness; the others are left as they are."""
    if not rows:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    await session.execute(insert(table).on_conflict_do_nothing(), rows)


async def insert_one_missing(session: AsyncSession, table: type[Base], row: dict[str, Any]) -> bool:
    """Insert *row* unless it breaks a uniqueness; return whether it was inserted."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    result = await session.execute(insert(cast("Table", table.__table__)).on_conflict_do_nothing(), row)
    return cast("CursorResult[Any]", result).rowcount == 1
