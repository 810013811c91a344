"""What is sent to each InfluxDB, and what becomes of each of its answers.

1.x is the real server. Of 2.x and 3.x no server can be installed here: a real HTTP
server stands in that answers as their documentation says, and VictoriaMetrics
takes what is written the way of 2.x.
"""

import base64
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from cloud.metrics.influx import Generation, InfluxMetrics, InfluxSettings
from cloud.metrics.protocol import END_OF_TIME, EPOCH, Aggregate, PartialWrite, Point, Query
from schemas.errors import ErrorCode, FleetError
from tests.servers.influx import Influx
from tests.servers.recorder import Recorder, Reply, Request, recorder

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
ONE = Point(DEVICE, "device", (("site", "lab"),), {"load": 0.5}, NOON)
LINE = b"device,device=0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11,site=lab load=0.5 1772366400000000000"


def ping(version: str) -> Reply:
    return Reply(204, headers={"X-Influxdb-Version": version})


def settings(server: Recorder, **more: Any) -> InfluxSettings:
    return InfluxSettings(server.url, database="fleet", org="acme", token="s3cret", **more)


@pytest.mark.parametrize("version", ["v2.7.11", "2.7.11", "3.4.1"])
async def test_since_2_lines_go_to_the_bucket_with_the_token(version: str) -> None:
    with recorder(lambda request: ping(version) if request.path == "/ping" else Reply(204)) as server:
        metrics = InfluxMetrics(settings(server))
        await metrics.write([ONE])
        await metrics.close()

    (request,) = server.asked("/api/v2/write")
    assert (request.method, request.body) == ("POST", LINE)
    assert request.query == {"org": "acme", "bucket": "fleet", "precision": "ns"}
    assert request.headers["authorization"] == "Token s3cret"
    assert len(server.asked("/ping")) == 1


async def test_on_1_lines_go_to_the_database_with_user_and_password() -> None:
    with recorder(lambda request: ping("1.8.10") if request.path == "/ping" else Reply(204)) as server:
        metrics = InfluxMetrics(InfluxSettings(server.url, username="me", password="pass"))
        await metrics.write([ONE])
        await metrics.close()

    (request,) = server.asked("/write")
    assert (request.query, request.body) == ({"db": "fleet", "precision": "ns"}, LINE)
    assert request.headers["authorization"] == f"Basic {base64.b64encode(b'me:pass').decode()}"


async def test_a_version_that_only_health_tells_is_found() -> None:
    health = Reply(body={"name": "influxdb", "status": "pass", "version": "v2.1.1"})
    replies = {"/ping": Reply(404), "/health": health, "/api/v2/write": Reply(204)}
    with recorder(lambda request: replies[request.path]) as server:
        metrics = InfluxMetrics(settings(server))
        await metrics.write([ONE])
        await metrics.close()

    assert [request.path for request in server.requests] == ["/ping", "/health", "/api/v2/write"]


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>hello</html>"), ping("9.1"), Reply(404), Reply(200, [])]
)
async def test_a_server_that_is_no_influxdb_is_refused(reply: Reply) -> None:
    with recorder(lambda _: reply) as server:
        metrics = InfluxMetrics(settings(server))
        with pytest.raises(FleetError) as caught:
            await metrics.write([ONE])
        await metrics.close()

    assert caught.value.code == ErrorCode.METRICS_REFUSED


