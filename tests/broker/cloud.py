"""A whole cloud for tests, in this process, and a device that is nothing but an MQTT client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import aiomqtt

from cloud.app import serve
from cloud.settings import Settings
from cloud.store import devices, enrolment
from cloud.store.database import Database
from schemas import topics
from schemas.base import to_wire
from schemas.delivery import DELIVERY
from schemas.presence import Online, Presence
from schemas.reported import Reported
from schemas.telemetry import Sample, TelemetryBatch, Watermark
from schemas.topics import Topics, UpTopic
from tests.broker.clients import on_devices_port
from tests.servers.mosquitto import HOST, Mosquitto

T = TypeVar("T")
PATIENCE = 20.0


def now() -> datetime:
    return datetime.now(UTC)


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Return the first thing *look* finds, or fail within seconds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if (found := await look()) is not None and found is not False:
                return found
            await asyncio.sleep(0.05)


def settings_for(directory: Path, broker: Mosquitto, database_url: str = "") -> Settings:
    """Return what a cloud beside *broker* is told."""
    own = broker.service("fleet-cloud")
    return Settings(
        data_dir=directory,
        pki_dir=broker.authority.directory,
        database_url=database_url,
        mqtt_host=HOST,
        mqtt_port=broker.services_port,
        mqtt_ca=own.root,
        mqtt_cert=own.chain,
        mqtt_key=own.key,
        topic_root=broker.topic_root,
        http_port=0,
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Database]:
    """Run a cloud for the length of the block; give the database it works on."""
    settings.data_dir.mkdir(exist_ok=True)
    database = await Database.open(settings.database)
    await database.upgrade()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(settings, stop))
        try:
            yield database
        finally:
            await database.close()
            stop.set()


class Device:
    """One enrolled device that says and hears what the test wants."""

    def __init__(self, device: UUID, client: aiomqtt.Client, known: Topics) -> None:
        self.id = device
        self.boot = uuid4()
        self.client = client
        self._topics = known

    async def say(self, topic: UpTopic, payload: bytes) -> None:
        delivery = DELIVERY[type(topic)]
        await self.client.publish(
            self._topics.print(topic), payload, qos=delivery.qos, retain=delivery.retained
        )

    async def present(self, status: Online = Online.ONLINE, session: int = 1) -> None:
        word = Presence(status=status, session=session, boot=self.boot, at=now())
        await self.say(topics.Presence(self.id), to_wire(word))

    async def report(self, revision: int, **fields: Any) -> None:
        await self.say(topics.Reported(self.id), to_wire(Reported(revision=revision, at=now(), **fields)))

    async def greet(self, database: Database) -> None:
        """Return when both doors of the cloud, bus and ingest, are known to be open."""
        await self.present(session=0)
        await until(lambda: _known(database, self.id))
        heard = False
        while not heard:
            await self.send(1, stream="greeting")
            try:
                async with asyncio.timeout(0.5):
                    await self.heard(topics.Ack)
                heard = True
            except TimeoutError:
                continue

    async def send(
        self, seq: int, value: float = 1.0, *, oldest: int | None = None, stream: str = "main"
    ) -> None:
        sample = Sample(at=now(), measurement="device", fields={"load_1m": value})
        batch = TelemetryBatch(boot=self.boot, seq=seq, oldest=oldest, sent_at=now(), samples=[sample])
        await self.say(topics.Telemetry(self.id, stream), to_wire(batch))

    async def heard(self, kind: type[topics.DownTopic]) -> tuple[Any, bytes]:
        """Return the next message of *kind*; others are passed over."""
        async with asyncio.timeout(PATIENCE):
            async for message in self.client.messages:
                topic = self._topics.parse(message.topic.value)
                if isinstance(topic, kind):
                    assert isinstance(message.payload, bytes)
                    return topic, message.payload
        raise AssertionError("the connection ended")

    async def watermark(self) -> int:
        topic, payload = await self.heard(topics.Ack)
        if topic.stream != "main":
            return await self.watermark()
        mark = Watermark.model_validate_json(payload)
        assert mark.boot == self.boot
        return mark.seq

    async def watermark_of(self, seq: int) -> None:
        """Wait until the cloud says that it has everything up to *seq*."""
        while await self.watermark() < seq:
            pass


async def _known(database: Database, device: UUID) -> bool:
    async with database.session() as session:
        return (await devices.require(session, device)).presence is not None


async def enrol(database: Database, device: UUID) -> None:
    async with database.session() as session:
        await enrolment.admit(
            session,
            device,
            key=device.hex,
            name="raw",
            labels={},
            certificate_expires_at=now(),
            now=now(),
        )


@asynccontextmanager
async def connected(
    broker: Mosquitto, database: Database | None, device: UUID | None = None
) -> AsyncIterator[Device]:
    """Give a connected device, enrolled first if there is a database to enrol it in."""
    device = device or uuid4()
    if database is not None:
        await enrol(database, device)
    known = Topics(broker.topic_root)
    async with on_devices_port(broker, broker.device(device)) as client:
        await client.subscribe(known.down(device), qos=1)
        yield Device(device, client, known)
