"""Several ingest workers over one database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest

from cloud.bus import Broker
from cloud.ingest.consumer import Ingest
from cloud.ingest.decode import Batch
from cloud.metrics.sql import SqlMetrics
from cloud.store import dead_letters, streams
from cloud.store.database import Database, driver_url
from cloud.store.streams import Mark, Stream
from schemas.topics import Topics


@pytest.fixture
async def metrics(tmp_path: Path) -> AsyncIterator[SqlMetrics]:
    opened = SqlMetrics.open(driver_url(f"sqlite:///{tmp_path / 'samples.db'}"))
    yield opened
    await opened.close()


def worker(database: Database, metrics: SqlMetrics) -> Ingest:
    """Return a worker that is given its batches by hand."""
    return Ingest(
        Broker("localhost", 1, "nobody"),
        Topics(),
        database=database,
        metrics=metrics,
        now=lambda: datetime.now(UTC),
        random=Random(1),
    )


async def test_workers_that_take_turns_on_a_stream_count_nothing_as_lost(
    database: Database, device: UUID, metrics: SqlMetrics
) -> None:
    workers = (worker(database, metrics), worker(database, metrics))
    stream = Stream(device, "main", uuid4())
    for seq in range(1, 9):
        await workers[seq % 2]._see_through([Batch("", stream, seq, seq)])

    async with database.session() as session:
        assert await streams.marks(session, {stream}) == {stream: Mark(8)}


async def test_a_device_deleted_by_hand_holds_up_no_other(
    database: Database, device: UUID, metrics: SqlMetrics
) -> None:
    ingest = worker(database, metrics)
    gone, here = Stream(uuid4(), "main", uuid4()), Stream(device, "main", uuid4())

    tracks = await ingest._see_through(
        [Batch("a", here, 1, 1), Batch("b", gone, 1, 1), Batch("c", here, 2, 1)]
    )

    assert {stream: track.seq for stream, track in tracks.items()} == {here: 2}
    async with database.session() as session:
        assert await streams.marks(session, {here, gone}) == {here: Mark(2)}
        assert [(row.topic, row.code) for row in await dead_letters.listing(session)] == [("b", "internal")]
