"""What the agent says about commands: words on the way, and answers until the broker has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from device.commands.admit import Stored
from device.commands.ledger import Ledger
from device.commands.tools import Speaker
from device.database import StorageFailed
from device.link import LinkDown
from schemas import topics
from schemas.base import to_wire
from schemas.commands import CommandResult, CommandStatus
from schemas.errors import FleetError

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Words that may wait for the broker's confirmation; refusals above that are dropped and counted."""

REDELIVERY = 60.0
"""Seconds after which an unconfirmed answer is said again on the same connection."""


class Voice:
    """Publishes results in the order they are said, without making anybody wait."""

    def __init__(
        self,
        device: UUID,
        link: Speaker,
        ledger: Ledger,
        group: asyncio.TaskGroup,
        now: Callable[[], datetime],
    ) -> None:
        """Publish in tasks of *group*."""
        self._device = device
        self._link = link
        self._ledger = ledger
        self._group = group
        self._now = now
        self._waiting = 0
        self.dropped = 0

    def say(self, name: str, command_id: UUID, status: CommandStatus) -> None:
        """Tell how far a command is. Nobody repeats this: the answer makes it superfluous."""
        topic = topics.Result(self._device, name, command_id)
        self._group.create_task(self._word(topic, CommandResult(status=status, at=self._now())))

    def refuse(
        self, topic: topics.Command, result: CommandResult, reply_to: str | None, token: bytes | None
    ) -> None:
        """Tell that a command was not taken on, once: whoever sends it again is told again."""
        if self._waiting >= MOST_WAITING:
            self.dropped += 1
            return
        there = topics.Result(self._device, topic.command, topic.id)
        self._group.create_task(self._word(there, result, reply_to, token))

    def answer(self, stored: Stored, result: CommandResult) -> None:
        """Tell the final word on a command; see `redeliver`."""
        self._group.create_task(self._answer(stored, result))

    async def redeliver(self) -> None:
        """Say every unconfirmed answer again, after each connection and every now and then."""
        session = -1
        while True:
            try:
                async with asyncio.timeout(REDELIVERY):
                    session = await self._link.reconnected(session)
            except TimeoutError:
                session = await self._link.connected()
            try:
                for stored in await self._ledger.undelivered():
                    if stored.answer is not None:
                        await self._answer(stored, stored.answer)
            except StorageFailed as error:
                log.error("answers cannot be sent again: %s", error)  # noqa: TRY400 - the text says it all

    async def _answer(self, stored: Stored, result: CommandResult) -> None:
        topic = topics.Result(self._device, stored.command.name.value, stored.id)
        if await self._word(topic, result, stored.response_topic, stored.correlation):
            try:
                await self._ledger.delivered(stored.id)
            except StorageFailed as error:
                log.warning("an answer will be sent twice: %s", error)

    async def _word(
        self,
        topic: topics.Result,
        result: CommandResult,
        reply_to: str | None = None,
        token: bytes | None = None,
    ) -> bool:
        """Publish one word; return whether the broker has it."""
        self._waiting += 1
        payload = to_wire(result)
        try:
            await self._link.publish(topic, payload)
            if reply_to is not None:
                await self._link.reply(reply_to, payload, token)
        except LinkDown:
            return False
        except FleetError as error:
            log.warning("result of %s %s: %s", topic.command, topic.id, error)
            return False
        finally:
            self._waiting -= 1
        return True
