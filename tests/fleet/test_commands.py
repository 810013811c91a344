"""Commands by topic and over REST reach real containers, once each, and are answered."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest

from schemas.base import print_time
from tests.servers.boxes import boxes, count, history, starts_in_volume
from tests.servers.docker import docker
from tests.servers.enrol import enrol
from tests.servers.mqtt_tools import Word, device_arguments, listening, mosquitto_pub, publish
from tests.servers.shop import api, release, service_of, settle, store
from tests.servers.stack import Stack, until


@pytest.fixture
def device(docker_stack: Stack, demo_image: str) -> str:
    device = docker_stack.devices[0]
    settle(docker_stack, device, release("commands", store(demo_image), api(demo_image)))
    return device


@pytest.fixture(scope="module")
def intruder(docker_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a device that has enrolled and runs no agent."""
    return enrol(docker_stack, tmp_path_factory.mktemp("intruder"), "intruder")


def restarts_since(device: str, moment: float, service: str) -> int:
    return count(history(device, moment), "start", service)


def test_mosquitto_pub_with_the_operators_certificate_restarts_a_container(
    docker_stack: Stack, device: str
) -> None:
    before, began, command = boxes(device)["store"], time.time(), str(uuid4())
    starts = starts_in_volume(before)

    with listening(docker_stack, f"{device}/up/result/#") as heard:
        publish(docker_stack, f"{device}/down/command/restart/{command}", '{"service":"store"}')
        said: list[Word] = []
        while not said or said[-1].payload["status"] != "succeeded":
            said.append(heard.next())

    assert {each.topic for each in said} == {f"fleet/v1/{device}/up/result/restart/{command}"}
    assert [each.payload["status"] for each in said] == ["accepted", "started", "succeeded"]
    assert not any(each.retained for each in said)
    after = boxes(device)["store"]
    assert after.id == before.id
    assert after.started_at > before.started_at
    assert restarts_since(device, began, "store") == 1
    assert until(lambda: starts_in_volume(after) == starts + 1, "the store to count its start")


def test_a_command_sent_by_topic_is_shown_over_rest(docker_stack: Stack, device: str) -> None:
    command = str(uuid4())

    with listening(docker_stack, f"{device}/up/result/#") as heard:
        publish(docker_stack, f"{device}/down/command/ping/{command}", '{"echo":"by topic"}')
        assert heard.final(command).payload["data"]["echo"] == "by topic"

    row = until(
        lambda: next(
            (
                each
                for each in docker_stack.get(f"/edge/devices/{device}/commands")["commands"]
                if each["id"] == command and each["final"]
            ),
            None,
        ),
        "the command in REST",
    )
    assert (row["name"], row["status"], row["device"]) == ("ping", "succeeded", device)


def test_another_devices_certificate_commands_nobody(
    docker_stack: Stack, device: str, intruder: Path
) -> None:
    began, command = time.time(), str(uuid4())
    topic = f"fleet/v1/{device}/down/command/restart/{command}"

    with listening(docker_stack, f"{device}/#") as heard:
        told = mosquitto_pub(
            [*device_arguments(docker_stack, intruder), "-V", "5", "-d", "-t", topic],
            '{"service":"store"}',
            expect=None,
        )
        assert docker_stack.command(device, "ping")["status"] == "succeeded"
        about = [each for each in heard.rest() if command in each.topic]

    assert "Not authorized" in told.stdout + told.stderr
    assert about == []
    assert restarts_since(device, began, "store") == 0
    assert docker_stack.call("GET", f"/edge/commands/{command}").status_code == 404


def test_a_devices_certificate_does_not_open_the_operators_listener(
    docker_stack: Stack, device: str, intruder: Path
) -> None:
    command = str(uuid4())
    arguments = device_arguments(docker_stack, intruder)
    arguments[arguments.index("-p") + 1] = str(docker_stack.endpoints["mqtt_port"])

    told = mosquitto_pub(
        [*arguments, "-V", "5", "-t", f"fleet/v1/{device}/down/command/restart/{command}"],
        '{"service":"store"}',
        expect=None,
    )

    assert told.returncode != 0
    assert docker_stack.command(device, "ping")["status"] == "succeeded"
    assert docker_stack.call("GET", f"/edge/commands/{command}").status_code == 404


