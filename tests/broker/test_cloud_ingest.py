"""Ingest between a real broker and a metrics database that fails as real ones do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from cloud.bus import Broker
from cloud.ingest.consumer import Ingest
from cloud.ingest.series import MAX_SERIES
from cloud.metrics.protocol import (
    Latest,
    Metrics,
    MetricsHealth,
    PartialWrite,
    Point,
    Query,
    RefusedPoint,
    Series,
)
from cloud.metrics.sql import SqlMetrics
from cloud.store import dead_letters
from cloud.store.database import Database, driver_url
from schemas import topics
from schemas.base import to_wire
from schemas.errors import ErrorCode, refuse
from schemas.telemetry import Sample, TelemetryBatch
from schemas.topics import Topics
from tests.broker.cloud import Device, connected, now, until
from tests.servers.mosquitto import HOST, Mosquitto


class Moody:
    """The real metrics database, as long as it is in the mood."""

    def __init__(self, inner: Metrics) -> None:
        self._inner = inner
        self.writes = 0
        self.away = False
        self.stuck = asyncio.Event()
        self.stuck.set()
        self.refuses: float | None = None

    async def prepare(self) -> None:
        await self._inner.prepare()

    async def write(self, points: Sequence[Point]) -> None:
        self.writes += 1
        if self.away:
            refuse(ErrorCode.METRICS_UNREACHABLE, "it is away")
        if any(each.fields.get("load_1m") == -1 for each in points):
            raise ZeroDivisionError
        refused = [each for each in points if each.fields.get("load_1m") == self.refuses]
        await self._inner.write([each for each in points if each not in refused])
        await self.stuck.wait()
        if refused:
            raise PartialWrite([RefusedPoint(each, "not in the mood") for each in refused])

    async def query(self, query: Query) -> list[Series]:
        return await self._inner.query(query)

    async def latest(self, *args: object, **kwargs: object) -> list[Latest]:
        raise NotImplementedError

    async def check(self) -> MetricsHealth:
        return await self._inner.check()

    async def prune(self, now: object) -> int:
        raise NotImplementedError

    async def close(self) -> None:
        await self._inner.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite:///{tmp_path / 'fleet.db'}")
    await opened.upgrade()
    yield opened
    await opened.close()


@pytest.fixture
async def metrics(tmp_path: Path) -> AsyncIterator[Moody]:
    moody = Moody(SqlMetrics.open(driver_url(f"sqlite:///{tmp_path / 'metrics.db'}")))
    await moody.prepare()
    yield moody
    await moody.close()


@asynccontextmanager
async def ingesting(broker: Mosquitto, database: Database, metrics: Moody) -> AsyncIterator[Ingest]:
    """Run a worker for the length of the block, and kill it where it stands."""
    door = Broker(HOST, broker.services_port, "fleet-ingest-0", broker.service("fleet-cloud").tls())
    worker = Ingest(
        door, Topics(broker.topic_root), database=database, metrics=metrics, now=now, random=Random(1)
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(worker.run())

        async def ready() -> bool:
            return worker.connected

        await until(ready)
        yield worker
        task.cancel()


@pytest.fixture
async def device(own_broker: Mosquitto, database: Database) -> AsyncIterator[Device]:
    async with connected(own_broker, database) as device:
        yield device


async def silence(device: Device) -> bool:
    """Whether the device is told nothing for a while."""
    try:
        async with asyncio.timeout(1.0):
            await device.watermark()
    except TimeoutError:
        return True
    return False


async def test_nothing_is_acknowledged_while_the_metrics_database_is_away(
    own_broker: Mosquitto, database: Database, metrics: Moody, device: Device
) -> None:
    async with ingesting(own_broker, database, metrics):
        metrics.away = True
        for seq in range(1, 400):
            await device.send(seq, oldest=1)
        assert await silence(device)

        metrics.away = False
        await device.watermark_of(399)


async def test_a_worker_killed_between_the_write_and_the_acknowledgement_loses_nothing(
    own_broker: Mosquitto, database: Database, metrics: Moody, device: Device
) -> None:
    metrics.stuck.clear()
    async with ingesting(own_broker, database, metrics):
        for seq in range(1, 6):
            await device.send(seq, oldest=1)

        async def written() -> bool:
            return metrics.writes > 0

        await until(written)
    metrics.stuck.set()

    async with ingesting(own_broker, database, metrics):
        await device.watermark_of(5)


async def test_a_refused_point_is_kept_aside_and_the_stream_goes_on(
    own_broker: Mosquitto, database: Database, metrics: Moody, device: Device
) -> None:
    metrics.refuses = 13.0
    async with ingesting(own_broker, database, metrics):
        for seq, value in enumerate((1.0, 13.0, 2.0), start=1):
            await device.send(seq, value, oldest=1)
        await device.watermark_of(3)

    async with database.session() as session:
        (row,) = await dead_letters.listing(session)
    assert (row.code, b"13.0" in row.payload) == ("metrics.refused", True)
    assert "not in the mood" in row.message


async def test_a_device_that_names_a_new_thing_each_time_is_bounded(
    own_broker: Mosquitto, database: Database, metrics: Moody, device: Device
) -> None:
    metrics.refuses = -2.0
    async with ingesting(own_broker, database, metrics):
        for seq in (1, 2):
            samples = [
                Sample(
                    at=now(), measurement="app", tags={"request": f"{seq}-{number}"}, fields={"value": 1.0}
                )
                for number in range(600)
            ]
            batch = TelemetryBatch(boot=device.boot, seq=seq, oldest=1, sent_at=now(), samples=samples)
            await device.say(topics.Telemetry(device.id, "main"), to_wire(batch))
        await device.watermark_of(2)

    async with database.session() as session:
        assert [row.code for row in await dead_letters.listing(session)] == ["telemetry.series_limit"]
    found = await metrics.query(Query("app", now() - timedelta(hours=1), now() + timedelta(hours=1)))
    assert len(found) == MAX_SERIES


async def test_a_batch_that_meets_a_fault_of_ours_costs_only_itself(
    own_broker: Mosquitto, database: Database, metrics: Moody, device: Device
) -> None:
    async with ingesting(own_broker, database, metrics):
        for seq, value in enumerate((1.0, -1.0, 2.0), start=1):
            await device.send(seq, value, oldest=1)
        await device.watermark_of(3)

    async with database.session() as session:
        assert [row.code for row in await dead_letters.listing(session)] == ["metrics.refused"]


async def test_a_broker_that_restarts_costs_no_batch(
    own_broker: Mosquitto, database: Database, metrics: Moody
) -> None:
    async with ingesting(own_broker, database, metrics):
        async with connected(own_broker, database) as before:
            await before.send(1, oldest=1)
            await before.watermark_of(1)
        own_broker.restart()
        async with connected(own_broker, None, before.id) as after:
            after.boot = before.boot
            heard = 0
            while heard < 2:
                await after.send(2, oldest=2)
                try:
                    async with asyncio.timeout(0.5):
                        heard = await after.watermark()
                except TimeoutError:
                    continue
