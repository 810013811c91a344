"""What a ping and a report cost the cloud's processor, beside what the bare client and database cost.

Reports: a dispatcher on SQLite takes what many devices said at once, in batches as the bus hands them over,
beside one plain `UPDATE` a report in transactions of the same size.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID, uuid4

import httpx
import psutil

from benchmarks.rest_ping import _ping
from cloud.bus import Incoming
from cloud.consumers.dispatch import Dispatcher
from cloud.enrolled import Enrolled
from cloud.feed import Feed
from cloud.store import enrolment
from cloud.store.database import Database
from schemas import topics
from schemas.base import to_wire
from schemas.reported import Health, Reported, ServiceReport, ServiceState
from schemas.topics import Topics
from tests.servers.stack import Stack, stack

_PINGS = 300
_BATCH = 200
_REPORTS = 4000
_ROUNDS = 5
_TOPICS = Topics()


def main() -> None:
    """Print processor time of a ping and the rate of reports."""
    with (
        tempfile.TemporaryDirectory() as folder,
        stack(Path(folder), "--devices", "1", "--engine", "memory") as running,
    ):
        asyncio.run(_pings(running))
    for count in (20, 200):
        asyncio.run(_reports(count))


async def _pings(running: Stack) -> None:
    at = running.endpoints
    headers = {"Authorization": f"Bearer {at['api_key']}"}
    agent = next(name for name in at["pids"] if name.startswith("gateway"))
    async with httpx.AsyncClient(
        base_url=at["api_url"], headers=headers, timeout=30, trust_env=False
    ) as http:
        for _ in range(20):
            await _ping(http, running.devices[0])
        before = {name: _processor(running.pid(name)) for name in ("cloud", agent, "broker")}
        for _ in range(_PINGS):
            await _ping(http, running.devices[0])
        for name, began in before.items():
            spent = (_processor(running.pid(name)) - began) / _PINGS * 1e6
            print(f"{f'processor time of a ping: {name}':<44} {spent:8.0f} us   n {_PINGS}")


def _processor(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


async def _reports(count: int) -> None:
    rates, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.open(f"sqlite:///{Path(folder) / 'fleet.db'}")
        await database.upgrade()
        devices = [uuid4() for _ in range(count)]
        async with database.session() as session:
            for device in devices:
                moment = _now()
                await enrolment.admit(
                    session, device, key="", name="", labels={}, certificate_expires_at=moment, now=moment
                )
        dispatcher = Dispatcher(database, _TOPICS, Feed(), Enrolled(), _now, Random(1))
        for turn in range(_ROUNDS):
            messages = _messages(devices, first=turn * _REPORTS + 1)
            began = time.perf_counter()
            for start in range(0, len(messages), _BATCH):
                await dispatcher.handle(messages[start : start + _BATCH])
            rates.append(_REPORTS / (time.perf_counter() - began))
            plain.append(await asyncio.to_thread(_plain, Path(folder), messages, devices))
        await database.close()
    for name, found in (("dispatcher", rates), ("bare sqlite3 UPDATEs", plain)):
        print(f"{f'reports of {count} devices, {name}':<44} {median(found):8.0f} /s   n {_ROUNDS}")


def _plain(folder: Path, messages: Sequence[Incoming], devices: Sequence[UUID]) -> float:
    door = sqlite3.connect(folder / "plain.db", isolation_level=None)
    door.execute("PRAGMA journal_mode = WAL")
    door.execute("PRAGMA synchronous = FULL")
    door.execute("CREATE TABLE IF NOT EXISTS devices (id TEXT PRIMARY KEY, reported TEXT)")
    door.executemany("INSERT OR IGNORE INTO devices VALUES (?, NULL)", [(each.hex,) for each in devices])
    began = time.perf_counter()
    for start in range(0, len(messages), _BATCH):
        door.execute("BEGIN IMMEDIATE")
        for number, message in enumerate(messages[start : start + _BATCH], start):
            row = (message.payload.decode(), devices[number % len(devices)].hex)
            door.execute("UPDATE devices SET reported = ? WHERE id = ?", row)
        door.execute("COMMIT")
    took = time.perf_counter() - began
    door.close()
    return len(messages) / took


def _messages(devices: Sequence[UUID], *, first: int) -> list[Incoming]:
    services = [
        ServiceReport(name=name, state=ServiceState.RUNNING, health=Health.HEALTHY, image="shop/web:1.4.2")
        for name in ("api", "store")
    ]
    found = []
    for number in range(_REPORTS):
        device = devices[number % len(devices)]
        report = Reported(revision=first + number, generation=1, services=services, at=_now())
        topic = _TOPICS.print(topics.Reported(device))
        found.append(Incoming(topic, to_wire(report), retained=False, ack=_nothing))
    return found


def _nothing() -> None:
    """Acknowledge to nobody."""


def _now() -> datetime:
    return datetime.now(UTC)
