"""Commands to devices: stored first, then published, sent again until the last word is in."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from cloud.bus import Bus
from cloud.enrolled import Enrolled
from cloud.feed import Ended, Feed, Told
from cloud.store import commands, events
from cloud.store.database import Database
from cloud.store.tables import CommandRow
from schemas import topics
from schemas.commands import (
    ARGUMENTS,
    DEFAULT_TIMEOUT,
    MAX_TIMEOUT,
    Command,
    CommandName,
    command_name,
)
from schemas.errors import ErrorCode, FleetError, refuse
from schemas.reading import fit

log = logging.getLogger(__name__)

_AT_ONCE = 200
SHORTEST_TIMEOUT = 1.0


class Commander:
    """Orders commands and sees to it that each gets an answer or is called unanswered."""

    def __init__(
        self, database: Database, bus: Bus, feed: Feed, enrolled: Enrolled, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._enrolled = enrolled
        self._bus = bus
        self._feed = feed
        self._now = now

    async def order(
        self,
        device: UUID,
        name: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float = DEFAULT_TIMEOUT.total_seconds(),  # noqa: ASYNC109 - the device's time, not ours
        by: str,
        command: UUID | None = None,
    ) -> CommandRow:
        """Store a command and send it; return its row, which is safe before anything is sent.

        The device does not begin it later than *timeout* seconds from now. With the id of a stored
        command its row is returned and nothing is sent. Raises `Unreadable` for arguments that do not
        fit, FleetError `command.unknown`, `device.unknown`, `command.id_conflict` or
        `value.out_of_range`.
        """
        now = self._now()
        wanted = _command(command or uuid4(), name, arguments, timeout=timeout, by=by, now=now)
        async with self._database.session() as session:
            await self._enrolled.require(session, device)
            new = await commands.insert(session, wanted, device, now)
            row = new or await commands.same(session, wanted, device)
        if new is None or await self._send(new):
            return row
        async with self._database.session() as session:
            return await commands.require(session, row.id)

    async def sweep(self) -> None:
        """Send again what has no last word yet, and stop waiting where the time is over."""
        now = self._now()
        async with self._database.session() as session:
            given_up = await commands.expire(session, now)
            for row in given_up:
                await events.append(session, events.Kind.RESULT, row.device, commands.told(row), now)
        if given_up:
            told = {Told(row.device) for row in given_up}
            self._feed.notify(Told(), *told, *(Ended(row.id) for row in given_up))
        if not self._bus.connected:
            return
        async with self._database.session() as session:
            due = [
                row
                for row in await commands.due(session, now, _AT_ONCE)
                if await commands.sent(session, row, now)
            ]
        for row in due:
            await self._send(row)

    async def _send(self, row: CommandRow) -> bool:
        """Publish *row* and return whether the broker took it; if not, a later sweep sends it."""
        taken = await self._published(row)
        if not taken:
            async with self._database.session() as session:
                await commands.unsent(session, row.id)
        return taken

    async def _published(self, row: CommandRow) -> bool:
        left = row.deadline - self._now()
        if left <= timedelta(0):
            return False
        topic = topics.Command(row.device, row.name, row.id)
        try:
            await self._bus.publish(topic, _payload(row), expiry=left)
        except FleetError as error:
            log.info("command %s to %s is to be sent later: %s", row.id, row.device, error)
            return False
        return True


def _command(
    command: UUID, name: str, arguments: Mapping[str, Any], *, timeout: float, by: str, now: datetime
) -> Command:
    known = command_name(name)
    longest = MAX_TIMEOUT.total_seconds()
    if not SHORTEST_TIMEOUT <= timeout <= longest:
        message = f"timeout: {timeout:g} s is not between {SHORTEST_TIMEOUT:g} and {longest:g}"
        refuse(ErrorCode.VALUE_OUT_OF_RANGE, message, field="timeout")
    fit(ARGUMENTS[known], dict(arguments))
    return Command(
        id=command,
        name=known,
        arguments=dict(arguments),
        issued_at=now,
        deadline=now + timedelta(seconds=timeout),
        issued_by=by,
    )


def _payload(row: CommandRow) -> bytes:
    command = Command(
        id=row.id,
        name=CommandName(row.name),
        arguments=row.arguments,
        issued_at=row.issued_at,
        deadline=row.deadline,
        issued_by=row.issued_by,
    )
    return json.dumps(command.payload(), separators=(",", ":")).encode()
