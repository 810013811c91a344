"""One SQLite file on one thread of its own, so that no disk ever holds up the event loop.

Every call is one transaction, on disk when the call returns (WAL with
`synchronous=FULL`): what was written before a kill -9 or a power cut is there
after it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Self, TypeVar

from schemas.errors import ErrorCode, FailureClass, FleetError, Problem, problem

Result = TypeVar("Result")

_SIDE_FILES = ("", "-wal", "-shm")


class StorageFailed(FleetError):  # noqa: N818 - says what is the case
    """The file cannot be read or written now (`internal`, class `disk`). Nothing was changed."""


class Database:
    """A connection that lives on its own thread. `set_aside` tells of a corrupt file found at opening."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor, set_aside: Path | None
    ) -> None:
        """Use `open`."""
        self.path = path
        self.set_aside = set_aside
        self._connection = connection
        self._thread = thread

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        schema: str,
        check: Callable[[sqlite3.Connection], object],
        now: datetime,
    ) -> Self:
        """Return the database at *path*, made with *schema* (idempotent SQL) where absent.

        *check* reads what must be readable and raises `sqlite3.Error` or
        `ValueError` where it is not. A file that fails is renamed
        `NAME.corrupt-TIME`, never deleted, and a fresh one begins. Raises
        `StorageFailed` where the directory cannot be written.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=path.stem)
        loop = asyncio.get_running_loop()
        try:
            connection, aside = await loop.run_in_executor(thread, _open, path, schema, check, now)
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise StorageFailed(_failure(path, error)) from error
        return cls(path, connection, thread, aside)

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Return what *work* returns, carried out in one transaction: all of it or none.

        Once begun it is finished even if the caller is cancelled. Raises `StorageFailed`.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, _transaction, self._connection, work)
        except sqlite3.Error as error:
            raise StorageFailed(_failure(self.path, error)) from error

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=True)


def _open(
    path: Path, schema: str, check: Callable[[sqlite3.Connection], object], now: datetime
) -> tuple[sqlite3.Connection, Path | None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connect(path, schema, check), None
    except sqlite3.OperationalError:
        raise  # no space, no right, locked: the content may be sound
    except (sqlite3.DatabaseError, ValueError):
        aside = path.with_name(f"{path.name}.corrupt-{now:%Y%m%dT%H%M%S}")
        for suffix in _SIDE_FILES:
            file = path.with_name(path.name + suffix)
            if file.exists():
                file.replace(aside.with_name(aside.name + suffix))
        return _connect(path, schema, check), aside


def _connect(path: Path, schema: str, check: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(schema)
        _quick_check(connection)
        check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _quick_check(connection: sqlite3.Connection) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Result]) -> Result:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _failure(path: Path, error: Exception) -> Problem:
    message = f"{path} cannot be read or written: {error}; free disk space or check the directory's rights"
    return problem(ErrorCode.INTERNAL, message, failure_class=FailureClass.DISK)
