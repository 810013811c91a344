"""From messages on the bus to what becomes of them; nothing a device sends can stop the rest.

Everything that has arrived is recorded in one transaction and acknowledged after
its commit. What cannot be read becomes a dead letter in the same transaction. Where
a transaction fails for another reason than an outage, its messages are recorded one
by one, so that the culprit is found and the others are not held up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random

from cloud.backoff import pause
from cloud.bus import Incoming
from cloud.consumers import stories
from cloud.consumers.reading import Refused, Said, understand
from cloud.consumers.sightings import Sightings
from cloud.enrolled import Enrolled
from cloud.feed import Ended, Feed, News, Told
from cloud.store import dead_letters, devices, events
from cloud.store.database import Database, Session
from schemas import topics
from schemas.errors import ErrorCode, FleetError, Problem, problem, shown
from schemas.presence import Online, Presence
from schemas.topics import Topics

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
    """Handles batches of messages, one batch after the other."""

    def __init__(  # noqa: PLR0917 - each is a part of another kind
        self,
        database: Database,
        topics: Topics,
        feed: Feed,
        enrolled: Enrolled,
        now: Callable[[], datetime],
        random: Random,
    ) -> None:
        self._database = database
        self._topics = topics
        self._feed = feed
        self._enrolled = enrolled
        self._now = now
        self._random = random
        self._sightings = Sightings()
        self._said: set[tuple[str, str]] = set()

    async def handle(self, arrived: Sequence[Incoming]) -> None:
        """Record *arrived*, or keep it as dead letters; then acknowledge it.

        While the database is away this waits, and with it the broker.
        """
        await self._see_through(arrived)
        for incoming in arrived:
            incoming.ack()

    async def _see_through(self, arrived: Sequence[Incoming]) -> None:
        """Return when all of *arrived* is in the database, one way or the other."""
        failures = 0
        while True:
            try:
                if failures >= _SUSPICIOUS and await self._database_works():
                    await self._isolate(arrived, _OURS)
                else:
                    await self._carry_out(arrived)
            except FleetError as error:
                failures += 1
                log.warning("%s; trying again", error)
                await asyncio.sleep(pause(failures, random=self._random, longest=10))
            else:
                return

    async def _carry_out(self, arrived: Sequence[Incoming]) -> None:
        """Do it once. Raises FleetError `store.unreachable` and nothing else."""
        try:
            understood = [understand(each, self._topics) for each in arrived]
            entries = await self._record(understood)
        except FleetError as error:
            if error.code == ErrorCode.STORE_UNREACHABLE:
                raise
            await self._isolate(arrived, error.problem)
        except Exception:
            log.exception("%d messages, the first on %s, met a fault of ours", *_shown(arrived))
            await self._isolate(arrived, _OURS)
        else:
            if entries:
                self._feed.notify(*{news for entry in entries for news in _news_of(entry)})

    async def _isolate(self, arrived: Sequence[Incoming], why: Problem) -> None:
        """Record messages one by one whose common transaction failed; one that fails alone is put aside."""
        if len(arrived) > 1:
            for incoming in arrived:
                await self._see_through([incoming])
            return
        async with self._database.session() as session:
            await self._bury(session, [Refused(incoming, why) for incoming in arrived])

    async def _record(self, understood: Sequence[Said | Refused]) -> Sequence[events.Entry]:
        """Store everything in one transaction; return what it added to the diary."""
        now = self._now()
        readable = [each for each in understood if isinstance(each, Said)]
        async with self._database.session() as session:
            known = await self._enrolled.among(session, {each.topic.device for each in readable})
            said = [each for each in readable if each.topic.device in known]
            entries = await stories.record(session, said, now)
            alive = [each for each in said if _is_sign_of_life(each)]
            heard = self._sightings.due({each.topic.device for each in alive}, now)
            heard |= {each.topic.device for each in alive if isinstance(each.content, Presence)}
            if heard:  # after the stories: it takes rows in any order, but waits for none
                await devices.seen(session, heard, now)
            unreadable = [each for each in understood if isinstance(each, Refused)]
            strangers = [_stranger(each) for each in readable if each.topic.device not in known]
            await self._bury(session, [*unreadable, *strangers])
            await events.append_all(session, entries)
        self._sightings.told(heard, now)
        return entries

    async def _bury(self, session: Session, refused: Sequence[Refused]) -> None:
        letters = [
            dead_letters.Letter(each.incoming.topic, each.incoming.payload, each.why) for each in refused
        ]
        await dead_letters.add_all(session, letters, self._now())
        for each in refused:
            topic = each.incoming.topic
            whose = (each.why.code, topic.removeprefix(f"{self._topics.root}/").partition("/")[0])
            if whose not in self._said and len(self._said) < _SAID:
                self._said.add(whose)
                log.warning("dead letter on %s: %s (said once)", shown(topic), each.why)

    async def _database_works(self) -> bool:
        try:
            await self._database.check()
        except FleetError:
            return False
        return True


def _is_sign_of_life(said: Said) -> bool:
    """Return whether the device itself spoke just now: no retained message, and not its will."""
    will = isinstance(said.content, Presence) and said.content.status is Online.OFFLINE
    return not said.incoming.retained and not will


def _stranger(said: Said) -> Refused:
    message = f"no device with id {said.topic.device} is enrolled; see `fleet devices`"
    return Refused(said.incoming, problem(ErrorCode.DEVICE_UNKNOWN, message))


def _news_of(entry: events.Entry) -> list[News]:
    """Return what those may wait for whom *entry* concerns."""
    told: list[News] = [Told(), Told(entry.device)]
    return told if entry.ends is None else [*told, Ended(entry.ends)]


def _shown(arrived: Sequence[Incoming]) -> tuple[int, str]:
    return len(arrived), shown(arrived[0].topic) if arrived else ""
