"""The cloud's link to a real broker: what it learns of it, and what it does with too much."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from uuid import uuid4

import pytest

from cloud import bus
from cloud.bus import Broker, Bus, Incoming
from schemas import topics
from schemas.topics import Topics
from tests.broker.clients import on_devices_port
from tests.broker.cloud import until
from tests.servers.mosquitto import HOST, Mosquitto


class Ear:
    """Takes messages, one batch at a time, once it is let."""

    def __init__(self) -> None:
        self.heard: list[Incoming] = []
        self.first = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, arrived: Sequence[Incoming]) -> None:
        self.first.set()
        await self.open.wait()
        for each in arrived:
            self.heard.append(each)
            each.ack()


@asynccontextmanager
async def linked(broker: Mosquitto, ear: Ear) -> AsyncIterator[Bus]:
    """Keep a link for the length of the block."""
    door = Broker(HOST, broker.services_port, "fleet-cloud-0", broker.service("fleet-cloud").tls())
    known = Topics(broker.topic_root)
    link = Bus(door, known, filters=[known.every(topics.Event)], handler=ear, random=Random(1))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.run())
        await until(lambda: _told(link))
        yield link
        task.cancel()


async def _told(link: Bus) -> timedelta | None:
    return link.broker_uptime


async def test_a_link_knows_how_long_its_broker_has_been_running(own_broker: Mosquitto) -> None:
    async with linked(own_broker, Ear()) as link:
        await asyncio.sleep(2)
        before = link.broker_uptime
        assert before is not None
        assert before >= timedelta(seconds=2)

        own_broker.kill()
        own_broker.start()

        async def told_anew() -> bool:
            uptime = link.broker_uptime
            return uptime is not None and uptime < before

        await until(told_anew)


async def test_a_flood_without_promises_is_cut_and_costs_no_promised_message(
    own_broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "UNPROMISED", 50)
    ear, device = Ear(), uuid4()
    known = Topics(own_broker.topic_root)
    topic = known.print(topics.Event(device, "noise"))
    async with linked(own_broker, ear), on_devices_port(own_broker, own_broker.device(device)) as client:
        await client.publish(topic, b"first", qos=1)
        await ear.first.wait()
        for _ in range(500):
            await client.publish(topic, b"noise", qos=0)
        await client.publish(topic, b"last", qos=1)
        await asyncio.sleep(0.5)
        ear.open.set()

        async def all_promised() -> bool:
            return {b"first", b"last"} <= {each.payload for each in ear.heard}

        await until(all_promised)
    assert len([each for each in ear.heard if each.payload == b"noise"]) <= 51
