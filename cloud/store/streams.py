"""How far each device's telemetry has come into the metrics database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import case, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import StreamRow
from cloud.store.upsert import insert_missing

KEPT = 32
"""Streams of one device, over all lives of its spool."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One numbered row of batches: a device's stream in one life of its spool."""

    device: UUID
    name: str
    boot: UUID


@dataclass(frozen=True, slots=True)
class Mark:
    """Every batch up to *seq* is in the database or counted among the *lost*."""

    seq: int
    lost: int = 0


async def marks(session: AsyncSession, streams: Collection[Stream]) -> dict[Stream, Mark]:
    """Return how far those of *streams* are that have a mark."""
    key = tuple_(StreamRow.device, StreamRow.stream, StreamRow.boot)
    wanted = [(stream.device, stream.name, stream.boot) for stream in streams]
    rows = await session.scalars(select(StreamRow).where(key.in_(wanted)))
    return {Stream(row.device, row.stream, row.boot): Mark(row.seq, row.lost) for row in rows}


async def advance(session: AsyncSession, stream: Stream, mark: Mark, now: datetime) -> None:
    """Move *stream* on to *mark*; a mark never goes back."""
    row = {
        "device": stream.device,
        "stream": stream.name,
        "boot": stream.boot,
        "seq": mark.seq,
        "lost": mark.lost,
        "updated_at": now,
    }
    await insert_missing(session, StreamRow, [row])
    await session.execute(
        update(StreamRow)
        .where(
            StreamRow.device == stream.device,
            StreamRow.stream == stream.name,
            StreamRow.boot == stream.boot,
            StreamRow.seq < mark.seq,
        )
        .values(
            seq=mark.seq,
            lost=case((StreamRow.lost < mark.lost, mark.lost), else_=StreamRow.lost),
            updated_at=now,
        )
        .execution_options(synchronize_session=False)
    )


async def listing(session: AsyncSession, device: UUID) -> Sequence[StreamRow]:
    """Return every stream of *device*, the newest change first."""
    statement = select(StreamRow).where(StreamRow.device == device).order_by(StreamRow.updated_at.desc())
    return (await session.scalars(statement)).all()


async def forget_old(session: AsyncSession, device: UUID) -> None:
    """Keep the newest `KEPT` streams of *device*: it may name and number as many as it likes."""
    key = tuple_(StreamRow.stream, StreamRow.boot)
    kept = (
        select(StreamRow.stream, StreamRow.boot)
        .where(StreamRow.device == device)
        .order_by(StreamRow.updated_at.desc())
        .limit(KEPT)
    )
    await session.execute(
        delete(StreamRow)
        .where(StreamRow.device == device, key.not_in(kept))
        .execution_options(synchronize_session=False)
    )
