import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from cloud.store import events, keys
from cloud.store.events import Kind
from schemas.errors import ErrorCode
from tests.api.answers import refusal_of
from tests.servers.api import RunningApi


def happens(running: RunningApi, kind: Kind, device: UUID | None = None, **data: Any) -> None:
    now = running.clock()
    running.store(lambda session: events.append(session, kind, device, data, now))


def read(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield events as a reader of the WHATWG format sees them, the id checked against the data."""
    event: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            field, _, value = line.partition(": ")
            event[field] = value
        elif "data" in event:
            content = json.loads(event["data"])
            assert (event["id"], event["event"]) == (str(content["id"]), content["kind"])
            yield content
            event = {}


def take(answer: httpx.Response, count: int) -> list[dict[str, Any]]:
    source = read(answer)
    return [next(source) for _ in range(count)]


def test_events_come_while_they_happen(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()
    with client.stream("GET", "/edge/events", params={"device": str(device)}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        happening = threading.Timer(0.2, happens, (running, Kind.PRESENCE, device), {"status": "online"})
        happening.start()
        (event,) = take(answer, 1)
        happening.join()

    assert event["kind"] == "presence"
    assert event["device"] == str(device)
    assert event["data"] == {"status": "online"}


def test_a_stream_goes_on_after_the_last_event_seen(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()
    for number in range(5):
        happens(running, Kind.EVENT, device, number=number)
    asked = {"device": str(device), "after": "0"}
    with client.stream("GET", "/edge/events", params=asked) as answer:
        first = take(answer, 2)
    headers = {"Last-Event-ID": str(first[-1]["id"])}
    with client.stream("GET", "/edge/events", params=asked, headers=headers) as answer:
        rest = take(answer, 3)

    assert [each["data"]["number"] for each in first + rest] == [0, 1, 2, 3, 4]


def test_a_stream_is_narrowed_by_kind_and_command(running: RunningApi, client: httpx.Client) -> None:
    device, command = running.device(), str(uuid4())
    happens(running, Kind.RESULT, device, command=str(uuid4()))
    happens(running, Kind.CHUNK, device, command=command, seq=0)
    happens(running, Kind.EVENT, device, command=command)
    happens(running, Kind.RESULT, device, command=command)
    asked = {"command": command, "kind": "chunk,result", "after": "0"}

    with client.stream("GET", "/edge/events", params=asked) as answer:
        found = take(answer, 2)

    assert [each["kind"] for each in found] == ["chunk", "result"]


def test_a_stream_longer_than_a_batch_comes_whole(running: RunningApi, client: httpx.Client) -> None:
    device, now = running.device(), running.clock()

    async def many(session: Any) -> None:
        for number in range(450):
            await events.append(session, Kind.EVENT, device, {"number": number}, now)

    running.store(many)
    with client.stream("GET", "/edge/events", params={"device": str(device), "after": 0}) as answer:
        found = take(answer, 450)

    assert [each["data"]["number"] for each in found] == list(range(450))


def test_a_stream_ends_cleanly_when_the_server_stops(own_api: RunningApi) -> None:
    stopping = threading.Timer(0.5, own_api.stop_serving)
    with own_api.client() as client, client.stream("GET", "/edge/events") as answer:
        stopping.start()
        began = time.monotonic()
        assert list(read(answer)) == []
    stopping.join()

    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("kind=presense", {}, ErrorCode.VALUE_WRONG_TYPE),
        ("device=x", {}, ErrorCode.DEVICE_BAD_ID),
        ("command=x", {}, ErrorCode.VALUE_WRONG_TYPE),
        ("after=-1", {}, ErrorCode.VALUE_OUT_OF_RANGE),
        ("devise=x", {}, ErrorCode.FIELD_UNKNOWN),
        ("", {"Last-Event-ID": "x"}, ErrorCode.VALUE_WRONG_TYPE),
    ],
)
def test_a_stream_that_cannot_be_is_refused_in_the_envelope(
    client: httpx.Client, query: str, headers: dict[str, str], code: ErrorCode
) -> None:
    refusal_of(client.get(f"/edge/events?{query}", headers=headers), code)


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_stream_ends_with_its_key(own_api: RunningApi, end: str) -> None:
    key = own_api.key_with("events:read", ttl=timedelta(hours=1))
    with own_api.client(key) as opened, opened.stream("GET", "/edge/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        if end == "revoked":
            own_api.store(lambda session: keys.revoke(session, key.split("_")[1], own_api.clock()))
        else:
            own_api.clock.ahead = timedelta(hours=2)

        assert list(lines) == [""]
