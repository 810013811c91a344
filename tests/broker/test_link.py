"""The agent's link on a real broker: presence, will, subscription, crashes, refusals."""

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Self
from uuid import UUID, uuid4

import aiomqtt
import pytest

from cloud.pki.authority import Authority
from device.inbox import Arrival
from device.link import Endpoint, Link, LinkDown
from schemas import topics
from schemas.errors import FleetError
from schemas.presence import Online, Presence
from schemas.reading import MAX_PAYLOAD, read
from schemas.topics import Topics
from tests.broker.clients import eventually, next_message, on_services_port, publish
from tests.servers.mosquitto import HOST, Mosquitto, Pass, mosquitto

ROOT = Topics()
PATIENCE = 15.0


class Agent:
    """A link with its inbox, as the agent would use it."""

    def __init__(self, broker: Mosquitto, who: Pass, device: UUID, *, port: int | None = None) -> None:
        self.device = device
        self.inbox: asyncio.Queue[Arrival] = asyncio.Queue()
        sessions = itertools.count(1)

        async def next_session() -> int:
            return next(sessions)

        endpoint = Endpoint(
            HOST, port or broker.devices_port, device, ROOT, who.chain, who.key, who.root, keepalive=5
        )
        self.link = Link(
            endpoint,
            boot=uuid4(),
            next_session=next_session,
            now=lambda: datetime.now(UTC),
            rng=Random(7),
        )

    async def session(self, *, after: int = -1) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.link.reconnected(after)

    async def next(self) -> Arrival:
        async with asyncio.timeout(PATIENCE):
            return await self.inbox.get()


