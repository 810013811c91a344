"""Broker and cloud are killed and paused and lose what they had; no order and no reading is lost."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.servers.mqtt_tools import listening
from tests.servers.shop import release, settle
from tests.servers.stack import Stack, until
from tests.servers.telemetry import await_all_stored, spooled

PRODUCED = 4
"""Batches a device makes while nobody stores them."""


BUSY = release(
    "busy",
    {"name": "web", "image": "shop/web:1"},
    {"name": "mule", "image": "shop/slow-stop:1", "stop_grace": 2},
)


@pytest.fixture
def busy(fragile_stack: Stack) -> Stack:
    """Both devices run something and take a reading each second."""
    for device in fragile_stack.devices:
        settle(fragile_stack, device, BUSY)
    quicken(fragile_stack)
    return fragile_stack


def quicken(stack: Stack) -> None:
    order = {"target": {"devices": stack.devices}, "agent": {"telemetry_interval": 1}}
    versions = stack.post("/edge/config/update", order)["devices"]
    until(
        lambda: all(
            stack.status(device)["reported"]["config_version"] == versions[device] for device in stack.devices
        ),
        "the configuration to be applied",
    )


def until_killed_is_back(stack: Stack, name: str) -> None:
    """Kill the process called *name* and wait until the supervisor has started another one."""
    pid = stack.pid(name)
    os.kill(pid, signal.SIGKILL)
    until(lambda: stack.endpoints["pids"].get(name, pid) != pid, f"{name} to be started again")


def until_online(stack: Stack, sessions: dict[str, int]) -> None:
    """Wait until each device is there in a newer session than before."""
    until(
        lambda: all(
            stack.status(device)["online"] and session > sessions[device]
            for device, session in sessions_of(stack).items()
        ),
        "the devices to be online again",
    )


def sessions_of(stack: Stack) -> dict[str, int]:
    return {device: stack.status(device)["presence"]["session"] for device in stack.devices}


def orders_kept(stack: Stack, device: str) -> dict[str, Any] | None:
    """Return what the broker retains for *device*, once both desired state and configuration are there."""
    with listening(stack, f"{device}/down/desired", f"{device}/down/config", who="cloud") as heard:
        stack.command(device, "ping")  # what is retained comes before the answer
        words = heard.rest()
    kept = {word.topic.rpartition("/")[2]: word.payload for word in words if word.retained}
    return kept if len(kept) == 2 else None


def api_answers(stack: Stack) -> bool:
    try:
        return stack.call("GET", "/health").is_success
    except httpx.TransportError:
        return False


@contextmanager
def paused(stack: Stack, name: str) -> Iterator[None]:
    pid = stack.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_broker_that_loses_its_whole_state_gets_it_back_and_no_sample_is_lost(busy: Stack) -> None:
    sessions = sessions_of(busy)
    state = busy.directory / "broker" / "state"

    pid = busy.pid("broker")
    os.kill(pid, signal.SIGKILL)
    shutil.rmtree(state)
    until(lambda: busy.endpoints["pids"].get("broker", pid) != pid, "the broker to be started again")
    until_online(busy, sessions)

    for device in busy.devices:
        kept = until(partial(orders_kept, busy, device), "the orders to be retained again")
        assert kept["desired"]["release"]["name"] == "busy"
        assert kept["config"]["agent"]["telemetry_interval"] == 1
        assert busy.command(device, "ping")["status"] == "succeeded"
        assert busy.command(device, "restart", service="web")["status"] == "succeeded"
    until((state / "mosquitto.db").exists, "the broker to keep its state on disk")
    for device in busy.devices:
        assert await_all_stored(busy, device) > 0


@pytest.mark.parametrize("part", ["cloud", "broker"])
def test_no_reading_is_lost_while_the_cloud_or_the_broker_hangs(busy: Stack, part: str) -> None:
    before = {device: spooled(busy, device).last for device in busy.devices}

    with paused(busy, part):
        until(
            lambda: all(spooled(busy, device).last >= before[device] + PRODUCED for device in busy.devices),
            "readings to be taken meanwhile",
        )
        assert all(spooled(busy, device).waiting >= PRODUCED - 1 for device in busy.devices)

    for device in busy.devices:
        assert await_all_stored(busy, device) >= before[device] + PRODUCED
        assert busy.command(device, "ping")["status"] == "succeeded"


def test_a_command_and_a_deployment_in_flight_end_though_the_cloud_is_killed(busy: Stack) -> None:
    first, second = busy.devices
    late = {"name": "late", "image": "shop/slow-start:1"}
    slow = release("slow", *BUSY["services"], late, version=uuid4().hex[:8])

    command = str(uuid4())
    order = {"name": "restart", "arguments": {"service": "mule"}, "id": command}
    busy.post(f"/edge/devices/{first}/commands", order)
    made = busy.post("/edge/deploy", {"release": slow, "target": {"devices": [second]}})
    until_killed_is_back(busy, "cloud")
    until(lambda: api_answers(busy), "the API")

    row = busy.get(f"/edge/commands/{command}", params={"wait": 30})
    ended = busy.get(f"/edge/deployments/{made['deployment_id']}", params={"wait": 40})
    assert (row["status"], row["detail"]) == ("succeeded", "mule restarted")
    assert [each["outcome"] for each in ended["devices"]] == ["committed"]
    for device in busy.devices:
        assert await_all_stored(busy, device) > 0


def test_a_command_ordered_while_the_broker_is_away_is_carried_out_once_it_is_back(busy: Stack) -> None:
    device = busy.devices[0]
    pid = busy.pid("broker")
    os.kill(pid, signal.SIGKILL)

    row = busy.command(device, "ping", wait=60, echo="later")

    assert (row["status"], row["data"]["echo"]) == ("succeeded", "later")