async def test_long_bodies_are_compressed_and_short_ones_are_not() -> None:
    with recorder(lambda request: ping("2.7") if request.path == "/ping" else Reply(204)) as server:
        metrics = InfluxMetrics(settings(server))
        await metrics.write([ONE])
        await metrics.write([ONE] * 20)
        await metrics.close()

    short, long = server.asked("/api/v2/write")
    assert "content-encoding" not in short.headers
    assert long.headers["content-encoding"] == "gzip"
    assert long.body == b"\n".join([LINE] * 20)


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (401, {"code": "unauthorized", "message": "unauthorized access"}, "metrics.refused", "token"),
        (403, {"message": "insufficient permissions for write"}, "metrics.refused", "right"),
        (404, {"error": 'database not found: "fleet"'}, "metrics.refused", "create it"),
        (429, {"message": "too many requests"}, "metrics.unreachable", "too many requests"),
        (500, {"error": "timeout"}, "metrics.unreachable", "timeout"),
        (503, b"no healthy upstream", "metrics.unreachable", "no healthy upstream"),
    ],
)
async def test_an_answer_that_is_not_about_the_points_is_an_error_for_all(
    status: int, body: object, code: str, words: str
) -> None:
    with recorder(lambda request: ping("2.7") if request.path == "/ping" else Reply(status, body)) as server:
        metrics = InfluxMetrics(settings(server))
        for call in (
            lambda: metrics.write([ONE, ONE]),
            lambda: metrics.query(Query("device", EPOCH, END_OF_TIME)),
            lambda: metrics.latest(DEVICE, "device"),
        ):
            with pytest.raises(FleetError) as caught:
                await call()
            assert (caught.value.code, caught.value.problem.retryable) == (code, code.endswith("unreachable"))
            assert words in str(caught.value)
            assert not isinstance(caught.value, PartialWrite)
        health = await metrics.check()
        assert health.problem is not None
        assert health.version == "2.7"
        await metrics.close()


async def test_silence_is_unreachable() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        metrics = InfluxMetrics(InfluxSettings(url, timeout=0.2))
        with pytest.raises(FleetError) as caught:
            await metrics.write([ONE])
        await metrics.close()

    assert caught.value.code == ErrorCode.METRICS_UNREACHABLE


def refusing(bad: bytes, refusal: Reply) -> Callable[[Request], Reply]:
    """Answer as a 2.x that refuses any body with a line that begins with *bad*."""

    def answer(request: Request) -> Reply:
        if request.path == "/ping":
            return ping("2.7")
        return refusal if any(each.startswith(bad) for each in request.body.splitlines()) else Reply(204)

    return answer


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_point_is_found_by_halving(status: int) -> None:
    points = [Point(DEVICE, f"m{index}", (), {"n": 1.0}, NOON) for index in range(1000)]
    refusal = Reply(status, {"code": "invalid", "message": "partial write: field type conflict dropped=1"})
    with recorder(refusing(b"m617,", refusal)) as server:
        metrics = InfluxMetrics(settings(server))
        with pytest.raises(PartialWrite) as caught:
            await metrics.write(points)
        await metrics.close()

    assert [(each.point, each.reason) for each in caught.value.refused] == [
        (points[617], "partial write: field type conflict dropped=1")
    ]
    assert len(server.asked("/api/v2/write")) <= 2 * 11
    stored = {
        line
        for request in server.asked("/api/v2/write")
        if b"m617," not in request.body
        for line in request.body.splitlines()
    }
    assert len(stored) == 999


async def test_a_body_that_is_too_large_is_halved_until_it_fits() -> None:
    def answer(request: Request) -> Reply:
        if request.path == "/ping":
            return ping("2.7")
        return Reply(413 if request.body.count(b"\n") >= 10 else 204)

    with recorder(answer) as server:
        metrics = InfluxMetrics(settings(server))
        await metrics.write([ONE] * 64)
        await metrics.close()

    sent = [len(request.body.splitlines()) for request in server.asked("/api/v2/write")]
    assert sum(count for count in sent if count <= 10) == 64


async def test_a_whole_write_beyond_the_retention_costs_one_request(influx: Influx) -> None:
    old = [Point(DEVICE, "m", (), {"n": 1.0}, NOON - timedelta(days=999 + day)) for day in range(100)]
    metrics = InfluxMetrics(
        InfluxSettings(influx.url, database=f"test_{uuid4().hex}", retention=timedelta(days=3))
    )
    await metrics.prepare()
    await metrics.prepare()

    with pytest.raises(PartialWrite) as caught:
        await metrics.write(old)
    await metrics.close()

    assert len(caught.value.refused) == 100
    assert "retention" in caught.value.refused[0].reason


