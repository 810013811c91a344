"""The commands in the journal: taken on, begun, answered, and whether the broker has the answer."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from device.commands.admit import Stored
from device.database import Database, StorageFailed
from schemas.base import print_time, to_wire
from schemas.commands import Command, CommandResult, CommandStatus
from schemas.errors import ErrorCode, FailureClass, problem

log = logging.getLogger(__name__)

_Row: TypeAlias = tuple[bytes, str, str, str, str | None, bytes | None, str | None, bytes | None]
KEPT_FOR = timedelta(days=7)
MOST = 10_000
_OVER = 100
"""Rows above `MOST` that may gather before the oldest answers are let go."""
_COLUMNS = "command, digest, status, received, before, answer, response_topic, correlation"
_OPEN = (CommandStatus.ACCEPTED.value, CommandStatus.STARTED.value)


class Ledger:
    """Every method is one transaction, on disk when it returns. Raises `StorageFailed`."""

    def __init__(self, database: Database) -> None:
        """Use the journal's *database*."""
        self._database = database

    async def find(self, command_id: UUID) -> Stored | None:
        """Return what is known under *command_id*. What cannot be read raises `StorageFailed`."""
        rows = await self._select("WHERE id = ?", str(command_id))
        try:
            return next(map(_stored, rows), None)
        except ValueError as error:
            text = f"what is kept of {command_id} cannot be read; send the command under a new id"
            raise StorageFailed(
                problem(ErrorCode.INTERNAL, text, failure_class=FailureClass.DISK, retryable=False)
            ) from error

    async def accept(self, stored: Stored) -> None:
        """Note that a command was taken on; the oldest answers make room."""
        await self._database.run(lambda db: _accept(db, stored))

    async def start(self, command_id: UUID, before: dict[str, str | None]) -> None:
        """Note that acting on a command begins, and what was the case *before*."""
        await self._database.run(
            lambda db: db.execute(
                "UPDATE commands SET status = ?, before = ? WHERE id = ? AND answer IS NULL",
                (CommandStatus.STARTED.value, json.dumps(before), str(command_id)),
            )
        )

    async def answer(self, command_id: UUID, result: CommandResult) -> None:
        """Note the final word on a command; a second one changes nothing."""
        await self._database.run(
            lambda db: db.execute(
                "UPDATE commands SET status = ?, answer = ?, answered = ? WHERE id = ? AND answer IS NULL",
                (result.status.value, to_wire(result), print_time(result.at), str(command_id)),
            )
        )

    async def delivered(self, command_id: UUID) -> None:
        """Note that the broker has confirmed the answer."""
        await self._database.run(
            lambda db: db.execute("UPDATE commands SET delivered = 1 WHERE id = ?", (str(command_id),))
        )

    async def unanswered(self) -> list[Stored]:
        """Return the commands without a final word, oldest first."""
        return _readable(await self._select("WHERE status IN (?, ?) ORDER BY received", *_OPEN))

    async def undelivered(self) -> list[Stored]:
        """Return the answered commands whose answer the broker has not confirmed, oldest first."""
        return _readable(await self._select("WHERE delivered = 0 AND answer IS NOT NULL ORDER BY answered"))

    async def counts(self) -> dict[str, int]:
        """Return how many commands there are of each status."""
        return await self._database.run(
            lambda db: dict(db.execute("SELECT status, count(*) FROM commands GROUP BY status").fetchall())
        )

    async def _select(self, clause: str, *values: str) -> list[_Row]:
        query = f"SELECT {_COLUMNS} FROM commands {clause}"  # noqa: S608 - both are literals of this module
        return await self._database.run(lambda db: db.execute(query, values).fetchall())


def _accept(db: sqlite3.Connection, stored: Stored) -> None:
    db.execute(
        "INSERT OR IGNORE INTO commands "
        "(id, command, digest, received, deadline, status, response_topic, correlation) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(stored.id),
            to_wire(stored.command),
            stored.digest,
            print_time(stored.received),
            print_time(stored.command.deadline),
            stored.status.value,
            stored.response_topic,
            stored.correlation,
        ),
    )
    count = db.execute("SELECT count(*) FROM commands").fetchone()[0]
    if count > MOST + _OVER:
        _forget(db, count - MOST, stored.received)


def _forget(db: sqlite3.Connection, surplus: int, now: datetime) -> None:
    """Let go of answers older than `KEPT_FOR`; if that is not enough, of the oldest delivered ones."""
    horizon = print_time(now - KEPT_FOR)
    gone = db.execute("DELETE FROM commands WHERE answer IS NOT NULL AND answered < ?", (horizon,)).rowcount
    if gone < surplus:
        db.execute(
            "DELETE FROM commands WHERE id IN (SELECT id FROM commands WHERE answer IS NOT NULL "
            "ORDER BY delivered DESC, answered LIMIT ?)",
            (surplus - gone,),
        )


def _readable(rows: Iterable[_Row]) -> list[Stored]:
    """Return what can be read: a row that another version wrote must not stop the agent."""
    found = []
    for row in rows:
        try:
            found.append(_stored(row))
        except ValueError as error:
            log.error("a command in the journal cannot be read and is left alone: %s", error)  # noqa: TRY400
    return found


def _stored(row: _Row) -> Stored:
    command, digest, status, received, before, answer, response_topic, correlation = row
    return Stored(
        command=Command.model_validate_json(command),
        digest=digest,
        status=CommandStatus(status),
        received=datetime.fromisoformat(received),
        before=None if before is None else json.loads(before),
        answer=None if answer is None else CommandResult.model_validate_json(answer),
        response_topic=response_topic,
        correlation=correlation,
    )
