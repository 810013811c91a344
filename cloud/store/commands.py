"""Commands: what was asked of a device, and how far its answer has come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import CommandRow
from cloud.store.upsert import insert_missing
from schemas.base import jsonable
from schemas.commands import DEFAULT_TIMEOUT, Command, CommandResult, CommandStatus
from schemas.errors import ErrorCode, refuse

KEPT = timedelta(days=90)
GRACE = timedelta(seconds=30)
"""How long after its deadline a command's final word may still be on its way."""
FIRST_WAIT = timedelta(seconds=2)
LONGEST_WAIT = timedelta(seconds=30)
BY_TOPIC = "topic"
"""Who ordered a command that only its result tells of: somebody who published to the device's topic."""

_OPEN = [
    status.value for status in CommandStatus if not status.final and status is not CommandStatus.UNANSWERED
]


def wait_after(sends: int) -> timedelta:
    """Return how long to wait for a word after the command was sent for the *sends*-th time."""
    return min(FIRST_WAIT * (1 << min(sends - 1, 10)), LONGEST_WAIT)


async def create(session: AsyncSession, command: Command, device: UUID, now: datetime) -> CommandRow:
    """Store the intent; the caller sends it for the first time after the commit.

    The same id with the same content returns what is stored. Raises FleetError `command.id_conflict`.
    """
    values = _values(command.id, device, command.name, now) | {
        "arguments": command.arguments,
        "issued_at": command.issued_at,
        "issued_by": command.issued_by,
        "deadline": command.deadline,
        "sends": 1,
        "next_send_at": now + wait_after(1),
    }
    await insert_missing(session, CommandRow, [values])
    row = await require(session, command.id)
    if (row.device, row.name, row.arguments) != (device, command.name, command.arguments):
        message = f"command {command.id} exists and is another ({row.name}); use a new id"
        refuse(ErrorCode.COMMAND_ID_CONFLICT, message)
    return row


async def note(session: AsyncSession, device: UUID, command: UUID, name: str, now: datetime) -> None:
    """Make a row for a command the store does not know yet: it was published to the topic by others."""
    values = _values(command, device, name, now) | {
        "arguments": {},
        "issued_at": now,
        "issued_by": BY_TOPIC,
        "deadline": now + DEFAULT_TIMEOUT,
        "sends": 0,
        "next_send_at": None,
    }
    await insert_missing(session, CommandRow, [values])


async def record(
    session: AsyncSession, device: UUID, command: UUID, result: CommandResult, now: datetime
) -> bool:
    """Store one word of *device* on *command*; return whether it was news.

    Devices repeat themselves after a reconnect, so a second copy changes nothing; nor does a word on
    a command that is over or is another device's.
    """
    earlier = [status.value for status in CommandStatus if result.status.may_follow(status)]
    statement = (
        update(CommandRow)
        .where(CommandRow.id == command, CommandRow.device == device, CommandRow.status.in_(earlier))
        .values(
            status=result.status.value,
            detail=result.detail,
            data=result.data,
            error=None if result.error is None else jsonable(result.error),
            updated_at=now,
            **_next_send(result.status, now),
        )
        .returning(CommandRow.id)
        .execution_options(synchronize_session=False)
    )
    return await session.scalar(statement) is not None


async def due(session: AsyncSession, now: datetime, limit: int) -> Sequence[CommandRow]:
    """Return commands without a final word that are to be sent again, the longest due first."""
    statement = (
        select(CommandRow)
        .where(CommandRow.status.in_(_OPEN), CommandRow.next_send_at <= now, CommandRow.deadline > now)
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
    """Return the command, or None."""
    return await session.get(CommandRow, command, populate_existing=True)


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
    return {
        "command": str(row.id),
        "name": row.name,
        "status": row.status,
        "detail": row.detail,
        "error": row.error,
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


def _next_send(status: CommandStatus, now: datetime) -> dict[str, datetime | None]:
    """After a first word the device has the command; asking again only fetches a lost last word."""
    return {"next_send_at": None if status.final else now + LONGEST_WAIT}
