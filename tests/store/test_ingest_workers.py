"""Several ingest workers over one database."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

from cloud.bus import Broker
from cloud.ingest.consumer import Ingest
from cloud.ingest.decode import Batch
from cloud.metrics.sql import SqlMetrics
from cloud.store import streams
from cloud.store.database import Database, driver_url
from cloud.store.streams import Mark, Stream
from schemas.topics import Topics


async def test_workers_that_take_turns_on_a_stream_count_nothing_as_lost(
    database: Database, device: UUID, tmp_path: Path
) -> None:
    metrics = SqlMetrics.open(driver_url(f"sqlite:///{tmp_path / 'samples.db'}"))
    door = Broker("localhost", 1, "nobody")

    def worker() -> Ingest:
        return Ingest(
            door,
            Topics(),
            database=database,
            metrics=metrics,
            now=lambda: datetime.now(UTC),
            random=Random(1),
        )

    workers = (worker(), worker())
    stream = Stream(device, "main", uuid4())
    for seq in range(1, 9):
        tracks = await workers[seq % 2]._record([Batch("", stream, seq, seq)])
        workers[seq % 2]._tracks.update(tracks)

    async with database.session() as session:
        assert await streams.marks(session, {stream}) == {stream: Mark(8)}
    await metrics.close()