@pytest.mark.parametrize(("days", "shards"), [(1, "1h"), (30, "24h"), (400, "168h")])
async def test_retention_is_set_on_1(influx: Influx, days: int, shards: str) -> None:
    name = f"test_{uuid4().hex}"
    metrics = InfluxMetrics(InfluxSettings(influx.url, database=name, retention=timedelta(days=days)))
    await metrics.prepare()
    await metrics.close()

    async with httpx.AsyncClient(base_url=influx.url) as client:
        answer = (await client.get("/query", params={"q": f'SHOW RETENTION POLICIES ON "{name}"'})).json()
    (policy,) = answer["results"][0]["series"][0]["values"]
    assert policy[1:3] == [f"{days * 24}h0m0s", f"{shards}0m0s"]


class Bucketless:
    """Answers as a 2.x that has no bucket yet, then as one that has."""

    def __init__(self) -> None:
        self.buckets: list[dict[str, Any]] = []
        self.mappings: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Reply:
        match request.method, request.path:
            case _, "/ping":
                return ping("v2.7.11")
            case "GET", "/api/v2/orgs":
                return Reply(body={"orgs": [{"id": "0123456789abcdef", "name": "acme"}]})
            case "GET", "/api/v2/buckets":
                return Reply(body={"buckets": self.buckets})
            case "POST", "/api/v2/buckets":
                self.buckets.append({**request.json, "id": "fedcba9876543210"})
                return Reply(201, self.buckets[-1])
            case "GET", "/api/v2/dbrps":
                return Reply(body={"content": self.mappings})
            case "POST", "/api/v2/dbrps":
                self.mappings.append({**request.json, "id": "1111111111111111"})
                return Reply(201, self.mappings[-1])
            case other:
                raise AssertionError(other)


async def test_on_2_the_bucket_and_its_mapping_are_made_once() -> None:
    answers = Bucketless()
    with recorder(answers) as server:
        metrics = InfluxMetrics(settings(server, retention=timedelta(days=30)))
        await metrics.prepare()
        await metrics.prepare()
        await metrics.close()

    (bucket,) = answers.buckets
    (mapping,) = answers.mappings
    assert (bucket["name"], bucket["orgID"]) == ("fleet", "0123456789abcdef")
    assert bucket["retentionRules"] == [{"type": "expire", "everySeconds": 30 * 86_400}]
    assert mapping == {
        "id": "1111111111111111",
        "orgID": "0123456789abcdef",
        "bucketID": "fedcba9876543210",
        "database": "fleet",
        "retention_policy": "autogen",
        "default": True,
    }
    assert {request.headers["authorization"] for request in server.requests} == {"Token s3cret"}


async def test_on_2_a_token_without_rights_is_refused_with_what_to_do() -> None:
    denied = Reply(403, {"code": "forbidden", "message": "insufficient permissions"})
    with recorder(lambda request: ping("2.7") if request.path == "/ping" else denied) as server:
        metrics = InfluxMetrics(settings(server))
        with pytest.raises(FleetError) as caught:
            await metrics.prepare()
        await metrics.close()

    assert caught.value.code == ErrorCode.METRICS_REFUSED
    assert "insufficient permissions" in str(caught.value)


@pytest.mark.parametrize("reply", [Reply(200, {}), Reply(409, {"error": "already exists"})])
async def test_on_3_the_database_is_made_or_there_already(reply: Reply) -> None:
    with recorder(lambda request: ping("3.4.1") if request.path == "/ping" else reply) as server:
        metrics = InfluxMetrics(settings(server))
        await metrics.prepare()
        await metrics.close()

    assert server.asked("/api/v3/configure/database")[0].json == {"db": "fleet"}


