"""The door to the database: SQLite by default, PostgreSQL by URL.

::

    sqlite:///var/lib/fleetline/fleet.db      one file
    postgresql://user:password@host/name      a server

Every session is one transaction: it commits when its block ends and rolls back
when the block raises. A database that does not answer, or gave a transaction up for
another's sake, is always FleetError `store.unreachable`, whichever driver said so and
however: the same may be asked again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Self, TypeAlias

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from cloud.store import migrations, sqlite_connection
from schemas.errors import ErrorCode, FleetError, problem, refuse, shown

Session: TypeAlias = AsyncSession
"""What the functions of `cloud.store` take; named here for those who may not know SQLAlchemy."""

BUSY_TIMEOUT = 10.0
"""Seconds a writer waits for SQLite's one write lock."""
_MIGRATION_LOCK = 0x464C454D
"""Any number nobody else locks: PostgreSQL's advisory locks are known by numbers."""
_POSTGRES = "postgresql+asyncpg"
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": _POSTGRES, "postgres": _POSTGRES}
_OUTAGES = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
_PASSING_STATES = ("08", "40", "53", "55", "57")
"""Classes of SQLSTATE that are no fault of the statement and may be over at the next try: connection,
rollback (a deadlock), resources, objects in use, operator."""
_PASSING_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
"""The same of SQLite: a file in use, a full or broken disk. A statement it cannot read is a fault of ours."""
_PRIMARY = 0xFF
"""The bits of an extended result code of SQLite that say what it is about."""


class Database:
    """One database and its pool of connections."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._outages: tuple[type[Exception], ...] = (
            *_OUTAGES,
            OSError,
            TimeoutError,
            *_driver_errors(engine),
        )

    @classmethod
    async def open(cls, url: str) -> Self:
        """Return the database at *url*; nothing is asked of it yet.

        Raises FleetError `value.wrong_type` where *url* is none.
        """
        parsed = _parse(url)
        if parsed.get_backend_name() != "sqlite":
            return cls(create_async_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=10))
        # A transaction takes the write lock with its first change, not with its first look: one that
        # looked, waited for another writer and then wrote would be refused at once, without waiting.
        engine = create_async_engine(
            parsed,
            connect_args={
                "timeout": BUSY_TIMEOUT,
                "isolation_level": "IMMEDIATE",
                "async_creator_fn": sqlite_connection.connect,
            },
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return cls(engine)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Give a session that is one transaction: committed at the end, rolled back on an error."""
        async with self._sessions() as session:
            await self._connect(session)
            try:
                yield session
                await session.commit()
            except DBAPIError as error:
                if _is_outage(error):
                    _unreachable(error)
                raise
            except ConnectionError as error:
                _unreachable(error)

    async def upgrade(self) -> None:
        """Bring the tables to the newest revision; any number of processes may do so at once."""
        try:
            async with self._engine.connect() as connection:
                if self._engine.dialect.name == "postgresql":
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                else:
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                await connection.run_sync(migrations.upgrade)
                await connection.commit()
        except self._outages as error:
            _unreachable(error)

    async def check(self) -> None:
        """Ask the database for a sign of life. Raises FleetError `store.unreachable`."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def _connect(self, session: AsyncSession) -> None:
        """Take a connection now, where every error means that there is none to be had."""
        try:
            await session.connection()
        except self._outages as error:
            _unreachable(error)


def driver_url(url: str) -> str:
    """Return *url* with the driver we use, for another part that keeps its own tables there."""
    return _parse(url).render_as_string(hide_password=False)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # SQLAlchemy's own words would tell the password
        parsed = None
    if parsed is None or parsed.drivername.partition("+")[0] not in _DRIVERS:
        scheme = url.partition("://")[0] if "://" in url else ""
        message = f"database URL {shown(scheme)}://...: use sqlite:///path or postgresql://..."
        refuse(ErrorCode.VALUE_WRONG_TYPE, message)
    return parsed.set(drivername=_DRIVERS[parsed.drivername.partition("+")[0]])


def _driver_errors(engine: AsyncEngine) -> tuple[type[Exception], ...]:
    """Return what asyncpg itself raises while it connects: SQLAlchemy passes it on as it is."""
    driver = getattr(engine.dialect.dbapi, "asyncpg", None)
    return () if driver is None else (driver.PostgresError, driver.InterfaceError)


_WAL_ATTEMPTS = 20


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for attempt in range(_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if attempt + 1 == _WAL_ATTEMPTS:
                raise
            # The switch itself never waits for another process that makes the same file; a transaction does.
            cursor.execute("BEGIN IMMEDIATE")
            connection.rollback()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _is_outage(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(_PASSING_STATES)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & _PRIMARY in _PASSING_CODES
    return error.connection_invalidated or isinstance(error, _OUTAGES)


def _unreachable(error: BaseException) -> NoReturn:
    cause = getattr(error, "orig", None) or error
    message = f"the database does not answer: {type(cause).__name__}: {str(cause)[:500]}"
    raise FleetError(problem(ErrorCode.STORE_UNREACHABLE, message)) from error
