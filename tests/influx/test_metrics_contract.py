"""One set of promises, held by SQLite, PostgreSQL and InfluxDB alike."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from cloud.metrics.influx import InfluxMetrics, InfluxSettings
from cloud.metrics.protocol import (
    END_OF_TIME,
    EPOCH,
    Aggregate,
    Kind,
    Metrics,
    PartialWrite,
    Point,
    Query,
    Value,
    kind_of,
)
from cloud.metrics.sql import SqlMetrics
from schemas.errors import ErrorCode, FleetError
from tests.servers.influx import Influx
from tests.servers.postgres import Postgres

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NASTY = [
    "a,b",
    "a=b",
    "a b",
    'a"b',
    "a'b",
    "a\\b",
    "\\,",
    "\\ x",
    "\\\\=",
    " lead",
    "trail ",
    "#",
    "$start",
    "'; DROP DATABASE fleet; --",
    '" OR 1=1',
    "Ünïcödé ☃ 𝄞",
    "{}",
    "%s%d",
    "a\\nb",
]


@pytest.fixture(params=["sqlite", "postgresql", "influxdb"])
async def metrics(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Metrics]:
    opened = open_metrics(request, tmp_path)
    await opened.prepare()
    yield opened
    await opened.close()


def open_metrics(request: pytest.FixtureRequest, tmp_path: Path) -> Metrics:
    match request.param:
        case "sqlite":
            return SqlMetrics.open(f"sqlite+aiosqlite:///{tmp_path}/samples.db")
        case "postgresql":
            server: Postgres = request.getfixturevalue("postgres")
            return SqlMetrics.open(server.create_database())
        case _:
            influx: Influx = request.getfixturevalue("influx")
            return InfluxMetrics(InfluxSettings(influx.url, database=f"test_{uuid4().hex}"))


def a_point(
    fields: Mapping[str, Value],
    *,
    at: datetime = NOON,
    device: UUID | None = None,
    measurement: str = "device",
    **tags: str,
) -> Point:
    return Point(device or DEVICE, measurement, tuple(sorted(tags.items())), fields, at)


DEVICE = uuid4()
EVERYTHING = Query("device", start=EPOCH, end=END_OF_TIME)


async def asked(metrics: Metrics, query: Query) -> dict[str, list[tuple[datetime, Value]]]:
    return {series.field: series.points for series in await metrics.query(query)}


async def refusal(code: ErrorCode, call: Callable[[], object]) -> str:
    with pytest.raises(FleetError) as caught:
        await call()  # type: ignore[misc]
    assert caught.value.code == code, caught.value
    return str(caught.value)


async def test_what_is_written_is_read_back_as_it_was(metrics: Metrics) -> None:
    fields: dict[str, Value] = {
        "whole": 1.0,
        "fraction": 0.1,
        "huge": 1.7976931348623157e308,
        "tiny": 5e-324,
        "negative": -2.5e-10,
        "large": 1e22,
        "integer": 42,
        "highest": 2**63 - 1,
        "lowest": -(2**63),
        "exact": 2**53 + 1,
        "text": "hello",
        "digits": "12",
        "empty": "",
        "yes": True,
        "no": False,
        "dotted.name-x": 1,
    }

    await metrics.write([a_point(fields)])

    found = await asked(metrics, EVERYTHING)
    assert dict(found.items()) == {n: [(NOON, v)] for n, v in fields.items()}
    assert {name: kind_of(points[0][1]) for name, points in found.items()} == {
        name: kind_of(value) for name, value in fields.items()
    }


@pytest.mark.parametrize("text", [*NASTY, "line\nbreak", "tab\t", "ends with \\", '\\"', "\r\n"])
async def test_any_text_survives(metrics: Metrics, text: str) -> None:
    await metrics.write([a_point({"text": text})])

    assert await asked(metrics, EVERYTHING) == {"text": [(NOON, text)]}


async def test_any_tag_survives_and_can_be_asked_for(metrics: Metrics) -> None:
    points = [a_point({"value": float(index)}, tag=tag) for index, tag in enumerate(NASTY)]

    await metrics.write(points)

    found = await metrics.query(EVERYTHING)
    assert {series.tags[0][1]: series.points[0][1] for series in found} == {
        tag: float(index) for index, tag in enumerate(NASTY)
    }
    for index, tag in enumerate(NASTY):
        one = await metrics.query(replace(EVERYTHING, tags={"tag": tag}))
        assert [series.points for series in one] == [[(NOON, float(index))]]


async def test_the_same_point_twice_is_one_point(metrics: Metrics) -> None:
    point = a_point({"load": 1.0}, tag="x")

    await metrics.write([point, point])
    await metrics.write([point])

    assert await asked(metrics, EVERYTHING) == {"load": [(NOON, 1.0)]}


async def test_a_point_written_again_merges_its_fields_and_the_later_value_wins(metrics: Metrics) -> None:
    await metrics.write([a_point({"a": 1.0, "b": 1.0})])
    await metrics.write([a_point({"b": 2.0, "c": 2.0}), a_point({"c": 3.0})])

    assert await asked(metrics, EVERYTHING) == {"a": [(NOON, 1.0)], "b": [(NOON, 2.0)], "c": [(NOON, 3.0)]}


async def test_times_are_kept_to_the_microsecond(metrics: Metrics) -> None:
    times = [EPOCH, NOON, NOON + timedelta(microseconds=1), END_OF_TIME - timedelta(microseconds=1)]

    await metrics.write([a_point({"n": float(index)}, at=at) for index, at in enumerate(times)])

    assert await asked(metrics, EVERYTHING) == {"n": [(at, float(i)) for i, at in enumerate(times)]}


async def test_the_range_has_its_start_and_not_its_end(metrics: Metrics) -> None:
    await metrics.write([a_point({"n": float(index)}, at=NOON + index * SECOND) for index in range(4)])

    found = await asked(metrics, replace(EVERYTHING, start=NOON + SECOND, end=NOON + 3 * SECOND))

    assert found == {"n": [(NOON + SECOND, 1.0), (NOON + 2 * SECOND, 2.0)]}


async def test_devices_measurements_fields_and_tags_narrow_the_answer(metrics: Metrics) -> None:
    other = uuid4()
    await metrics.write(
        [
            a_point({"x": 1.0, "y": 2.0}, site="a"),
            a_point({"x": 3.0}, site="b"),
            a_point({"x": 4.0}, device=other, site="a"),
            a_point({"x": 5.0}, measurement="service"),
        ]
    )

    everything = await metrics.query(EVERYTHING)
    assert [(each.device, each.tags, each.field) for each in everything] == sorted(
        [
            (DEVICE, (("site", "a"),), "x"),
            (DEVICE, (("site", "a"),), "y"),
            (DEVICE, (("site", "b"),), "x"),
            (other, (("site", "a"),), "x"),
        ],
        key=str,
    )
    narrowed = replace(EVERYTHING, devices=(DEVICE,), fields=("x", "none"), tags={"site": "a"})
    assert await asked(metrics, narrowed) == {"x": [(NOON, 1.0)]}
    assert await metrics.query(replace(EVERYTHING, devices=())) == []
    assert await metrics.query(replace(EVERYTHING, devices=(uuid4(),))) == []
    assert await metrics.query(replace(EVERYTHING, measurement="nothing")) == []
    assert await metrics.query(replace(EVERYTHING, fields=("nothing",))) == []
    assert await metrics.query(replace(EVERYTHING, tags={"nothing": "x"})) == []
    assert await metrics.query(replace(EVERYTHING, tags={"x": "1"})) == []


async def test_hundreds_of_devices_are_asked_at_once(metrics: Metrics) -> None:
    devices = tuple(uuid4() for _ in range(450))
    await metrics.write([a_point({"x": 1}, device=device) for device in devices])

    found = await metrics.query(replace(EVERYTHING, devices=(*devices, uuid4())))

    assert [series.device for series in found] == sorted(devices, key=str)


@pytest.mark.parametrize(
    ("aggregate", "first", "second"),
    [
        (Aggregate.MEAN, 3.0, 8.0),
        (Aggregate.MIN, 1, 8),
        (Aggregate.MAX, 5, 8),
        (Aggregate.SUM, 6.0, 8.0),
        (Aggregate.COUNT, 2, 1),
        (Aggregate.FIRST, 5, 8),
        (Aggregate.LAST, 1, 8),
    ],
)
async def test_buckets_are_aligned_to_the_hour_and_hold_their_aggregate(
    metrics: Metrics, aggregate: Aggregate, first: Value, second: Value
) -> None:
    times = [NOON + 10 * SECOND, NOON + 50 * SECOND, NOON + 3 * MINUTE + 59 * SECOND]
    await metrics.write([a_point({"n": n}, at=at) for at, n in zip(times, (5, 1, 8), strict=True)])
    query = replace(EVERYTHING, start=NOON + 5 * SECOND, end=NOON + HOUR, every=MINUTE, aggregate=aggregate)

    bucketed = await asked(metrics, query)
    whole = await asked(metrics, replace(query, every=None, end=NOON + MINUTE))

    assert bucketed == {"n": [(NOON, first), (NOON + 3 * MINUTE, second)]}
    assert whole == {"n": [(query.start, first)]}
    assert {type(value) for _, value in bucketed["n"]} == {type(first)}


async def test_long_buckets_are_aligned_to_1970(metrics: Metrics) -> None:
    await metrics.write([a_point({"n": 1.0}, at=NOON)])
    week = timedelta(days=7)
    query = replace(EVERYTHING, start=NOON - week, end=NOON + week, every=week, aggregate=Aggregate.MAX)

    assert await asked(metrics, query) == {"n": [(EPOCH + (NOON - EPOCH) // week * week, 1.0)]}


@pytest.mark.parametrize("value", [True, "text"])
@pytest.mark.parametrize("aggregate", [each for each in Aggregate if each is not Aggregate.NONE])
async def test_texts_and_flags_can_be_counted_but_not_averaged(
    metrics: Metrics, aggregate: Aggregate, value: Value
) -> None:
    await metrics.write([a_point({"x": value, "n": 1.0})])
    query = replace(EVERYTHING, fields=("x",), aggregate=aggregate)

    if aggregate.needs_numbers:
        said = await refusal(ErrorCode.VALUE_WRONG_TYPE, lambda: metrics.query(query))
        assert "count, first or last" in said
        assert set(await asked(metrics, replace(query, fields=()))) == {"n"}
    else:
        expected = 1 if aggregate is Aggregate.COUNT else value
        assert await asked(metrics, query) == {"x": [(EPOCH, expected)]}


async def test_first_and_last_skip_points_without_the_field(metrics: Metrics) -> None:
    await metrics.write(
        [
            a_point({"a": 1.0}, at=NOON),
            a_point({"b": 1.0}, at=NOON + SECOND),
            a_point({"a": 2.0}, at=NOON + 2 * SECOND),
            a_point({"b": 2.0}, at=NOON + 3 * SECOND),
        ]
    )
    query = replace(EVERYTHING, start=NOON, end=NOON + MINUTE)

    first = await asked(metrics, replace(query, aggregate=Aggregate.FIRST))
    last = await asked(metrics, replace(query, aggregate=Aggregate.LAST))

    assert first == {"a": [(NOON, 1.0)], "b": [(NOON, 1.0)]}
    assert last == {"a": [(NOON, 2.0)], "b": [(NOON, 2.0)]}


async def test_too_many_points_are_refused_with_a_way_out(metrics: Metrics) -> None:
    await metrics.write([a_point({"a": 1.0, "b": 1.0}, at=NOON + index * SECOND) for index in range(10)])

    exact = await metrics.query(replace(EVERYTHING, limit=20))
    assert sum(len(series.points) for series in exact) == 20
    said = await refusal(ErrorCode.QUERY_TOO_WIDE, lambda: metrics.query(replace(EVERYTHING, limit=19)))
    assert "shorter time" in said
    wide = replace(EVERYTHING, start=NOON, end=NOON + HOUR, every=SECOND, aggregate=Aggregate.MEAN, limit=100)
    said = await refusal(ErrorCode.QUERY_TOO_WIDE, lambda: metrics.query(wide))
    assert "every=36s" in said


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"end": EPOCH}, ErrorCode.VALUE_OUT_OF_RANGE),
        ({"limit": 0}, ErrorCode.VALUE_OUT_OF_RANGE),
        ({"every": timedelta(0), "aggregate": Aggregate.MEAN}, ErrorCode.VALUE_OUT_OF_RANGE),
        ({"every": -HOUR, "aggregate": Aggregate.MEAN}, ErrorCode.VALUE_OUT_OF_RANGE),
        ({"every": HOUR}, ErrorCode.FIELD_MISSING),
        ({"measurement": 'x" WHERE 1=1; DROP'}, ErrorCode.VALUE_BAD_CHARACTER),
        ({"fields": ("a\x00",)}, ErrorCode.VALUE_BAD_CHARACTER),
        ({"tags": {"a b": "c"}}, ErrorCode.VALUE_BAD_CHARACTER),
        ({"tags": {"a": "\udfff"}}, ErrorCode.VALUE_BAD_CHARACTER),
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused(
    metrics: Metrics, change: dict[str, object], code: ErrorCode
) -> None:
    await refusal(code, lambda: metrics.query(replace(EVERYTHING, **change)))  # type: ignore[arg-type]


async def test_times_before_and_after_what_can_be_stored_are_cut_off(metrics: Metrics) -> None:
    await metrics.write([a_point({"n": 1.0})])
    lowest, highest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

    assert await asked(metrics, replace(EVERYTHING, start=lowest, end=highest)) == {"n": [(NOON, 1.0)]}
    assert await metrics.query(replace(EVERYTHING, start=lowest, end=EPOCH - SECOND)) == []
    assert await metrics.query(replace(EVERYTHING, start=END_OF_TIME + SECOND, end=highest)) == []


@pytest.mark.parametrize(
    "flawed",
    [
        a_point({"n": float("nan")}),
        a_point({"n": float("inf")}),
        a_point({"n": 2**63}),
        a_point({"n": "\x00"}),
        a_point({"n": "\ud800"}),
        a_point({}),
        a_point({"time": 1.0}),
        a_point({"": 1.0}),
        a_point({'n"': 1.0}),
        a_point({"device": 1.0}),
        a_point({"n": 1.0}, n="both"),
        a_point({"n": 1.0}, tag="ends with \\"),
        a_point({"n": 1.0}, tag=""),
        a_point({"n": 1.0}, tag="a\nb"),
        a_point({"n": 1.0}, time="x"),
        a_point({"n": 1.0}, measurement="#comment"),
        a_point({"n": 1.0}, at=EPOCH - SECOND),
        a_point({"n": 1.0}, at=END_OF_TIME),
        Point(DEVICE, "device", (("b", "1"), ("a", "1")), {"n": 1.0}, NOON),
        Point(DEVICE, "device", (("device", str(uuid4())),), {"n": 1.0}, NOON),
    ],
    ids=lambda point: (
        repr((point.measurement, point.tags, dict(point.fields), point.at.year))
        .encode("ascii", "backslashreplace")
        .decode()
    ),
)
async def test_a_point_that_cannot_be_kept_is_named_and_the_rest_is_stored(
    metrics: Metrics, flawed: Point
) -> None:
    good = [a_point({"n": 1.0}, at=NOON + SECOND), a_point({"n": 2.0}, at=NOON + 2 * SECOND)]

    with pytest.raises(PartialWrite) as caught:
        await metrics.write([good[0], flawed, good[1]])

    assert [each.point for each in caught.value.refused] == [flawed]
    assert caught.value.refused[0].reason
    assert await asked(metrics, EVERYTHING) == {"n": [(NOON + SECOND, 1.0), (NOON + 2 * SECOND, 2.0)]}


async def test_a_field_keeps_the_type_of_its_first_value(metrics: Metrics) -> None:
    await metrics.write([a_point({"n": 1.0})])
    others = [a_point({"n": value}, at=NOON + SECOND, tag="t") for value in (1, "one", True)]
    good = [a_point({"n": float(index)}, at=NOON + HOUR, tag=str(index)) for index in range(40)]

    with pytest.raises(PartialWrite) as caught:
        await metrics.write([*good[:20], *others, *good[20:]])

    assert [each.point for each in caught.value.refused] == others
    assert all("type" in each.reason for each in caught.value.refused)
    assert len(await metrics.query(EVERYTHING)) == 41


async def test_of_two_types_in_one_write_the_first_is_kept(metrics: Metrics) -> None:
    points = [a_point({"new": "text"}), a_point({"new": 1.0}, at=NOON + SECOND)]

    with pytest.raises(PartialWrite) as caught:
        await metrics.write(points)

    assert [each.point for each in caught.value.refused] == points[1:]
    assert await asked(metrics, EVERYTHING) == {"new": [(NOON, "text")]}


async def test_the_latest_point_of_each_thing_is_found(metrics: Metrics) -> None:
    await metrics.write(
        [
            a_point({"cpu": 1.0, "old": 1}, at=NOON, service="web"),
            a_point({"cpu": 2.0, "up": True}, at=NOON + SECOND, service="web"),
            a_point({"cpu": 3.0}, at=NOON - HOUR, service="db"),
            a_point({"cpu": 9.0}, at=NOON + HOUR, device=uuid4(), service="web"),
        ]
    )

    latest = await metrics.latest(DEVICE, "device")
    recent = await metrics.latest(DEVICE, "device", since=NOON)

    assert [(each.tags, each.at, each.fields) for each in latest] == [
        ((("service", "db"),), NOON - HOUR, {"cpu": 3.0}),
        ((("service", "web"),), NOON + SECOND, {"cpu": 2.0, "up": True}),
    ]
    assert type(latest[0].fields["cpu"]) is float
    assert recent == latest[1:]
    assert await metrics.latest(DEVICE, "nothing") == []


async def test_thousands_of_points_are_written_at_once(metrics: Metrics) -> None:
    points = [
        a_point({"n": index}, at=NOON + index * timedelta(milliseconds=1), core=str(index % 3))
        for index in range(12_000)
    ]

    await metrics.write(points)

    counted = await metrics.query(replace(EVERYTHING, aggregate=Aggregate.COUNT))
    assert [series.points[0][1] for series in counted] == [4000, 4000, 4000]


async def test_writers_at_the_same_time_do_not_disturb_each_other(metrics: Metrics) -> None:
    async def write(number: int) -> None:
        for index in range(5):
            fields = {f"f{(number + other) % 5}": float(number) for other in range(5)}
            await metrics.write([a_point(fields, at=NOON + index * SECOND, writer=str(number), round="x")])

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(write(number))

    found = await metrics.query(replace(EVERYTHING, fields=("f0",)))
    assert [len(series.points) for series in found] == [5] * 8


async def test_nothing_to_write_is_nothing_wrong(metrics: Metrics) -> None:
    await metrics.write([])

    assert await metrics.query(EVERYTHING) == []


async def test_preparing_twice_keeps_what_is_stored(metrics: Metrics) -> None:
    await metrics.write([a_point({"n": 1.0})])

    await asyncio.gather(metrics.prepare(), metrics.prepare())

    assert await asked(metrics, EVERYTHING) == {"n": [(NOON, 1.0)]}


async def test_a_usable_database_is_healthy(metrics: Metrics) -> None:
    health = await metrics.check()

    assert health.problem is None
    assert health.version[0].isdigit()


@pytest.mark.parametrize("metrics", ["sqlite", "postgresql", "influxdb"], indirect=True)
async def test_a_database_that_was_never_prepared_is_refused_with_what_to_do(
    request: pytest.FixtureRequest, tmp_path: Path, metrics: Metrics
) -> None:
    bare = await an_unprepared_one(request, tmp_path)
    try:
        await refusal(ErrorCode.METRICS_REFUSED, lambda: bare.write([a_point({"n": 1.0})]))
        await refusal(ErrorCode.METRICS_REFUSED, lambda: bare.query(EVERYTHING))
        health = await bare.check()
        assert health.problem is not None
        assert health.problem.code == ErrorCode.METRICS_REFUSED
    finally:
        await bare.close()


async def an_unprepared_one(request: pytest.FixtureRequest, tmp_path: Path) -> Metrics:
    match request.node.callspec.params["metrics"]:
        case "sqlite":
            return SqlMetrics.open(f"sqlite+aiosqlite:///{tmp_path}/bare.db")
        case "postgresql":
            return SqlMetrics.open(request.getfixturevalue("postgres").create_database())
        case _:
            return InfluxMetrics(InfluxSettings(request.getfixturevalue("influx").url, database="bare"))


@pytest.mark.parametrize(
    "metrics",
    [
        SqlMetrics.open("sqlite+aiosqlite:////nowhere/at/all.db"),
        SqlMetrics.open("postgresql+asyncpg://fleetline@127.0.0.1:1/x"),
        InfluxMetrics(InfluxSettings("http://127.0.0.1:1")),
    ],
    ids=["sqlite", "postgresql", "influxdb"],
)
async def test_a_database_that_does_not_answer_is_unreachable_and_may_be_tried_again(
    metrics: Metrics,
) -> None:
    try:
        for call in (
            metrics.prepare,
            lambda: metrics.write([a_point({"n": 1.0})]),
            lambda: metrics.query(EVERYTHING),
            lambda: metrics.latest(DEVICE, "device"),
        ):
            await refusal(ErrorCode.METRICS_UNREACHABLE, call)
        health = await metrics.check()
        assert health.problem is not None
        assert health.problem.retryable
    finally:
        await metrics.close()


async def test_what_is_older_than_the_retention_is_deleted(tmp_path: Path, postgres: Postgres) -> None:
    for url in (f"sqlite+aiosqlite:///{tmp_path}/samples.db", postgres.create_database()):
        metrics = SqlMetrics.open(url, retention=HOUR)
        await metrics.prepare()
        await metrics.write([a_point({"n": 1.0}, at=NOON + index * MINUTE) for index in range(120)])

        assert await metrics.prune(NOON + 2 * HOUR) == 60
        assert await metrics.prune(NOON + 2 * HOUR) == 0
        assert len((await metrics.query(EVERYTHING))[0].points) == 60
        await metrics.write([a_point({"n": 1.0})])
        await metrics.close()


async def test_a_write_cut_off_by_a_crash_of_the_database_can_be_repeated(postgres: Postgres) -> None:
    metrics = SqlMetrics.open(postgres.create_database())
    await metrics.prepare()
    points = [a_point({"n": float(index)}, at=NOON + index * SECOND) for index in range(100)]
    await metrics.write(points[:50])

    postgres.kill()
    await refusal(ErrorCode.METRICS_UNREACHABLE, lambda: metrics.write(points))
    postgres.start()
    await metrics.write(points)

    assert len((await metrics.query(EVERYTHING))[0].points) == 100
    await metrics.close()


def test_every_type_has_its_word() -> None:
    assert [kind_of(value) for value in (1.0, 1, "x", True)] == list(Kind)
