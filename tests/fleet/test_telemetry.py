"""Readings of this very machine and of real containers arrive, as often as the configuration says."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psutil
import pytest

from tests.servers.boxes import boxes, count, history
from tests.servers.shop import release, settle, store
from tests.servers.stack import Stack, until
from tests.servers.telemetry import await_all_stored, readings

OFTEN = 1


@pytest.fixture
def device(docker_stack: Stack, demo_image: str) -> Iterator[str]:
    """A device that runs two stores and takes a reading each second."""
    device = docker_stack.devices[0]
    settle(docker_stack, device, release("measured", store(demo_image), store(demo_image, "other")))
    configure(docker_stack, device, agent={"telemetry_interval": OFTEN})
    yield device
    configure(docker_stack, device, agent={"telemetry_interval": None}, services={"store": None})


def configure(stack: Stack, device: str, **changes: Any) -> int:
    """Change the configuration, wait until the device says that it has it; return its version."""
    made = stack.post("/edge/config/update", {"target": {"devices": [device]}, **changes})
    version = int(made["devices"][device])
    until(
        lambda: stack.status(device)["reported"]["config_version"] == version,
        f"configuration {version} to be applied",
    )
    return version


def newest(stack: Stack, device: str, measurement: str, **tags: str) -> dict[str, Any]:
    """Return the newest value of each field."""
    asked = {
        "device": device,
        "measurement": measurement,
        "start": "-1m",
        **{f"tag.{name}": value for name, value in tags.items()},
    }
    series = stack.get("/edge/monitoring/metrics", params=asked)["series"]
    return {each["field"]: each["points"][-1][1] for each in series}


def test_readings_are_those_of_this_machine(docker_stack: Stack, device: str) -> None:
    began = len(readings(docker_stack, device))
    until(lambda: len(readings(docker_stack, device)) > began, "a new reading")

    told = newest(docker_stack, device, "device")

    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(docker_stack.directory))
    assert told["memory_total_bytes"] == memory.total
    assert abs(told["memory_used_bytes"] - memory.used) < memory.total * 0.2
    assert told["disk_total_bytes"] == disk.total
    assert abs(told["disk_percent"] - disk.percent) < 10
    assert 0 <= told["cpu_percent"] <= 100
    assert abs(told["load_1m"] - psutil.getloadavg()[0]) < 5
    assert abs(told["uptime_seconds"] - (time.time() - psutil.boot_time())) < 30
    agent = newest(docker_stack, device, "agent")
    rss = psutil.Process(docker_stack.pid("gateway-01")).memory_info().rss
    assert 0.5 < agent["rss_bytes"] / rss < 2


def test_containers_are_measured(docker_stack: Stack, device: str) -> None:
    until(
        lambda: newest(docker_stack, device, "service", service="other").get("cpu_percent") is not None, "it"
    )

    told = newest(docker_stack, device, "service", service="store")

    assert told["running"] is True
    assert told["health"] == "healthy"
    assert 0 < told["memory_used_bytes"] < 64 * 2**20
    assert told["pids"] >= 2
    assert told["cpu_percent"] >= 0


def test_the_interval_is_what_the_configuration_says(docker_stack: Stack, device: str) -> None:
    since = datetime.now(UTC) - timedelta(seconds=0.2)

    def taken() -> list[datetime]:
        times = [datetime.fromisoformat(each) for each in readings(docker_stack, device)]
        return [each for each in times if each > since]

    times = until(lambda: found if len(found := taken()) >= 4 else None, "four readings", patience=10)

    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert all(OFTEN * 0.5 < gap < OFTEN * 2.5 for gap in gaps), gaps
    assert await_all_stored(docker_stack, device) >= 4


def test_a_services_configuration_makes_only_its_container_anew(docker_stack: Stack, device: str) -> None:
    before, began = boxes(device), time.time()
    version = configure(docker_stack, device, services={"store": {"env": {"COLOUR": "red"}}})

    after = until(
        lambda: (
            (
                found
                if (found := boxes(device))["store"].id != before["store"].id and found["store"].well
                else None
            )
            if "store" in boxes(device)
            else None
        ),
        "the new container",
    )

    assert "COLOUR=red" in after["store"].env
    assert after["other"] == before["other"]
    assert count(history(device, began), "create", "store") == 1
    assert docker_stack.status(device)["ordered"]["config_version"] == version


def test_a_configuration_with_an_unknown_field_or_service_is_refused(
    docker_stack: Stack, device: str
) -> None:
    target = {"devices": [device]}
    path = "/edge/config/update"
    ask = docker_stack.call

    field = ask("POST", path, json={"target": target, "agent": {"telemetry_intervall": 5}})
    service = ask("POST", path, json={"target": target, "services": {"stroe": {"env": {"A": "b"}}}})
    value = ask("POST", path, json={"target": target, "agent": {"telemetry_interval": 0}})

    assert (field.json()["code"], service.json()["code"], value.json()["code"]) == (
        "field.unknown",
        "config.unknown_service",
        "value.out_of_range",
    )
    assert "telemetry_interval" in field.json()["message"]
