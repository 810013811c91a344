import threading
import time
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from cloud.store import commands
from schemas import topics
from schemas.commands import CommandResult, CommandStatus
from schemas.errors import ErrorCode, Problem
from tests.api.answers import data_of, refusal_of
from tests.servers.api import RunningApi

RESTART = {"name": "restart", "arguments": {"service": "web"}}


def answers(running: RunningApi, device: UUID, command: str, result: CommandResult) -> None:
    """Let the device say *result*."""
    now = running.clock()
    topic = topics.Result(device, "restart", UUID(command))
    assert running.store(lambda session: commands.record(session, topic, result, now))


def done(running: RunningApi, **more: Any) -> CommandResult:
    return CommandResult(status=CommandStatus.SUCCEEDED, at=running.clock(), **more)


def test_a_command_is_stored_before_any_device_answers(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()

    command = data_of(client.post(f"/edge/devices/{device}/commands", json=RESTART), 202)

    assert command["status"] == "queued"
    assert command["final"] is False
    assert command["device"] == str(device)
    assert command["issued_by"].startswith("all (key ")
    assert data_of(client.get(f"/edge/commands/{command['id']}")) == command
    assert data_of(client.get(f"/edge/devices/{device}/commands"))["commands"] == [command]


def test_waiting_for_a_command_ends_when_the_device_answers(
    running: RunningApi, client: httpx.Client
) -> None:
    device, command = running.device(), str(uuid4())
    order = {**RESTART, "id": command}

    def answer_when_stored() -> None:
        with running.client() as other:
            while other.get(f"/edge/commands/{command}").status_code != 200:
                time.sleep(0.02)
        answers(running, device, command, done(running, detail="web restarted", data={"took": 1.5}))

    answering = threading.Thread(target=answer_when_stored)
    answering.start()
    began = time.monotonic()
    answer = client.post(f"/edge/devices/{device}/commands", json=order, params={"wait": 20})
    took = time.monotonic() - began
    answering.join()

    assert data_of(answer, 200)["data"] == {"took": 1.5}
    assert answer.json()["message"] == "restart succeeded: web restarted"
    assert took < 10


def test_a_failed_command_says_why(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()
    command = data_of(client.post(f"/edge/devices/{device}/commands", json=RESTART), 202)["id"]
    error = Problem(code="service.unknown", message="no service called web runs here")
    failed = CommandResult(status=CommandStatus.FAILED, at=running.clock(), error=error)
    answers(running, device, command, failed)

    answer = client.get(f"/edge/commands/{command}", params={"wait": 5})

    assert data_of(answer)["error"]["code"] == "service.unknown"
    assert answer.json()["message"] == "restart failed: service.unknown: no service called web runs here"


def test_waiting_is_over_when_the_time_is_up(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()

    answer = client.post(f"/edge/devices/{device}/commands", json=RESTART, params={"wait": 0.2})

    assert data_of(answer, 202)["status"] == "queued"


def test_waiting_is_over_when_the_server_stops(own_api: RunningApi) -> None:
    device = own_api.device()
    stopping = threading.Timer(0.5, own_api.stop_serving)
    stopping.start()
    began = time.monotonic()
    with own_api.client() as client:
        answer = client.post(f"/edge/devices/{device}/commands", json=RESTART, params={"wait": 30})
    stopping.join()

    assert data_of(answer, 202)["status"] == "queued"
    assert time.monotonic() - began < 10


def test_the_same_id_again_is_the_same_command(running: RunningApi, client: httpx.Client) -> None:
    device = running.device()
    order = {**RESTART, "id": str(uuid4())}

    first = data_of(client.post(f"/edge/devices/{device}/commands", json=order), 202)
    second = data_of(client.post(f"/edge/devices/{device}/commands", json=order), 202)
    other = client.post(f"/edge/devices/{device}/commands", json={**order, "name": "stop"})

    assert second == first
    refusal_of(other, ErrorCode.COMMAND_ID_CONFLICT)
    assert len(data_of(client.get(f"/edge/devices/{device}/commands"))["commands"]) == 1


def test_a_device_s_commands_come_in_pages_the_newest_first(
    running: RunningApi, client: httpx.Client
) -> None:
    device = running.device()
    order = {"name": "ping"}
    made = [data_of(client.post(f"/edge/devices/{device}/commands", json=order), 202)["id"] for _ in range(5)]

    first = data_of(client.get(f"/edge/devices/{device}/commands", params={"limit": 3}))
    asked = {"limit": 3, "after": first["next"]}
    second = data_of(client.get(f"/edge/devices/{device}/commands", params=asked))

    assert [each["id"] for each in first["commands"] + second["commands"]] == made[::-1]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("order", "code", "field"),
    [
        ({}, ErrorCode.FIELD_MISSING, "name"),
        ({"name": "reboot"}, ErrorCode.COMMAND_UNKNOWN, "name"),
        ({"name": 1}, ErrorCode.VALUE_WRONG_TYPE, "name"),
        ({"name": "restart"}, ErrorCode.FIELD_MISSING, "arguments.service"),
        ({"name": "restart", "arguments": {"servce": "web"}}, ErrorCode.FIELD_UNKNOWN, "arguments.servce"),
        (
            {"name": "restart", "arguments": {"service": "Web!"}},
            ErrorCode.VALUE_BAD_CHARACTER,
            "arguments.service",
        ),
        (
            {"name": "logs", "arguments": {"service": "web", "tail": -1}},
            ErrorCode.VALUE_OUT_OF_RANGE,
            "arguments.tail",
        ),
        (
            {"name": "logs", "arguments": {"service": "web", "tail": "9"}},
            ErrorCode.VALUE_WRONG_TYPE,
            "arguments.tail",
        ),
        ({"name": "ping", "arguments": []}, ErrorCode.VALUE_WRONG_TYPE, "arguments"),
        ({"name": "ping", "timout": 5}, ErrorCode.FIELD_UNKNOWN, "timout"),
        ({"name": "ping", "timeout": 0}, ErrorCode.VALUE_OUT_OF_RANGE, "timeout"),
        ({"name": "ping", "timeout": 1e9}, ErrorCode.VALUE_OUT_OF_RANGE, "timeout"),
        ({"name": "ping", "timeout": "5"}, ErrorCode.VALUE_WRONG_TYPE, "timeout"),
        ({"name": "ping", "id": "x"}, ErrorCode.VALUE_WRONG_TYPE, "id"),
    ],
)
def test_a_command_that_does_not_fit_is_refused_and_nothing_is_stored(
    running: RunningApi, client: httpx.Client, order: dict[str, object], code: ErrorCode, field: str
) -> None:
    device = running.device()

    content = refusal_of(client.post(f"/edge/devices/{device}/commands", json=order), code)

    assert content["field"] == field
    assert data_of(client.get(f"/edge/devices/{device}/commands"))["commands"] == []


def test_a_misspelt_field_gets_a_suggestion(running: RunningApi, client: httpx.Client) -> None:
    order = {"name": "restart", "arguments": {"servce": "web"}}

    content = refusal_of(
        client.post(f"/edge/devices/{running.device()}/commands", json=order), ErrorCode.FIELD_UNKNOWN
    )

    assert content["message"] == "arguments.servce: there is no such field; did you mean 'service'?"


def test_an_unknown_command_or_device_is_refused(client: httpx.Client) -> None:
    refusal_of(client.get(f"/edge/commands/{uuid4()}"), ErrorCode.COMMAND_UNKNOWN)
    refusal_of(client.get("/edge/commands/1"), ErrorCode.VALUE_WRONG_TYPE)
    refusal_of(client.post(f"/edge/devices/{uuid4()}/commands", json=RESTART), ErrorCode.DEVICE_UNKNOWN)
    refusal_of(client.get(f"/edge/commands/{uuid4()}", params={"wait": 61}), ErrorCode.VALUE_OUT_OF_RANGE)
