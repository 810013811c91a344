"""`up/result/{command}/{id}`: one word of a device on a command."""

from __future__ import annotations

from datetime import datetime

from cloud.store import commands, events
from cloud.store.database import Session
from schemas import topics
from schemas.commands import CommandResult


async def record(session: Session, topic: topics.Result, result: CommandResult, now: datetime) -> bool:
    """Store *result*; return whether it was news.

    A command nobody ordered through the cloud was published to the device's topic by somebody else,
    which is as good a way: it gets a row now, so that REST shows it like any other.
    """
    await commands.note(session, topic.device, topic.id, topic.command, now)
    news = await commands.record(session, topic.device, topic.id, result, now)
    if news:
        row = await commands.require(session, topic.id)
        await events.append(session, events.Kind.RESULT, topic.device, commands.told(row), now)
    return news
