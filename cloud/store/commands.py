"""Commands: what was asked of a device, and how far its answer has come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, Table, Update, bindparam, case, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import CommandRow
from cloud.store.upsert import insert_one_missing
from schemas import topics
from schemas.base import jsonable
from schemas.commands import MAX_TIMEOUT, Command, CommandResult, CommandStatus
from schemas.errors import ErrorCode, refuse

KEPT = timedelta(days=90)
GRACE = timedelta(seconds=30)
"""How long after its deadline a command's final word may still be on its way."""
FIRST_WAIT = timedelta(seconds=2)
LONGEST_WAIT = timedelta(seconds=30)
BY_TOPIC = "topic"
"""Who ordered a command that only its result tells of: somebody who published to the device's topic."""

_TABLE = cast("Table", CommandRow.__table__)
_GET = select(_TABLE).where(_TABLE.c.id == bindparam("command"))
_OPEN = [
    status.value for status in CommandStatus if not status.final and status is not CommandStatus.UNANSWERED
]


def wait_after(sends: int) -> timedelta:
    """Return how long to wait for a word after the command was sent for the *sends*-th time."""
    return min(FIRST_WAIT * (1 << min(sends - 1, 10)), LONGEST_WAIT)


async def create(session: AsyncSession, command: Command, device: UUID, now: datetime) -> CommandRow:
    """Store the intent and return its row; the same id with the same content returns what is stored.

    Raises FleetError `command.id_conflict`.
    """
    return await insert(session, command, device, now) or await same(session, command, device)


async def insert(session: AsyncSession, command: Command, device: UUID, now: datetime) -> CommandRow | None:
    """Store the intent and return its row, or None if the id is taken.

    The caller sends the command for the first time after the commit.
    """
    values = _values(command.id, device, command.name, now) | {
        "arguments": command.arguments,
        "issued_at": command.issued_at,
        "issued_by": command.issued_by,
        "deadline": command.deadline,
        "sends": 1,
        "next_send_at": now + wait_after(1),
    }
    if not await insert_one_missing(session, CommandRow, values):
        return None
    return CommandRow(**values, data=None, error=None)


async def same(session: AsyncSession, command: Command, device: UUID) -> CommandRow:
    """Return the row with the id of *command*. Raises FleetError `command.id_conflict` if it is another."""
    row = await require(session, command.id)
    if (row.device, row.name, row.arguments) != (device, command.name, command.arguments):
        message = f"command {command.id} exists and is another ({row.name}); use a new id"
        refuse(ErrorCode.COMMAND_ID_CONFLICT, message)
    return row


async def note(session: AsyncSession, device: UUID, command: UUID, name: str, now: datetime) -> bool:
    """Make a row for a command that was published to the topic by others; return False if there is one.

    Nobody but the device knows its deadline, so the longest there may be is waited for.
    """
    values = _values(command, device, name, now) | {
        "arguments": {},
        "issued_at": now,
        "issued_by": BY_TOPIC,
        "deadline": now + MAX_TIMEOUT,
        "sends": 0,
        "next_send_at": None,
    }
    return await insert_one_missing(session, CommandRow, values)


_NEXT_SEND_AT = bindparam("next_send_at", type_=_TABLE.c.next_send_at.type)


def _recording(status: CommandStatus, earlier: Sequence[CommandStatus]) -> Update:
    """Return the guarded update by a word of *status*: only *earlier* gives way to it."""
    return (
        update(_TABLE)
        .where(
            _TABLE.c.id == bindparam("command"),
            _TABLE.c.device == bindparam("by"),
            _TABLE.c.name == bindparam("called"),
            _TABLE.c.status.in_([each.value for each in earlier]),
        )
        .values(
            status=status.value,
            detail=bindparam("detail"),
            data=bindparam("data"),
            error=bindparam("error"),
            updated_at=bindparam("now"),
            next_send_at=case((_TABLE.c.issued_by != BY_TOPIC, _NEXT_SEND_AT)),
        )
        .returning(_TABLE.c.id)
    )


_RECORDING = {
    status: _recording(status, [each for each in CommandStatus if status.may_follow(each)])
    for status in CommandStatus
}
_RECORDING_A_CONFLICT = _recording(CommandStatus.REJECTED, [CommandStatus.QUEUED])
"""The device speaks of a message that came after the one it has; what it said of that one stays true."""


async def record(
    session: AsyncSession, topic: topics.Result, result: CommandResult, now: datetime
) -> dict[str, Any] | None:
    """Store one word of a device on a command; return what the diary keeps of it, None if it was no news.

    Devices repeat themselves after a reconnect, so a second copy changes nothing; nor does a word on
    a command that is over, is called otherwise or is another device's.
    """
    error = None if result.error is None else jsonable(result.error)
    values = {
        "command": topic.id,
        "by": topic.device,
        "called": topic.command,
        "detail": result.detail,
        "data": result.data,
        "error": error,
        "now": now,
        "next_send_at": _next_send(result.status, now),
    }
    statement = _RECORDING_A_CONFLICT if _is_conflict(result) else _RECORDING[result.status]
    if await session.scalar(statement, values) is None:
        return None
    return _told(topic.id, topic.command, result.status, result.detail, error)


