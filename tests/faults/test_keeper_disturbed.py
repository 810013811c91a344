"""Whatever happens to containers, engine and agent, the device converges to what was last ordered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from device.engine.behaviour import Behaviour
from schemas.desired import Condition, ServiceManifest, TcpCheck
from schemas.errors import ErrorCode
from schemas.reported import Outcome, Phase
from tests.servers.machine import InMemory, in_memory, service

CHECK = TcpCheck(type="tcp", port=80, interval=0.5, retries=2)
ROUNDS = 25


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[InMemory]:
    async with in_memory(tmp_path) as ready:
        yield ready


def a_release(random: Random) -> list[ServiceManifest]:
    store = service("store", f"shop/store:{random.randint(1, 2)}", health=CHECK)
    others = [
        service(name, env={"V": str(random.randint(1, 2))}, depends_on={"store": Condition.HEALTHY})
        for name in ("api", "web", "jobs")
        if random.random() < 0.7
    ]
    return [*others, store]


async def disturb(machine: InMemory, random: Random) -> None:
    world = machine.engine.world
    some = [box.id for box in world.boxes.values()]
    match random.randrange(8):
        case 0 if some:
            world.take_away(random.choice(some))
        case 1 | 2 if some:
            world.kill(random.choice(some))
        case 3:
            world.fail_next(random.choice(["start", "create", "stop", "remove", "containers"]), *ERRORS)
        case 4:
            world.go_down()
            await asyncio.sleep(random.random() / 20)
            world.come_up()
        case 5:
            await machine.deploy(*a_release(random))
        case 6:
            await machine.journal.hold(random.choice(["store", "web"]))
        case _:
            await machine.journal.unhold(random.choice(["store", "web"]))
    await asyncio.sleep(random.random() / 20)


ERRORS = (ErrorCode.ENGINE_UNREACHABLE, ErrorCode.ENGINE_REFUSED)


@pytest.mark.parametrize("seed", range(5))
async def test_the_device_converges_to_the_last_order(machine: InMemory, seed: int) -> None:
    random = Random(seed)
    machine.engine.world.behave(
        "shop/store:2", Behaviour(healthy_after=0.1, start_takes=0.02, stop_takes=0.02)
    )
    await machine.deploy(*a_release(random))
    for _ in range(4):
        async with machine.agent():
            for _ in range(ROUNDS // 4):
                await disturb(machine, random)
    last = a_release(random)
    machine.engine.world.come_up()
    async with machine.agent():
        await machine.deploy(*last)
        await machine.until(lambda: machine.state().phase is Phase.DONE and machine.well(), 30)

        assert machine.state().generation == machine.generation
        assert machine.state().outcome in {Outcome.COMMITTED, Outcome.NO_CHANGE}
    runs = sorted((box.service, box.spec.service.fingerprint) for box in machine.engine.world.boxes.values())
    assert runs == sorted((each.name, each.fingerprint) for each in last)
