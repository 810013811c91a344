"""Junk to every consumer, straight at the dispatcher, on a real database."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.bus import Incoming
from cloud.consumers.dispatch import Dispatcher
from cloud.enrolled import Enrolled
from cloud.feed import Feed
from cloud.ingest.decode import decode
from cloud.store import dead_letters, devices
from cloud.store.database import Database
from schemas.base import to_wire
from schemas.commands import CommandResult, CommandStatus
from schemas.presence import Online, Presence
from schemas.reported import Reported
from schemas.telemetry import TelemetryBatch
from schemas.topics import Topics
from tests.store.conftest import NOON

TOPICS = Topics()
DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
fields = st.sampled_from(
    ["status", "session", "boot", "at", "revision", "generation", "services", "facts", "problems", "outcome",
     "config_version", "detail", "data", "error", "lines", "seq", "service", "samples", "sent_at", "oldest"]
)  # fmt: skip
values = json_values | st.sampled_from(
    ["online", "succeeded", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", str(DEVICE), 2**53 - 1, 2**63, -1]
)
payloads = (
    st.binary(max_size=60)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(fields, values, max_size=8).map(lambda value: json.dumps(value).encode())
)
tails = st.sampled_from(
    ["up/presence", "up/reported", f"up/result/ping/{DEVICE}", "up/event/service-died", "up/alert/hot",
     f"up/chunk/{DEVICE}", "up/telemetry/main", "down/desired", "up/result/x/y", ""]
) | st.text(max_size=30)  # fmt: skip
names = st.builds("fleet/v1/{}/{}".format, st.just(DEVICE) | st.text(max_size=10), tails) | st.text(
    max_size=40
)


@dataclass
class Acknowledged:
    """Counts acknowledgements."""

    count: int = 0

    def __call__(self) -> None:
        self.count += 1


@dataclass(frozen=True)
class Ear:
    """A dispatcher and what it acknowledged."""

    dispatcher: Dispatcher
    acknowledged: Acknowledged = field(default_factory=Acknowledged)

    async def hear(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        before = self.acknowledged.count
        await self.dispatcher.handle([Incoming(topic, payload, retained, self.acknowledged)])
        assert self.acknowledged.count == before + 1


@pytest.fixture
async def ear(database: Database) -> Ear:
    from cloud.store import enrolment  # noqa: PLC0415

    async with database.session() as session:
        await enrolment.admit(
            session, DEVICE, key="k", name="", labels={}, certificate_expires_at=NOON, now=NOON
        )
    return Ear(Dispatcher(database, TOPICS, Feed(), Enrolled(), lambda: NOON, Random(1)))


@dataclass(frozen=True)
class Said:
    """A message as it may come from anywhere."""

    topic: str
    payload: bytes
    retained: bool


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.builds(Said, names, payloads, st.booleans()))
async def test_no_message_stops_the_next(ear: Ear, database: Database, said: Said) -> None:
    await ear.hear(said.topic, said.payload, retained=said.retained)

    async with database.session() as opened:
        codes = {row.code for row in await dead_letters.listing(opened)}
        row = await devices.require(opened, DEVICE)
    assert "internal" not in codes
    word = Presence(status=Online.ONLINE, session=row.session + 1, boot=DEVICE, at=NOON)
    await ear.hear(f"fleet/v1/{DEVICE}/up/presence", to_wire(word))
    async with database.session() as opened:
        assert (await devices.require(opened, DEVICE)).session == word.session


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.dictionaries(st.text(max_size=10), json_values, max_size=4))
async def test_whatever_a_result_carries_can_be_stored(
    ear: Ear, database: Database, data: dict[str, Any]
) -> None:
    payload = json.dumps({"status": "succeeded", "at": "2026-01-01T00:00:00Z", "data": data}).encode()

    await ear.hear(f"fleet/v1/{DEVICE}/up/result/inspect/{uuid4()}", payload)

    async with database.session() as session:
        assert "internal" not in {row.code for row in await dead_letters.listing(session)}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["presence", "reported", "result"]), max_size=10))
async def test_messages_may_come_again_and_again_in_any_order(
    ear: Ear, database: Database, kinds: list[str]
) -> None:
    wire = {
        "presence": to_wire(Presence(status=Online.ONLINE, session=1, boot=DEVICE, at=NOON)),
        "reported": to_wire(Reported(revision=1, at=NOON)),
        f"result/ping/{DEVICE}": to_wire(CommandResult(status=CommandStatus.SUCCEEDED, at=NOON)),
    }
    named = {name.partition("/")[0]: name for name in wire}
    for kind in kinds:
        await ear.hear(f"fleet/v1/{DEVICE}/up/{named[kind]}", wire[named[kind]])

    async with database.session() as session:
        assert list(await dead_letters.listing(session)) == []


@given(topic=names, payload=payloads)
def test_telemetry_is_decoded_or_rejected_with_a_reason(topic: str, payload: bytes) -> None:
    batch = decode(topic, payload, known=TOPICS, now=NOON)

    assert batch.points or batch.rejects
    assert batch.stream is None or batch.stream.device == DEVICE


def test_an_impossible_time_costs_only_its_sample() -> None:
    def at(moment: datetime) -> dict[str, Any]:
        return {"at": moment.isoformat(), "measurement": "device", "fields": {"load_1m": 1.0}}

    samples = [at(NOON), at(NOON.replace(year=1970)), at(NOON.replace(year=2200)), at(NOON)]
    body = {"boot": str(DEVICE), "seq": 4, "sent_at": NOON.isoformat(), "samples": samples}
    TelemetryBatch.model_validate_json(json.dumps(body))

    batch = decode(f"fleet/v1/{DEVICE}/up/telemetry/main", json.dumps(body).encode(), known=TOPICS, now=NOON)

    assert len(batch.points) == 2
    (reject,) = batch.rejects
    assert reject.problem.code == "telemetry.bad_time"
    assert len(json.loads(reject.payload)) == 2
