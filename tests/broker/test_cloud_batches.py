"""A cloud that dies between its commit and the acknowledgement gets the messages again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from cloud.bus import Broker, Bus, Incoming
from cloud.consumers.dispatch import OCCURRENCES, Dispatcher
from cloud.enrolled import Enrolled
from cloud.feed import Feed
from cloud.store import events
from cloud.store.database import Database
from schemas import topics
from schemas.base import to_wire
from schemas.commands import CommandResult, CommandStatus
from schemas.topics import Topics
from tests.broker.cloud import connected, now, until
from tests.servers.mosquitto import HOST, Mosquitto

COMMANDS = 50


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite:///{tmp_path / 'fleet.db'}")
    await opened.upgrade()
    yield opened
    await opened.close()


class Cloud:
    """A bus and a dispatcher, which may be kept from acknowledging anything."""

    def __init__(self, broker: Mosquitto, database: Database, client: str) -> None:
        known = Topics(broker.topic_root)
        self.heard: list[str] = []
        self._dispatcher = Dispatcher(database, known, Feed(), Enrolled(), now, Random(1))
        door = Broker(HOST, broker.services_port, client, broker.service(broker.settings.cloud).tls())
        filters = [known.every(kind) for kind in OCCURRENCES]
        self.dying = Bus(door, known, filters=filters, handler=self._without_ack, random=Random(1))
        self.living = Bus(door, known, filters=filters, handler=self._with_ack, random=Random(1))

    async def _without_ack(self, arrived: Sequence[Incoming]) -> None:
        await self._dispatcher.handle([replace(each, ack=lambda: None) for each in arrived])
        self.heard += [each.topic for each in arrived]

    async def _with_ack(self, arrived: Sequence[Incoming]) -> None:
        await self._dispatcher.handle(arrived)
        self.heard += [each.topic for each in arrived]


async def test_what_was_committed_and_not_acknowledged_comes_again_in_order_and_counts_once(
    own_broker: Mosquitto, database: Database
) -> None:
    cloud = Cloud(own_broker, database, f"batches-{uuid4().hex[:8]}")
    ids = [uuid4() for _ in range(COMMANDS)]
    async with connected(own_broker, database) as device:
        dying = asyncio.create_task(cloud.dying.run())
        await until(lambda: _true(cloud.dying.connected))
        for command in ids:
            word = to_wire(CommandResult(status=CommandStatus.SUCCEEDED, at=now()))
            await device.say(topics.Result(device.id, "ping", command), word)
        await until(lambda: _true(len(cloud.heard) == COMMANDS))
        dying.cancel()
        await asyncio.wait([dying])
        first, cloud.heard = cloud.heard, []

        living = asyncio.create_task(cloud.living.run())
        await until(lambda: _true(len(cloud.heard) == COMMANDS))
        living.cancel()
        await asyncio.wait([living])

    assert cloud.heard == first
    async with database.session() as session:
        told = [row.data["command"] for row in await events.after(session, 0, limit=1000)]
    assert told == [str(command) for command in ids]


async def _true(found: bool) -> bool:  # noqa: FBT001 - what `until` looks at
    return found