def test_the_same_id_thrice_has_one_effect_and_the_same_answer(docker_stack: Stack, device: str) -> None:
    began, command = time.time(), str(uuid4())
    topic = f"{device}/down/command/restart/{command}"

    with listening(docker_stack, f"{device}/up/result/restart/{command}") as heard:
        publish(docker_stack, topic, '{"service":"store"}', "--repeat", "3")
        first = heard.final(command).payload
        publish(docker_stack, topic, '{"service":"store"}')
        again = heard.final(command).payload

    assert again == first
    assert first["status"] == "succeeded"
    assert restarts_since(device, began, "store") == 1


def test_the_same_id_twice_over_rest_is_one_command(docker_stack: Stack, device: str) -> None:
    began = time.time()
    body = {"name": "restart", "arguments": {"service": "store"}, "id": str(uuid4())}

    rows = [
        docker_stack.post(f"/edge/devices/{device}/commands", body, params={"wait": 30}) for _ in range(2)
    ]
    other = docker_stack.call("POST", f"/edge/devices/{device}/commands", json={**body, "name": "stop"})

    assert rows[0] == rows[1]
    assert rows[0]["status"] == "succeeded"
    assert (other.status_code, other.json()["code"]) == (409, "command.id_conflict")
    assert restarts_since(device, began, "store") == 1


def test_a_command_past_its_deadline_is_not_carried_out(docker_stack: Stack, device: str) -> None:
    began, command = time.time(), str(uuid4())
    late = datetime.now(UTC) - timedelta(minutes=5)
    payload = {
        "service": "store",
        "issued_at": print_time(late),
        "deadline": print_time(late + timedelta(seconds=1)),
    }

    with listening(docker_stack, f"{device}/up/result/#") as heard:
        publish(docker_stack, f"{device}/down/command/restart/{command}", json.dumps(payload))
        word = heard.final(command).payload

    assert (word["status"], word["error"]["code"]) == ("expired", "command.expired")
    assert restarts_since(device, began, "store") == 0


def test_an_unknown_service_is_refused_with_the_known_ones(docker_stack: Stack, device: str) -> None:
    row = docker_stack.command(device, "restart", service="shop")

    assert (row["status"], row["error"]["code"]) == ("failed", "service.unknown")
    assert "store" in row["error"]["message"]
    assert "api" in row["error"]["message"]


def test_an_unknown_command_is_refused_with_the_known_ones(docker_stack: Stack, device: str) -> None:
    over_rest = docker_stack.call("POST", f"/edge/devices/{device}/commands", json={"name": "reboot"})
    command = str(uuid4())
    with listening(docker_stack, f"{device}/up/result/#") as heard:
        publish(docker_stack, f"{device}/down/command/reboot/{command}", "{}")
        word = heard.final(command).payload

    assert over_rest.status_code in {400, 404, 422}
    assert over_rest.json()["code"] == "command.unknown"
    assert (word["status"], word["error"]["code"]) == ("rejected", "command.unknown")
    for message in (over_rest.json()["message"], word["error"]["message"]):
        assert "restart" in message


def test_a_wrong_argument_is_refused_with_the_right_one(docker_stack: Stack, device: str) -> None:
    command = str(uuid4())
    with listening(docker_stack, f"{device}/up/result/#") as heard:
        publish(docker_stack, f"{device}/down/command/restart/{command}", '{"servce":"store"}')
        word = heard.final(command).payload

    assert word["status"] == "rejected"
    assert word["error"]["code"] in {"field.unknown", "field.missing"}
    assert "service" in word["error"]["message"]


def test_ping_echoes(docker_stack: Stack, device: str) -> None:
    row = docker_stack.command(device, "ping", echo="über")

    assert (row["status"], row["final"]) == ("succeeded", True)
    assert row["data"]["echo"] == "über"


