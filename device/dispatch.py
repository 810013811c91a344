"""Brings each message to the part it is for. Whatever arrives, the agent goes on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from device.commands.serve import Server
from device.database import StorageFailed
from device.events import Events
from device.inbox import Arrival, Inbox
from device.journal import Journal
from device.settings_sync.apply import take_on
from schemas import topics
from schemas.config import Config
from schemas.desired import Desired
from schemas.errors import ErrorCode, Problem, Unreadable, problem, shown
from schemas.reading import read
from schemas.reported import EventKind
from schemas.telemetry import Watermark
from schemas.topics import Topic, Topics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Where messages go. `on_orders` is called when desired state or configuration is news."""

    device: UUID
    topics: Topics
    journal: Journal
    server: Server
    events: Events
    on_orders: Callable[[], None]
    on_watermark: Callable[[str, Watermark], Awaitable[None]]
    now: Callable[[], datetime]

    async def run(self, inbox: Inbox) -> None:
        """Take messages from *inbox* until cancelled. Raises `StorageFailed`; the state waits there then."""
        while True:
            arrival = await inbox.take()
            try:
                await self.handle(arrival)
            except StorageFailed:
                inbox.put_back(arrival)
                raise

    async def handle(self, arrival: Arrival) -> None:
        """Deal with one message. What cannot be read is told as a `refused` event. Raises `StorageFailed`."""
        try:
            topic = self.topics.parse(arrival.topic)
            if topic.device != self.device:
                text = f"topic {shown(arrival.topic)} is another device's"
                raise Unreadable(problem(ErrorCode.DEVICE_MISMATCH, text))  # noqa: TRY301 - one way to refuse
            await self._deliver(topic, arrival)
        except Unreadable as error:
            self._refused(arrival, error.problem)

    async def _deliver(self, topic: Topic, arrival: Arrival) -> None:
        match topic:
            case topics.Desired():
                if arrival.payload and await self.journal.accept_desired(
                    read(Desired, arrival.payload), self.now()
                ):
                    self.on_orders()
            case topics.Config():
                if arrival.payload and await take_on(
                    read(Config, arrival.payload), self.journal, now=self.now(), tell=self.events.tell
                ):
                    self.on_orders()
            case topics.Command():
                await self.server.receive(topic, arrival)
            case topics.Ack(stream=stream):
                await self.on_watermark(stream, read(Watermark, arrival.payload))
            case _:
                text = f"topic {shown(arrival.topic)} is not one a device listens to"
                raise Unreadable(problem(ErrorCode.TOPIC_UNKNOWN, text))

    def _refused(self, arrival: Arrival, why: Problem) -> None:
        log.warning("refused a message on %s: %s", shown(arrival.topic), why)
        data = {"topic": arrival.topic[:300], "problem": why.model_dump(mode="json", exclude_none=True)}
        self.events.tell(EventKind.REFUSED, None, str(why), data)