async def test_a_question_carries_its_values_as_bound_parameters() -> None:
    def answer(request: Request) -> Reply:
        if request.form["q"].startswith("SHOW"):
            keys = {"name": "service", "columns": ["fieldKey", "fieldType"], "values": [["cpu", "float"]]}
            return Reply(body={"results": [{"statement_id": 0, "series": [keys]}]})
        series = {
            "name": "service",
            "tags": {"device": str(DEVICE), "service": "web", "zone": ""},
            "columns": ["time", "mean"],
            "values": [[1772366400000000000, 1], [1772366460000000000, None]],
        }
        foreign = {**series, "tags": {"device": "someone else's"}}
        return Reply(body={"results": [{"statement_id": 0, "series": [series, foreign]}]})

    with recorder(answer) as server:
        metrics = InfluxMetrics(settings(server, generation=Generation.V3))
        found = await metrics.query(
            Query(
                "service",
                NOON,
                NOON + timedelta(hours=1),
                devices=(DEVICE,),
                fields=("cpu",),
                every=timedelta(minutes=1),
                aggregate=Aggregate.MEAN,
                tags={"service": "x' OR 1=1 --"},
            )
        )
        await metrics.close()

    asked = server.asked("/query")[-1]
    assert asked.query == {"db": "fleet", "epoch": "ns", "chunked": "true", "chunk_size": "5000"}
    assert asked.form["q"] == (
        'SELECT mean("cpu") FROM "service" WHERE time >= $start AND time < $end AND "service" = $tag0'
        ' AND ("device" = $device0) GROUP BY time(60000000u), * fill(none)'
    )
    assert json.loads(asked.form["params"]) == {
        "start": 1772366400000000000,
        "end": 1772370000000000000,
        "tag0": "x' OR 1=1 --",
        "device0": str(DEVICE),
    }
    (series,) = found
    assert (series.device, series.tags) == (DEVICE, (("service", "web"),))
    assert series.points == [(NOON, 1.0)]
    assert type(series.points[0][1]) is float


async def test_an_answer_that_is_no_json_is_refused() -> None:
    with recorder(lambda _: Reply(200, b"<html>login</html>")) as server:
        metrics = InfluxMetrics(settings(server, generation=Generation.V2))
        with pytest.raises(FleetError) as caught:
            await metrics.query(Query("device", EPOCH, END_OF_TIME))
        await metrics.close()

    assert caught.value.code == ErrorCode.METRICS_REFUSED


async def test_victoria_metrics_takes_what_is_written_the_way_of_2(victoria_metrics: str) -> None:
    points = [
        Point(DEVICE, "device", (("site", "a b,c=d"),), {"load": index / 10, "up": True}, NOON + at)
        for index, at in enumerate(timedelta(seconds=second) for second in range(40))
    ]
    metrics = InfluxMetrics(InfluxSettings(victoria_metrics, token="any", generation=Generation.V2))
    await metrics.write(points)
    await metrics.close()

    window = {"start": "2026-03-01T11:00:00Z", "end": "2026-03-01T13:00:00Z"}
    async with httpx.AsyncClient(base_url=victoria_metrics) as client:
        (await client.get("/internal/force_flush")).raise_for_status()
        exported = await client.get("/api/v1/export", params={"match[]": "device_load", **window})
    (series,) = [json.loads(each) for each in exported.text.splitlines()]
    assert series["metric"] == {
        "__name__": "device_load",
        "device": str(DEVICE),
        "site": "a b,c=d",
    }
    assert series["values"] == [index / 10 for index in range(40)]
    assert series["timestamps"][0] == 1772366400000


async def test_only_204_says_that_points_are_stored() -> None:
    with recorder(
        lambda request: ping("1.8.10") if request.path == "/ping" else Reply(200, b"hello")
    ) as server:
        metrics = InfluxMetrics(settings(server))
        with pytest.raises(FleetError) as caught:
            await metrics.write([ONE])
        await metrics.close()

    assert caught.value.code == ErrorCode.METRICS_REFUSED


async def test_an_answer_that_cannot_be_unpacked_decides_nothing() -> None:
    with recorder(lambda _: Reply(200, b"no gzip", headers={"Content-Encoding": "gzip"})) as server:
        metrics = InfluxMetrics(settings(server))
        with pytest.raises(FleetError) as caught:
            await metrics.write([ONE])
        await metrics.close()

    assert caught.value.code == ErrorCode.METRICS_UNREACHABLE


async def test_a_password_in_the_url_is_in_no_error_text() -> None:
    metrics = InfluxMetrics(InfluxSettings("http://me:s3cret@127.0.0.1:9", timeout=2))
    health = await metrics.check()
    await metrics.close()

    assert health.problem is not None
    assert "s3cret" not in str(health.problem)
    assert "127.0.0.1:9" in str(health.problem)
