"""Samples in SQLite when a write is cancelled: the next one does not wait for a lock held in vain."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from cloud.metrics.protocol import Point
from cloud.metrics.sql import SqlMetrics
from cloud.store.database import driver_url

TRIES = 100


@pytest.mark.parametrize("seed", [3, 5])
async def test_a_write_cancelled_at_any_moment_holds_nobody_up(tmp_path: Path, seed: int) -> None:
    random, device = Random(seed), uuid4()
    metrics = SqlMetrics.open(driver_url(f"sqlite:///{tmp_path}/samples.db"))
    await metrics.prepare()

    async def write(number: int) -> None:
        tags = (("number", str(number)),)
        await metrics.write([Point(device, "app", tags, {"value": 1.0}, datetime.now(UTC))])

    began = time.monotonic()
    for number in range(TRIES):
        cut = asyncio.create_task(write(2 * number))
        await asyncio.sleep(random.uniform(0, 0.008))
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        await write(2 * number + 1)
    await metrics.close()

    assert time.monotonic() - began < 0.1 * TRIES, "one lock held in vain costs 10 s"
