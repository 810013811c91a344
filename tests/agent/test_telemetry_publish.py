"""Telemetry on its way, with a cloud that stores, forgets, goes away and comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from uuid import UUID, uuid4

from device.link import LinkDown
from device.telemetry.publish import STREAM, WINDOW, Telemetry
from device.telemetry.spool import Spool
from schemas import topics
from schemas.reading import read
from schemas.telemetry import Sample, TelemetryBatch, Watermark

DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")


def now() -> datetime:
    return datetime.now(UTC)


class Cloud:
    """The link, the broker and the cloud behind it: what is published while it listens is stored."""

    def __init__(self) -> None:
        self.session = 0
        self.up = asyncio.Event()
        self.changed = asyncio.Condition()
        self.listens = True
        self.got: list[TelemetryBatch] = []
        self.telemetry: Telemetry | None = None

    async def connect(self) -> None:
        self.session += 1
        self.up.set()
        async with self.changed:
            self.changed.notify_all()

    def disconnect(self) -> None:
        self.up.clear()

    async def connected(self) -> int:
        await self.up.wait()
        return self.session

    async def reconnected(self, after: int) -> int:
        async with self.changed:
            await self.changed.wait_for(lambda: self.up.is_set() and self.session > after)
        return self.session

    async def publish(self, topic: topics.Topic, payload: bytes, *, expiry: timedelta | None = None) -> None:  # noqa: ARG002
        assert topic == topics.Telemetry(DEVICE, STREAM)
        if not self.up.is_set():
            raise LinkDown
        await asyncio.sleep(0)
        if self.listens:
            self.got.append(read(TelemetryBatch, payload))
        async with self.changed:
            self.changed.notify_all()

    async def confirm(self, seq: int) -> None:
        assert self.telemetry is not None
        await self.telemetry.on_watermark(STREAM, Watermark(boot=self.got[0].boot, seq=seq))

    def seqs(self) -> list[int]:
        return [batch.seq for batch in self.got]

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(fact)

    async def until_got(self, seqs: list[int]) -> None:
        await self.until(lambda: self.seqs()[-len(seqs) :] == seqs)


class Rounds:
    """Takes one sample at each round."""

    def __init__(self) -> None:
        self.prepared = False
        self.taken = 0

    async def prepare(self) -> None:
        self.prepared = True

    async def take(self) -> list[Sample]:
        self.taken += 1
        return [Sample(at=now(), measurement="agent", fields={"rss_bytes": self.taken})]


@asynccontextmanager
async def telemetry_to(
    cloud: Cloud, folder: Path, *, interval: float = 3600, patience: float = 60, backlog: int = 0
) -> AsyncIterator[tuple[Telemetry, Spool, Rounds]]:
    spool = await Spool.open(folder / "spool.db", now=now())
    await spool.append(
        [b'[{"at":"2026-01-31T12:00:00Z","measurement":"agent","fields":{"rss_bytes":1}}]'] * backlog
    )
    rounds = Rounds()

    async def configured() -> float:
        return interval

    telemetry = Telemetry(
        DEVICE,
        spool=spool,
        link=cloud,
        rounds=rounds,
        interval=configured,
        now=now,
        patience=patience,
    )
    cloud.telemetry = telemetry
    running = asyncio.ensure_future(telemetry.run())
    try:
        yield telemetry, spool, rounds
    finally:
        running.cancel()
        await asyncio.wait([running])
        await spool.close()


async def test_rounds_are_taken_at_the_interval_and_sent(tmp_path: Path) -> None:
    cloud = Cloud()
    await cloud.connect()
    async with telemetry_to(cloud, tmp_path, interval=0.05) as (_, _, rounds):
        await cloud.until_got([1, 2, 3])

        assert rounds.prepared
        assert cloud.got[0].oldest == 1


async def test_samples_wait_for_a_connection_and_go_in_order(tmp_path: Path) -> None:
    cloud = Cloud()
    async with telemetry_to(cloud, tmp_path, backlog=30):
        await asyncio.sleep(0.05)
        assert cloud.got == []

        await cloud.connect()

        await cloud.until_got(list(range(1, 31)))


async def test_only_a_watermark_empties_the_spool(tmp_path: Path) -> None:
    cloud = Cloud()
    await cloud.connect()
    async with telemetry_to(cloud, tmp_path, backlog=5) as (telemetry, spool, _):
        await cloud.until_got([1, 2, 3, 4, 5])
        assert (await spool.level()).batches == 5

        await cloud.confirm(3)
        await telemetry.on_watermark(STREAM, Watermark(boot=uuid4(), seq=5))
        await telemetry.on_watermark("other", Watermark(boot=spool.boot, seq=5))

        assert (await spool.level()).oldest == 4


async def test_a_new_connection_gets_again_what_no_watermark_covered(tmp_path: Path) -> None:
    cloud = Cloud()
    await cloud.connect()
    async with telemetry_to(cloud, tmp_path, backlog=3):
        await cloud.until_got([1, 2, 3])
        await cloud.confirm(1)
        cloud.disconnect()

        await cloud.connect()

        await cloud.until_got([2, 3])


async def test_what_a_broker_lost_is_sent_again_though_new_samples_keep_coming(tmp_path: Path) -> None:
    cloud = Cloud()
    cloud.listens = False
    await cloud.connect()
    async with telemetry_to(cloud, tmp_path, interval=0.1, patience=0.5, backlog=2):
        await asyncio.sleep(0.3)
        cloud.listens = True
        since = monotonic()

        await cloud.until(lambda: 1 in cloud.seqs())

    assert monotonic() - since < 2


async def test_only_a_window_is_on_its_way_at_once(tmp_path: Path) -> None:
    cloud = Cloud()
    await cloud.connect()
    async with telemetry_to(cloud, tmp_path, backlog=WINDOW + 50):
        await cloud.until_got([WINDOW])
        await asyncio.sleep(0.1)
        assert cloud.seqs() == list(range(1, WINDOW + 1))

        await cloud.confirm(10)

        await cloud.until_got(list(range(WINDOW + 1, WINDOW + 11)))
        assert cloud.got[-1].oldest == 11


async def test_a_new_interval_counts_at_once(tmp_path: Path) -> None:
    cloud = Cloud()
    await cloud.connect()
    seconds = [3600.0]
    spool = await Spool.open(tmp_path / "spool.db", now=now())
    rounds = Rounds()

    async def configured() -> float:
        return seconds[0]

    telemetry = Telemetry(DEVICE, spool=spool, link=cloud, rounds=rounds, interval=configured, now=now)
    running = asyncio.ensure_future(telemetry.run())
    await cloud.until_got([1])

    seconds[0] = 0.05
    telemetry.config_changed()

    await cloud.until_got([2, 3])
    running.cancel()
    await asyncio.wait([running])
    await spool.close()
