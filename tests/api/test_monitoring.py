from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.metrics.protocol import Point
from cloud.store import dead_letters
from schemas.catalogue import CATALOGUE
from schemas.errors import ErrorCode, problem
from tests.api.answers import data_of, refusal_of
from tests.servers.api import RunningApi

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def measures(running: RunningApi, device: UUID, at: datetime, **fields: float) -> None:
    point = Point(device=device, measurement="device", tags=(), fields=fields, at=at)
    running.portal.call(running.services.metrics.write, [point])


def test_samples_are_answered_as_they_were_written(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()
    measures(running, device, NOON, cpu_percent=10.0, load_1m=1.0)
    measures(running, device, NOON + timedelta(seconds=10), cpu_percent=30.0)
    asked = {
        "measurement": "device",
        "device": str(device),
        "field": "cpu_percent",
        "start": "2026-01-31T12:00:00Z",
        "end": "2026-01-31T13:00:00+00:00",
    }

    data = data_of(client.get("/edge/monitoring/metrics", params=asked))

    (series,) = data["series"]
    assert series["unit"] == "percent"
    assert series["points"] == [["2026-01-31T12:00:00Z", 10.0], ["2026-01-31T12:00:10Z", 30.0]]
    assert data["aggregate"] == "none"


def test_samples_are_summed_up_by_stretches_of_time(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()
    for seconds, value in ((0, 10.0), (10, 30.0), (60, 50.0)):
        measures(running, device, NOON + timedelta(seconds=seconds), cpu_percent=value)
    asked = f"measurement=device&device={device}&start=2026-01-31T12:00:00Z&end=2026-01-31T12:05:00Z&every=1m"

    mean = data_of(client.get(f"/edge/monitoring/metrics?{asked}"))
    most = data_of(client.get(f"/edge/monitoring/metrics?{asked}&aggregate=max&field=cpu_percent,load_1m"))

    assert mean["aggregate"] == "mean"
    assert mean["every"] == 60
    assert [value for _, value in mean["series"][0]["points"]] == [20.0, 50.0]
    assert [value for _, value in most["series"][0]["points"]] == [30.0, 50.0]


def test_times_may_be_relative_to_now(running: RunningApi, client: httpx.Client) -> None:
    one, two = running.device(), running.device()
    for device in (one, two):
        measures(running, device, running.clock() - timedelta(minutes=5), cpu_percent=1.0)
        measures(running, device, running.clock() - timedelta(minutes=20), cpu_percent=2.0)
    asked = {"measurement": "device", "device": [str(one), str(two)], "start": "-15m"}

    series = data_of(client.get("/edge/monitoring/metrics", params=asked))["series"]

    assert {each["device"] for each in series} == {str(one), str(two)}
    assert all([value for _, value in each["points"]] == [1.0] for each in series)


def test_samples_are_chosen_by_tag(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()
    points = [
        Point(device=device, measurement="service", tags=(("service", name),), fields={"pids": 3}, at=NOON)
        for name in ("web", "db")
    ]
    running.portal.call(running.services.metrics.write, points)
    asked = f"measurement=service&device={device}&start=2026-01-31T00:00:00Z&tag.service=web"

    (series,) = data_of(client.get(f"/edge/monitoring/metrics?{asked}"))["series"]

    assert series["tags"] == {"service": "web"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", ErrorCode.FIELD_MISSING),
        ("measurement=a b", ErrorCode.VALUE_BAD_CHARACTER),
        ("measurement=device&start=yesterday", ErrorCode.VALUE_BAD_CHARACTER),
        ("measurement=device&start=2026-13-31T12:00:00Z", ErrorCode.VALUE_WRONG_TYPE),
        ("measurement=device&start=0000-01-01T00:00:00Z", ErrorCode.VALUE_WRONG_TYPE),
        ("measurement=device&start=-9999999w", ErrorCode.VALUE_OUT_OF_RANGE),
        ("measurement=device&start=now&end=-1h", ErrorCode.VALUE_OUT_OF_RANGE),
        ("measurement=device&every=0s", ErrorCode.VALUE_BAD_CHARACTER),
        ("measurement=device&every=1ms&start=-30d", ErrorCode.QUERY_TOO_WIDE),
        ("measurement=device&aggregate=median", ErrorCode.VALUE_WRONG_TYPE),
        ("measurement=device&device=x", ErrorCode.DEVICE_BAD_ID),
        ("measurement=device&device=", ErrorCode.DEVICE_BAD_ID),
        ("measurement=device&tag.=x", ErrorCode.VALUE_BAD_CHARACTER),
        ("measurement=device&tag.a'b=x", ErrorCode.VALUE_BAD_CHARACTER),
        ("measurement=device&measurment=x", ErrorCode.FIELD_UNKNOWN),
        ("measurement=device&end=now&end=now", ErrorCode.VALUE_WRONG_TYPE),
    ],
)
def test_a_question_that_does_not_fit_is_refused(client: httpx.Client, query: str, code: ErrorCode) -> None:
    refusal_of(client.get(f"/edge/monitoring/metrics?{query}"), code)


def test_the_catalogue_names_every_measurement(client: httpx.Client) -> None:
    found: Any = data_of(client.get("/edge/monitoring/catalogue"))["measurements"]

    assert [each["name"] for each in found] == list(CATALOGUE)


def test_dead_letters_are_listed_the_newest_first_in_pages(running: RunningApi, client: httpx.Client) -> None:
    told = problem(ErrorCode.PAYLOAD_JSON_SYNTAX, "line 1, column 1: no")
    now = running.clock()

    async def fail(session: AsyncSession) -> None:
        for payload in (b"one", b"two", b"\xff\x00three"):
            await dead_letters.add(session, "a/b", payload, told, now)

    running.store(fail)

    first = data_of(client.get("/edge/dead-letters", params={"limit": 2}))
    second = data_of(client.get("/edge/dead-letters", params={"limit": 2, "after": first["next"]}))

    assert [each["payload"] for each in first["dead_letters"]] == ["\\xff\x00three", "two"]
    assert [each["payload"] for each in second["dead_letters"]] == ["one"]
    assert first["dead_letters"][0]["code"] == "payload.json_syntax"


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("start=yesterday", "write 2026-01-31T12:00:00Z, -15m or now"),
        ("end=2026-01-31", "write 2026-01-31T12:00:00Z, -15m or now"),
        ("every=0s", "write 30s, 5m, 2h or 7d"),
        ("every=", "write 30s, 5m, 2h or 7d"),
    ],
)
def test_a_time_nobody_can_read_is_answered_with_how_to_write_it(
    client: httpx.Client, asked: str, hint: str
) -> None:
    refusal = client.get(f"/edge/monitoring/metrics?measurement=device&{asked}").json()

    assert refusal["code"] == ErrorCode.VALUE_BAD_CHARACTER
    assert hint in refusal["message"]
