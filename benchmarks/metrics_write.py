"""Storing points of nine fields: encoding beside influxdb-client's, then whole writes to each database."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID, uuid4

from influxdb_client.client.write.point import Point as ClientPoint

from benchmarks._report import ratio
from cloud.ingest.encode import line
from cloud.metrics.influx import InfluxMetrics, InfluxSettings
from cloud.metrics.protocol import Metrics, Point
from cloud.metrics.sql import SqlMetrics
from tests.servers.influx import influx

ROUNDS = 5
POINTS = 10_000
DEVICES = tuple(uuid4() for _ in range(50))
START = datetime.now(UTC) - timedelta(hours=1)


def main() -> None:
    """Print processor time a point for encoding, and points a second for whole writes."""
    points = _points(0)
    ours = [_seconds(lambda: _encode(points)) for _ in range(ROUNDS)]
    theirs = [_seconds(lambda: _encode_with_client(points)) for _ in range(ROUNDS)]
    _per_point("encode: line protocol", ours)
    _per_point("encode: influxdb_client.Point (baseline)", theirs)
    ratio("encode: ours over influxdb_client", ours, theirs, aim="under 0.33")
    asyncio.run(_writes())


async def _writes() -> None:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        await _measure("write: sqlite", SqlMetrics.open(f"sqlite+aiosqlite:///{folder}/samples.db"))
        with influx(folder / "influx") as server:
            await _measure("write: influxdb 1.x", InfluxMetrics(InfluxSettings(server.url)))


async def _measure(name: str, metrics: Metrics) -> None:
    await metrics.prepare()
    took, used = [], []
    for round_ in range(ROUNDS):
        points = _points(round_)
        began, processor = time.perf_counter(), time.process_time()
        for start in range(0, POINTS, 1000):
            await metrics.write(points[start : start + 1000])
        took.append(time.perf_counter() - began)
        used.append(time.process_time() - processor)
    await metrics.close()
    print(
        f"{name:<44} {POINTS / median(took):10,.0f} points/s   own processor time "
        f"{median(used) / POINTS * 1e6:6.2f} us/point   n {ROUNDS}"
    )


def _points(round_: int) -> list[Point]:
    each = range(POINTS // len(DEVICES))
    return [_point(device, round_ * len(each) + number) for number in each for device in DEVICES]


def _point(device: UUID, number: int) -> Point:
    fields: dict[str, bool | int | float | str] = {
        "cpu_percent": 12.5 + number % 50,
        "load_1m": 0.25,
        "memory_used_bytes": 512_000_000 + number,
        "memory_total_bytes": 4_000_000_000,
        "memory_percent": 12.8,
        "disk_percent": 41.7,
        "net_received_bytes": 10_000 * number,
        "net_sent_bytes": 1_000 * number,
        "uptime_seconds": 100.5 + number,
    }
    return Point(device, "device", (), fields, START + timedelta(seconds=number))


def _encode(points: Sequence[Point]) -> None:
    for point in points:
        line(point)


def _encode_with_client(points: Sequence[Point]) -> None:
    for point in points:
        theirs: Any = ClientPoint(point.measurement)  # type: ignore[no-untyped-call]
        theirs.tag("device", str(point.device)).time(point.at)
        for name, value in point.fields.items():
            theirs.field(name, value)
        theirs.to_line_protocol()


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _per_point(name: str, seconds: Sequence[float]) -> None:
    print(f"{name:<44} {median(seconds) / POINTS * 1e6:10.2f} us/point   n {len(seconds)}")
