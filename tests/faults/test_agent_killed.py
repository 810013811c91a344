"""The agent is killed with -9 during a restart command: one restart happens, and the command is answered."""

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.servers.boxes import Happening, boxes, count, history, starts_in_volume, watching
from tests.servers.mqtt_tools import listening
from tests.servers.shop import counting, release, settle
from tests.servers.stack import Stack, until

STOP_TAKES = 1.0
ROUNDS = 3
"""Random kills of each of the two agents."""


@pytest.fixture
def slow(docker_stack: Stack, demo_image: str) -> Stack:
    for device in docker_stack.devices:
        settle(docker_stack, device, release("slow", counting(demo_image, "slow", STOP_TAKES)))
    until(lambda: all(map(starts, docker_stack.devices)), "the first starts")
    return docker_stack


def starts(device: str) -> int:
    return starts_in_volume(boxes(device)["slow"])


def order_restart(stack: Stack, device: str) -> str:
    command = str(uuid4())
    order = {"name": "restart", "arguments": {"service": "slow"}, "id": command, "timeout": 60}
    stack.post(f"/edge/devices/{device}/commands", order)
    return command


def kill_agent(stack: Stack, device: str) -> None:
    os.kill(stack.pid(f"gateway-{stack.devices.index(device) + 1:02d}"), signal.SIGKILL)


def answer(stack: Stack, command: str) -> dict[str, Any]:
    row: dict[str, Any] = stack.get(f"/edge/commands/{command}", params={"wait": 50})
    return row


def assert_restarted_once(device: str, began: float, before: int) -> None:
    happened = history(device, began)
    assert (count(happened, "die", "slow"), count(happened, "start", "slow")) == (1, 1), happened
    assert until(lambda: starts(device) == before + 1, "the start to be counted")


def wait_for(events: Iterator[Happening], action: str) -> None:
    for event in events:
        if (event.action, event.service) == (action, "slow"):
            return


@pytest.mark.parametrize("moment", ["kill", "die", "start"])
def test_one_restart_happens_though_the_agent_dies_just_after(slow: Stack, moment: str) -> None:
    device = slow.devices[0]
    before, began = starts(device), time.time()

    with watching(device) as events:
        command = order_restart(slow, device)
        wait_for(events, moment)
        kill_agent(slow, device)

    row = answer(slow, command)
    assert (row["status"], row["final"]) == ("succeeded", True)
    assert_restarted_once(device, began, before)


def test_one_restart_happens_though_the_agent_dies_as_soon_as_it_accepted(slow: Stack) -> None:
    device = slow.devices[1]
    before, began = starts(device), time.time()

    with listening(slow, f"{device}/up/result/#") as heard:
        command = order_restart(slow, device)
        assert heard.next().payload["status"] == "accepted"
        kill_agent(slow, device)

    row = answer(slow, command)
    assert (row["status"], row["final"]) == ("succeeded", True)
    assert_restarted_once(device, began, before)


def test_one_restart_happens_whenever_the_agent_dies(slow: Stack) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    chance = random.Random(seed)

    def one_round(device: str, delay: float) -> None:
        assert slow.command(device, "ping")["status"] == "succeeded", "not back after the last round"
        before, began = starts(device), time.time()
        command = order_restart(slow, device)
        time.sleep(delay)  # the moment is what the test is about
        kill_agent(slow, device)
        row = answer(slow, command)
        assert (row["status"], row["final"]) == ("succeeded", True), (delay, row)
        assert_restarted_once(device, began, before)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(ROUNDS):
            delays = [chance.uniform(0, STOP_TAKES + 0.6) for _ in slow.devices]
            list(pool.map(one_round, slow.devices, delays))