def test_inspect_shows_the_engines_own_description_without_the_environment(
    docker_stack: Stack, device: str
) -> None:
    row = docker_stack.command(device, "inspect")

    assert set(row["data"]["services"]) == {"store", "api"}
    assert boxes(device)["store"].id in json.dumps(row["data"]["services"]["store"])
    assert '"Env"' not in json.dumps(row["data"])
    assert list(docker_stack.command(device, "inspect", service="api")["data"]["services"]) == ["api"]


def test_logs_are_what_docker_has(docker_stack: Stack, device: str) -> None:
    row = docker_stack.command(device, "logs", service="store", tail=2)

    box = boxes(device)["store"]
    lines = docker("logs", "--tail", "2", box.id).splitlines()
    assert [line.rpartition("store: ")[2] for line in row["data"]["lines"]] == [
        line.rpartition("store: ")[2] for line in lines
    ]
    assert row["data"]["lines"]


def test_diagnostics_name_agent_host_and_containers(docker_stack: Stack, device: str) -> None:
    data = docker_stack.command(device, "diagnostics")["data"]

    assert data["engine"]["containers"] == {"store": "running", "api": "running"}
    assert data["agent"]["version"]
    assert data["host"]["cpu_count"] >= 1
    assert data["log"]


def test_stop_holds_a_service_until_start(docker_stack: Stack, device: str) -> None:
    assert docker_stack.command(device, "stop", service="store")["status"] == "succeeded"
    assert not boxes(device)["store"].running
    told = until(
        lambda: service_of(docker_stack.status(device), "store")["state"] == "stopped", "the stop reported"
    )
    assert told

    assert docker_stack.command(device, "start", service="store")["status"] == "succeeded"
    assert boxes(device)["store"].running
    assert until(lambda: boxes(device)["store"].well, "the store to be healthy again")


class Events:
    """The event stream of one command, read in the background."""

    def __init__(self, stack: Stack, command: str) -> None:
        at = stack.endpoints
        self._client = httpx.Client(
            base_url=at["api_url"], headers={"Authorization": f"Bearer {at['api_key']}"}, trust_env=False
        )
        self._stream = self._client.stream("GET", "/edge/events", params={"command": command}, timeout=60)
        self.seen: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._answer = self._stream.__enter__()
        assert self._answer.status_code == 200
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        for line in self._lines():
            if line.startswith("data:"):
                self.seen.append(json.loads(line.removeprefix("data:")))
                if self.seen[-1]["kind"] == "result" and self.seen[-1]["data"]["status"] == "succeeded":
                    return

    def _lines(self) -> Iterator[str]:
        try:
            yield from self._answer.iter_lines()
        except httpx.HTTPError:
            return

    def __exit__(self, *_: object) -> None:
        self._reader.join(timeout=30)
        assert not self._reader.is_alive(), f"the followed log did not end: {self.seen}"
        self._stream.__exit__(None, None, None)
        self._client.close()

    def lines(self) -> list[str]:
        return [line for each in self.seen if each["kind"] == "chunk" for line in each["data"]["lines"]]


def test_followed_logs_bring_new_lines_until_they_are_cancelled(docker_stack: Stack, device: str) -> None:
    command = str(uuid4())
    body = {"name": "logs", "arguments": {"service": "api", "follow": True, "tail": 0}, "id": command}
    box = boxes(device)["api"]

    with Events(docker_stack, command) as events:
        docker_stack.post(f"/edge/devices/{device}/commands", body)
        until(
            lambda: docker_stack.get(f"/edge/commands/{command}")["status"] == "started",
            "the logs to be followed",
        )
        docker("exec", box.id, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
        until(lambda: any("store answered" in line for line in events.lines()), "the new line")
        cancelled = docker_stack.command(device, "cancel", id=command)

    assert cancelled["status"] == "succeeded"
    row = docker_stack.get(f"/edge/commands/{command}", params={"wait": 10})
    assert row["status"] == "succeeded"
    assert row["data"]["lost"] == 0
    assert [each["data"]["seq"] for each in events.seen if each["kind"] == "chunk"] == list(
        range(row["data"]["chunks"])
    )