def _is_conflict(result: CommandResult) -> bool:
    return (
        result.status is CommandStatus.REJECTED
        and result.error is not None
        and result.error.code == ErrorCode.COMMAND_ID_CONFLICT
    )


async def due(session: AsyncSession, now: datetime, limit: int) -> Sequence[CommandRow]:
    """Return commands without a final word that are to be sent again, the longest due first."""
    statement = (
        select(CommandRow)
        .where(
            CommandRow.status.in_(_OPEN),
            CommandRow.next_send_at <= now,
            CommandRow.deadline > now,
            CommandRow.issued_by != BY_TOPIC,
        )
        .order_by(CommandRow.next_send_at)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def sent(session: AsyncSession, row: CommandRow, now: datetime) -> bool:
    """Claim one more sending of *row*; return False if somebody else did, or its final word came."""
    statement = (
        update(CommandRow)
        .where(CommandRow.id == row.id, CommandRow.sends == row.sends, CommandRow.status.in_(_OPEN))
        .values(sends=row.sends + 1, next_send_at=now + wait_after(row.sends + 1))
        .returning(CommandRow.id)
        .execution_options(synchronize_session=False)
    )
    return await session.scalar(statement) is not None


async def unsent(session: AsyncSession, command: UUID) -> None:
    """Take back that the command was sent once more: the broker did not take it."""
    await session.execute(
        update(CommandRow)
        .where(CommandRow.id == command, CommandRow.sends > 0)
        .values(sends=CommandRow.sends - 1)
        .execution_options(synchronize_session=False)
    )


async def expire(session: AsyncSession, now: datetime) -> Sequence[CommandRow]:
    """Give up waiting where the deadline and the grace are over; return what became `unanswered`.

    The device may have carried the command out all the same: a late word of its replaces this one.
    """
    statement = (
        update(CommandRow)
        .where(CommandRow.status.in_(_OPEN), CommandRow.deadline < now - GRACE)
        .values(
            status=CommandStatus.UNANSWERED.value,
            detail="no final word came from the device in time; whether it acted is not known",
            updated_at=now,
            next_send_at=None,
        )
        .returning(CommandRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return (await session.scalars(statement)).all()


async def get(session: AsyncSession, command: UUID) -> CommandRow | None:
    """Return the command as it is stored now, or None. The row belongs to no session: it is to be read."""
    found = (await session.execute(_GET, {"command": command})).one_or_none()
    return None if found is None else CommandRow(**found._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


async def require(session: AsyncSession, command: UUID) -> CommandRow:
    """Return the command. Raises FleetError `command.unknown`."""
    row = await get(session, command)
    if row is None:
        refuse(ErrorCode.COMMAND_UNKNOWN, f"no command with id {command} is stored")
    return row


async def listing(
    session: AsyncSession, device: UUID | None = None, *, before: datetime | None = None, limit: int = 100
) -> Sequence[CommandRow]:
    """Return commands, the newest first: of *device*, or of all; issued before *before*."""
    statement = select(CommandRow).order_by(CommandRow.issued_at.desc(), CommandRow.id).limit(limit)
    if device is not None:
        statement = statement.where(CommandRow.device == device)
    if before is not None:
        statement = statement.where(CommandRow.issued_at < before)
    return (await session.scalars(statement)).all()


def told(row: CommandRow) -> dict[str, Any]:
    """Return what the diary keeps of a command's newest word."""
    return _told(row.id, row.name, row.status, row.detail, row.error)


def _told(command: UUID, name: str, status: str, detail: str, error: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "command": str(command),
        "name": name,
        "status": str(status),
        "detail": detail,
        "error": error,
    }


async def prune(session: AsyncSession, now: datetime) -> int:
    """Delete commands that nothing has been heard of for `KEPT`; return how many."""
    result = await session.execute(delete(CommandRow).where(CommandRow.updated_at < now - KEPT))
    return cast("CursorResult[Any]", result).rowcount


def _values(command: UUID, device: UUID, name: str, now: datetime) -> dict[str, Any]:
    return {
        "id": command,
        "device": device,
        "name": str(name),
        "status": CommandStatus.QUEUED.value,
        "detail": "",
        "updated_at": now,
    }


def _next_send(status: CommandStatus, now: datetime) -> datetime | None:
    """After a first word the device has the command; asking again only fetches a lost last word."""
    return None if status.final else now + LONGEST_WAIT
