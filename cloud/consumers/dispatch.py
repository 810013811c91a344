"""From a message on the bus to what becomes of it; nothing a device sends can stop the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import NoReturn

from cloud.backoff import pause
from cloud.bus import Incoming
from cloud.consumers import occurrences, presence, reported, results
from cloud.feed import Feed
from cloud.store import dead_letters, devices
from cloud.store.database import Database, Session
from schemas import topics
from schemas.commands import CommandResult, LogChunk
from schemas.errors import ErrorCode, FleetError, Problem, Unreadable, problem, shown
from schemas.presence import Online, Presence
from schemas.reading import read, read_json
from schemas.reported import DeviceEvent, Reported
from schemas.topics import Topic, Topics

log = logging.getLogger(__name__)

STATES = (topics.Presence, topics.Reported)
"""Topics whose newest message is all that counts."""
OCCURRENCES = (topics.Result, topics.Event, topics.Alert, topics.Chunk)
"""Topics of which every message counts. Telemetry has a consumer of its own."""
_SUSPICIOUS = 5
"""Failures in a row after which a database that works otherwise clears itself of the blame."""
_SAID = 10_000
_OURS = problem(ErrorCode.INTERNAL, "the fault is ours; the log has the details")


class Dispatcher:
    """Handles one message after the other."""

    def __init__(
        self, database: Database, topics: Topics, feed: Feed, now: Callable[[], datetime], random: Random
    ) -> None:
        self._database = database
        self._topics = topics
        self._feed = feed
        self._now = now
        self._random = random
        self._said: set[tuple[str, str]] = set()

    async def handle(self, incoming: Incoming) -> None:
        """Record *incoming*, or keep it as a dead letter; then acknowledge it.

        While the database is away this waits, and with it the broker.
        """
        failures = 0
        while True:
            try:
                if failures >= _SUSPICIOUS and await self._database_works():
                    await self._bury(incoming, _OURS)
                else:
                    await self._carry_out(incoming)
                break
            except FleetError as error:
                failures += 1
                log.warning("%s; trying again", error)
                await asyncio.sleep(pause(failures, random=self._random, longest=10))
        incoming.ack()

    async def _carry_out(self, incoming: Incoming) -> None:
        """Do it once. Raises FleetError `store.unreachable` and nothing else."""
        try:
            async with self._database.session() as session:
                await self._record(session, incoming)
        except FleetError as error:
            if error.code == ErrorCode.STORE_UNREACHABLE:
                raise
            await self._bury(incoming, error.problem)
        except Exception:
            log.exception("a message on %s met a fault of ours", shown(incoming.topic))
            await self._bury(incoming, _OURS)
        else:
            self._feed.notify()

    async def _record(self, session: Session, incoming: Incoming) -> None:
        topic = self._topics.parse(incoming.topic)
        now = self._now()
        match topic:
            case topics.Presence(device=device):
                word = read(Presence, incoming.payload)
                await _known(session, topic)
                if not incoming.retained and word.status is Online.ONLINE:
                    await devices.seen(session, [device], now)
                await presence.record(session, device, word, now)
            case topics.Reported(device=device):
                report = read(Reported, incoming.payload)
                await _known(session, topic)
                if not incoming.retained:
                    await devices.seen(session, [device], now)
                await reported.record(session, device, report, now)
            case topics.Result() | topics.Event() | topics.Alert() | topics.Chunk():
                await _known(session, topic)
                if not incoming.retained:
                    await devices.seen(session, [topic.device], now)
                await _occurred(session, topic, incoming.payload, now)
            case _:
                _nobodys(incoming.topic)

    async def _bury(self, incoming: Incoming, why: Problem) -> None:
        async with self._database.session() as session:
            await dead_letters.add(session, incoming.topic, incoming.payload, why, self._now())
        whose = (why.code, incoming.topic.removeprefix(f"{self._topics.root}/").partition("/")[0])
        if whose not in self._said and len(self._said) < _SAID:
            self._said.add(whose)
            log.warning("dead letter on %s: %s (said once)", shown(incoming.topic), why)

    async def _database_works(self) -> bool:
        try:
            await self._database.check()
        except FleetError:
            return False
        return True


async def _known(session: Session, topic: Topic) -> None:
    await devices.require(session, topic.device)


async def _occurred(
    session: Session,
    topic: topics.Result | topics.Event | topics.Alert | topics.Chunk,
    payload: bytes,
    now: datetime,
) -> None:
    match topic:
        case topics.Result():
            await results.record(session, topic, read(CommandResult, payload), now)
        case topics.Event():
            await occurrences.record(session, topic, read(DeviceEvent, payload), now)
        case topics.Alert():
            alert = read_json(payload) if payload else None
            if alert is not None and not isinstance(alert, dict):
                message = f"an alert is a JSON object, or nothing when it is over; got {shown(alert)}"
                raise Unreadable(problem(ErrorCode.VALUE_WRONG_TYPE, message))
            await occurrences.record_alert(session, topic, alert, now)
        case topics.Chunk():
            await occurrences.record_chunk(session, topic, read(LogChunk, payload), now)


def _nobodys(topic: str) -> NoReturn:
    message = f"topic {shown(topic)} is not one that devices speak to the cloud on"
    raise Unreadable(problem(ErrorCode.TOPIC_UNKNOWN, message))
