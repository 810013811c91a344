"""The agent is killed in every phase and after every step of a switch, and goes on where it was."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device.engine.behaviour import Behaviour
from schemas.reported import Outcome, Phase
from tests.servers.machine import InMemory, in_memory, service


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[InMemory]:
    async with in_memory(tmp_path) as ready:
        yield ready


@pytest.mark.parametrize("phase", [each for each in Phase if each is not Phase.IDLE])
async def test_an_agent_killed_in_any_phase_goes_on_where_it_was(machine: InMemory, phase: Phase) -> None:
    machine.engine.world.behave("shop/new:1", Behaviour(pull_takes=0.1, start_takes=0.1))
    async with machine.agent():
        await machine.deploy(service("web"))
        await machine.ended(Outcome.COMMITTED)
        await machine.deploy(service("web", "shop/new:1"), service("more"))
        await machine.until(lambda: machine.state().phase is phase and machine.state().generation == 2)

    async with machine.agent():
        await machine.ended(Outcome.COMMITTED)

    assert machine.state().committed_generation == 2
    assert [each.image for each in machine.state().services] == ["shop/new:1", "shop/app:1"]
    running = sorted(box.service for box in machine.engine.world.boxes.values())
    assert running == ["more", "web"]


@pytest.mark.parametrize("after", range(8))
async def test_an_agent_killed_after_any_step_goes_on_where_it_was(machine: InMemory, after: int) -> None:
    async with machine.agent():
        await machine.deploy(service("web"), service("old"))
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.actions.clear()
        await machine.deploy(service("web", "shop/new:1"), service("more"))
        await machine.until(lambda: len(machine.engine.world.actions) >= after)

    async with machine.agent():
        await machine.ended(Outcome.COMMITTED)

    assert sorted(box.service for box in machine.engine.world.boxes.values()) == ["more", "web"]
    assert machine.did("stop") == [("stop", "old"), ("stop", "web")] or len(machine.did("stop")) == 2