class Cable:
    """A way to the broker that can be cut without a word to either side."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._ends: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, HOST, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        self._ends += [writer, far_writer]
        with suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(_carry(reader, far_writer))
                group.create_task(_carry(far_reader, writer))


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
    sink.close()


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[Agent]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(agent.link.run(agent.inbox.put_nowait))
        try:
            yield agent
        finally:
            task.cancel()


def new_agent(broker: Mosquitto) -> Agent:
    device = uuid4()
    return Agent(broker, broker.device(device), device)


async def watch_presence(cloud: aiomqtt.Client, device: UUID) -> None:
    await cloud.subscribe(ROOT.print(topics.Presence(device)), qos=1)


async def next_presence(cloud: aiomqtt.Client) -> Presence:
    message = await next_message(cloud)
    assert isinstance(message.payload, bytes)
    return read(Presence, message.payload)


def down(device: UUID) -> str:
    return ROOT.print(topics.Command(device, "ping", uuid4()))


async def test_presence_says_online_while_the_link_runs_and_offline_after_an_orderly_stop(
    broker: Mosquitto,
) -> None:
    agent = new_agent(broker)
    async with on_services_port(broker, broker.service("fleet-cloud")) as cloud:
        await watch_presence(cloud, agent.device)

        async with running(agent):
            online = await next_presence(cloud)
        offline = await next_presence(cloud)

        assert (online.status, online.session) == (Online.ONLINE, 1)
        assert (offline.status, offline.session) == (Online.OFFLINE, 1)


async def test_presence_is_retained(broker: Mosquitto) -> None:
    agent = new_agent(broker)
    async with running(agent):
        await agent.session()
        async with on_services_port(broker, broker.service("fleet-cloud")) as cloud:
            await watch_presence(cloud, agent.device)
            while (await next_presence(cloud)).status is not Online.ONLINE:
                pass


async def test_the_will_names_the_session_that_died(broker: Mosquitto) -> None:
    device = uuid4()
    async with Cable(broker.devices_port) as cable:
        agent = Agent(broker, broker.device(device), device, port=cable.port)
        async with on_services_port(broker, broker.service("fleet-cloud")) as cloud, running(agent):
            await watch_presence(cloud, device)
            first = await next_presence(cloud)

            cable.cut()
            will, second = await next_presence(cloud), await next_presence(cloud)

    assert (first.status, first.session) == (Online.ONLINE, 1)
    assert (will.status, will.session, will.boot) == (Online.OFFLINE, 1, first.boot)
    assert (second.status, second.session) == (Online.ONLINE, 2)


async def test_a_second_agent_with_the_same_identity_is_named_in_the_log(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    device = uuid4()
    who = broker.device(device)
    first, second = Agent(broker, who, device), Agent(broker, who, device)
    with caplog.at_level(logging.WARNING, "device.link"):
        async with running(first):
            await first.session()
            async with running(second):
                await second.session()
                await eventually(lambda: "another agent uses this device's identity" in caplog.text)


async def test_messages_arrive_as_they_were_sent(broker: Mosquitto) -> None:
    agent = new_agent(broker)
    topic = down(agent.device)
    async with running(agent):
        await agent.session()
        reply = ROOT.print(topics.Result(agent.device, "ping", uuid4()))
        complaint = await publish(
            broker.services_port, broker.service("operator"), topic,
            "-D", "publish", "response-topic", reply, "-D", "publish", "correlation-data", "abc",
        )  # fmt: skip

        arrival = await agent.next()

    assert complaint == ""
    assert arrival == Arrival(topic, b"x", response_topic=reply, correlation=b"abc")


async def test_what_was_sent_while_the_device_was_away_arrives_afterwards(broker: Mosquitto) -> None:
    agent = new_agent(broker)
    async with running(agent):
        await agent.session()
    again = Agent(broker, broker.device(agent.device), agent.device)
    topic = down(agent.device)
    assert await publish(broker.services_port, broker.service("operator"), topic) == ""

    async with running(again):
        assert (await again.next()).topic == topic


async def test_a_replayed_retained_message_is_marked(broker: Mosquitto) -> None:
    agent = new_agent(broker)
    topic = ROOT.print(topics.Desired(agent.device))
    assert await publish(broker.services_port, broker.service("fleet-cloud"), topic, "-r") == ""

    async with running(agent):
        assert (await agent.next()).retained


@pytest.mark.parametrize("memory", ["kept", "wiped"])
async def test_after_a_crash_of_the_broker_the_link_connects_and_subscribes_again(
    own_broker: Mosquitto, memory: str
) -> None:
    agent = new_agent(own_broker)
    async with running(agent):
        first = await agent.session()

        own_broker.kill()
        if memory == "wiped":
            own_broker.wipe()
        own_broker.start()
        second = await agent.session(after=first)
        topic = down(agent.device)
        assert await publish(own_broker.services_port, own_broker.service("operator"), topic) == ""

        assert second > first
        assert (await agent.next()).topic == topic


async def test_publishing_without_a_connection_says_so(own_broker: Mosquitto) -> None:
    agent = new_agent(own_broker)
    own_broker.kill()
    async with running(agent):
        with pytest.raises(LinkDown):
            await agent.link.publish(topics.Reported(agent.device), b"{}")


async def test_a_publish_under_way_is_woken_when_the_connection_breaks(own_broker: Mosquitto) -> None:
    agent = new_agent(own_broker)
    async with running(agent):
        await agent.session()
        loop = asyncio.get_running_loop()
        began = loop.time()
        os.kill(own_broker.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                waiting = group.create_task(_refused(agent))
                await asyncio.sleep(0.2)
                own_broker.kill()
                await waiting
        finally:
            own_broker.stop()
        assert loop.time() - began < 5


async def _refused(agent: Agent) -> None:
    with pytest.raises(LinkDown):
        await agent.link.publish(topics.Reported(agent.device), b"{}")


async def test_a_payload_over_the_limit_is_refused_before_it_is_sent(broker: Mosquitto) -> None:
    agent = new_agent(broker)
    async with running(agent):
        session = await agent.session()
        with pytest.raises(FleetError, match=r"payload\.too_large"):
            await agent.link.publish(topics.Reported(agent.device), b" " * (MAX_PAYLOAD + 1))

        await agent.link.publish(topics.Reported(agent.device), b" " * MAX_PAYLOAD)
        assert await agent.session() == session


async def test_a_result_carries_the_expiry_of_its_kind(broker: Mosquitto) -> None:
    agent = new_agent(broker)
    topic = topics.Result(agent.device, "ping", uuid4())
    async with running(agent), on_services_port(broker, broker.service("fleet-cloud")) as cloud:
        await agent.session()
        await cloud.subscribe(ROOT.every(topics.Result), qos=1)
        await agent.link.publish(topic, b"{}")
        await agent.link.publish(topic, b"{}", expiry=timedelta(seconds=9))

        expiries = [(await next_message(cloud)).properties.MessageExpiryInterval for _ in range(2)]  # type: ignore[union-attr]

    assert expiries[0] in range(86_390, 86_401)
    assert expiries[1] in range(8, 10)


async def test_a_reply_carries_its_correlation_and_stays_in_the_devices_own_tree(broker: Mosquitto) -> None:
    agent = new_agent(broker)
    own = ROOT.print(topics.Result(agent.device, "ping", uuid4()))
    foreign = ROOT.print(topics.Result(uuid4(), "ping", uuid4()))
    async with running(agent), on_services_port(broker, broker.service("fleet-cloud")) as cloud:
        await agent.session()
        await cloud.subscribe(ROOT.every(topics.Result), qos=1)
        await agent.link.reply(foreign, b"no", None)
        await agent.link.reply(own, b"yes", b"42")

        message = await next_message(cloud)

    assert (str(message.topic), message.payload) == (own, b"yes")
    assert message.properties is not None
    assert message.properties.CorrelationData == b"42"  # type: ignore[attr-defined]


async def test_a_foreign_certificate_is_logged_as_what_it_is(
    broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority.create(tmp_path / "pki", now=datetime.now(UTC))
    device = uuid4()
    with mosquitto(tmp_path / "other", stranger) as other:
        theirs = other.device(device)
    mixed = Pass(theirs.name, theirs.chain, theirs.key, broker.authority.root_file)
    agent = Agent(broker, mixed, device)
    with caplog.at_level(logging.WARNING, "device.link"):
        async with running(agent):
            async with asyncio.timeout(30):
                while not agent.link.stats.last_error:  # noqa: ASYNC110 - nothing to await for a failure
                    await asyncio.sleep(0.05)

    assert "this device's certificate" in caplog.text


@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")  # paho lets it go
async def test_a_broker_of_another_fleet_is_logged_as_what_it_is(
    broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority.create(tmp_path / "pki", now=datetime.now(UTC))
    device = uuid4()
    own = broker.device(device)
    with mosquitto(tmp_path / "other", stranger) as other, caplog.at_level(logging.WARNING, "device.link"):
        async with running(Agent(other, own, device)) as agent:
            await eventually(lambda: bool(agent.link.stats.last_error))

    assert "the broker is not this fleet's" in caplog.text
