"""`up/result/{command}/{id}`: one word of a device on a command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cloud.store import commands
from cloud.store.database import Session
from cloud.store.events import Entry, Kind
from schemas import topics
from schemas.commands import CommandResult


async def record(
    session: Session, topic: topics.Result, result: CommandResult, now: datetime
) -> Sequence[Entry]:
    """Store *result*; return what the diary is to tell of it: nothing if it was no news.

    A command nobody ordered through the cloud was published to the device's topic by somebody else,
    which is as good a way: it gets a row now, so that REST shows it like any other.
    """
    told = await commands.record(session, topic, result, now)
    if told is None and await commands.note(session, topic.device, topic.id, topic.command, now):
        told = await commands.record(session, topic, result, now)
    if told is None:
        return []
    return [Entry(Kind.RESULT, topic.device, told, now, ends=topic.id if result.status.final else None)]
