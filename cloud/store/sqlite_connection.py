"""SQLite's connection as `Database` uses it: one trip to the connection's thread for each statement.

aiosqlite makes a trip each for making a cursor, executing, fetching and closing, and one for each commit or
rollback of nothing. A trip wakes two threads that contend for one interpreter lock, which costs more than
most of our statements do. Results here are small and read whole, so the thread does all of it at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import aiosqlite

_CHUNK = 64


def connect(database: str, **options: Any) -> Connection:
    """Return a connection to be awaited; *options* are those of `sqlite3.connect`."""
    connection = Connection(lambda: sqlite3.connect(database, **options), iter_chunk_size=_CHUNK)
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does with those it makes
    return connection


class Connection(aiosqlite.Connection):
    """Knows without asking its thread whether there is anything to commit."""

    _stopped: asyncio.Future[None] | None = None

    def cursor(self) -> Cursor:  # type: ignore[override] # entered by SQLAlchemy at once
        """Return a cursor; nothing is asked of the thread yet."""
        return Cursor(self)

    async def commit(self) -> None:
        """Commit what was changed, if anything was."""
        if self.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        """Take back what was changed, if anything was."""
        if self.in_transaction:
            await super().rollback()

    def stop(self) -> asyncio.Future[None] | None:
        """Have the thread close and end; the future tells when."""
        self._stopped = super().stop()
        return self._stopped

    async def _connect(self) -> Connection:
        """Connect, or fail with the thread ended: it may not outlive the loop it tells of its end."""
        try:
            await super()._connect()
        except BaseException:
            if self._stopped is not None:
                await self._stopped
            raise
        return self

    async def carry_out(self, work: Callable[[sqlite3.Connection], _Done]) -> _Done:
        """Return what *work* returns in the connection's thread."""
        done: _Done = await self._execute(work, self._conn)  # type: ignore[no-untyped-call] # a part it does not show
        return done


class _Done:
    """What is left of a statement that was carried out."""

    __slots__ = ("description", "lastrowid", "rowcount", "rows")

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        self.rows: list[Any] = cursor.fetchall() if cursor.description else []
        self.lastrowid = cursor.lastrowid
        self.rowcount = cursor.rowcount
        cursor.close()


class Cursor:
    """One statement and its whole result."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._done: _Done | None = None
        self.arraysize = 1

    @property
    def description(self) -> Any:
        """The columns of the result; None where the statement returns no rows."""
        return None if self._done is None else self._done.description

    @property
    def lastrowid(self) -> int | None:
        """The key of the row inserted last."""
        return None if self._done is None else self._done.lastrowid

    @property
    def rowcount(self) -> int:
        """How many rows were changed; -1 where that means nothing."""
        return -1 if self._done is None else self._done.rowcount

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        """Carry out *sql* and keep its result."""
        self._done = await self._connection.carry_out(lambda door: _Done(door.execute(sql, parameters)))
        return self

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Self:
        """Carry out *sql* for each of *parameters*."""
        self._done = await self._connection.carry_out(lambda door: _Done(door.executemany(sql, parameters)))
        return self

    async def fetchall(self) -> list[Any]:
        """Return the rows that were not fetched yet."""
        if self._done is None:
            return []
        rows, self._done.rows = self._done.rows, []
        return rows

    async def close(self) -> None:
        """Do nothing: the statement is over already."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None
