"""Batches on disk until the cloud has stored them: survives kill -9, bounded, numbers never used twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

from device.database import Database
from schemas.errors import ErrorCode, FailureClass, Problem, problem
from schemas.telemetry import Watermark

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot TEXT NOT NULL,
    last INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS batch (seq INTEGER PRIMARY KEY, samples BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a spool may hold; the oldest batches give way."""

    batches: int = 50_000
    """At one batch each ten seconds, nearly six days."""
    bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch: its number and its samples as a JSON array."""

    seq: int
    samples: bytes


@dataclass(frozen=True, slots=True)
class Level:
    """How full a spool is, and how many batches it ever dropped."""

    batches: int
    dropped: int
    oldest: int | None
    last: int


class Spool:
    """The batches of one stream that no watermark has covered yet."""

    def __init__(self, database: Database, boot: UUID, limits: Limits) -> None:
        """Use `open`."""
        self.boot = boot
        self._database = database
        self._limits = limits

    @classmethod
    async def open(cls, path: Path, *, now: datetime, limits: Limits | None = None) -> Self:
        """Return the spool at *path*; a corrupt file is set aside and a new boot begins.

        Raises `StorageFailed`.
        """
        database = await Database.open(path, schema=_SCHEMA, check=_check, now=now)
        return cls(database, await database.run(_boot), limits or Limits())

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the file when it was opened."""
        if (aside := self._database.set_aside) is None:
            return ()
        text = f"the telemetry spool could not be read; it was kept as {aside} and a fresh one begun"
        return (problem(ErrorCode.INTERNAL, text, failure_class=FailureClass.DISK),)

    async def append(self, parts: Sequence[bytes]) -> None:
        """Store batches of samples; where there is no room the oldest are dropped, and counted.

        Raises `StorageFailed`: nothing was stored, and no number was used.
        """
        await self._database.run(lambda db: _append(db, parts, self._limits))

    async def pending(self, *, after: int, window: int, limit: int) -> list[Batch]:
        """Return, of the *window* oldest batches, those with a number above *after*; *limit* at once."""
        return await self._database.run(lambda db: _pending(db, after, window, limit))

    async def acknowledge(self, watermark: Watermark) -> int:
        """Forget what the cloud has stored; return how many batches that were. Raises `StorageFailed`."""
        if watermark.boot != self.boot:
            return 0
        return await self._database.run(lambda db: _forget(db, watermark.seq))

    async def level(self) -> Level:
        """Return how full it is."""
        return await self._database.run(_level)


def _check(db: sqlite3.Connection) -> None:
    for (boot,) in db.execute("SELECT boot FROM spool"):
        UUID(boot)
    db.execute("SELECT max(seq) FROM batch").fetchone()


def _boot(db: sqlite3.Connection) -> UUID:
    db.execute("INSERT OR IGNORE INTO spool VALUES (1, ?, 0, 0, 0)", (str(uuid4()),))
    return UUID(db.execute("SELECT boot FROM spool").fetchone()[0])


def _append(db: sqlite3.Connection, parts: Sequence[bytes], limits: Limits) -> None:
    (last,) = db.execute("SELECT last FROM spool").fetchone()
    db.executemany("INSERT INTO batch VALUES (?, ?)", enumerate(parts, last + 1))
    db.execute(
        "UPDATE spool SET last = last + ?, bytes = bytes + ?", (len(parts), sum(len(each) for each in parts))
    )
    _drop(db, limits)


def _drop(db: sqlite3.Connection, limits: Limits) -> None:
    level = _level(db)
    size = int(db.execute("SELECT bytes FROM spool").fetchone()[0])
    count, upto = level.batches, 0
    for seq, length in db.execute("SELECT seq, length(samples) FROM batch ORDER BY seq"):
        if count <= limits.batches and size <= limits.bytes:
            break
        count, size, upto = count - 1, size - length, seq
    if upto:
        db.execute("UPDATE spool SET dropped = dropped + ?", (_forget(db, upto),))


def _forget(db: sqlite3.Connection, upto: int) -> int:
    """Delete the batches up to a number, which are always the oldest; return how many."""
    size = db.execute("SELECT coalesce(sum(length(samples)), 0) FROM batch WHERE seq <= ?", (upto,))
    db.execute("UPDATE spool SET bytes = bytes - ?", size.fetchone())
    return db.execute("DELETE FROM batch WHERE seq <= ?", (upto,)).rowcount


def _pending(db: sqlite3.Connection, after: int, window: int, limit: int) -> list[Batch]:
    rows = db.execute(
        "SELECT seq, samples FROM batch WHERE seq > ? AND seq < ? + (SELECT min(seq) FROM batch)"
        " ORDER BY seq LIMIT ?",
        (after, window, limit),
    )
    return [Batch(seq, samples) for seq, samples in rows]


def _level(db: sqlite3.Connection) -> Level:
    last, dropped = db.execute("SELECT last, dropped FROM spool").fetchone()
    (oldest,) = db.execute("SELECT min(seq) FROM batch").fetchone()
    # Numbers follow each other and only the oldest ever go, so there is no gap to count.
    return Level(0 if oldest is None else last - oldest + 1, dropped, oldest, last)
