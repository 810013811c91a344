"""The agent dies at every step of a restart command: exactly one restart happens, and the answer is final.

The steps are not written down here. A first run counts every call to the
journal and to the engine; then the agent dies before and after each of them,
and in a second round also at each step of its recovery.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest

from device.database import Database
from device.deploy.course import Bounds
from device.deploy.loop import Keeper
from device.engine.memory import MemoryEngine
from device.engine.protocol import Container
from device.journal import Journal
from schemas.commands import CommandStatus
from schemas.reported import Phase, ServiceState
from tests.agent.bench import DEVICE, Bench, IdleKeeper, bench, now, order

T = TypeVar("T")
QUICK = Bounds(soak=timedelta(0), patience=timedelta(seconds=20))
RESTART = b'{"service": "web"}'


class Killed(BaseException):
    """The agent is gone; nothing it would still do is done."""


@dataclass
class Fate:
    """Lets the agent take so many steps and no more."""

    steps: int | None = None
    taken: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        if self.steps is not None and len(self.taken) >= self.steps:
            raise Killed(name)
        self.taken.append(name)


class MortalDatabase:
    """The journal's database, as long as the agent lives."""

    def __init__(self, database: Database, fate: Fate) -> None:
        self._database = database
        self._fate = fate

    async def run(self, work: Callable[[Any], T]) -> T:
        self._fate.step("before the journal")
        result = await self._database.run(work)
        self._fate.step("after the journal")
        return result


class MortalEngine(MemoryEngine):
    """The memory engine, as long as the agent lives."""

    def __init__(self, engine: MemoryEngine, fate: Fate) -> None:
        super().__init__(DEVICE, now=now)
        self.world = engine.world
        self._fate = fate

    async def containers(self) -> list[Container]:
        self._fate.step("before looking")
        found = await super().containers()
        self._fate.step("after looking")
        return found

    async def stop(self, container: str, *, grace: float) -> None:
        self._fate.step("before the stop")
        await super().stop(container, grace=grace)
        self._fate.step("after the stop")

    async def start(self, container: str) -> None:
        self._fate.step("before the start")
        await super().start(container)
        self._fate.step("after the start")


@asynccontextmanager
async def device_with_web(folder: Path) -> AsyncIterator[Bench]:
    """A device whose keeper has brought `web` up."""
    async with bench(folder) as device:
        await device.desire("web")
        async with keeping(device) as keeper, asyncio.timeout(10):
            while keeper.state().phase is not Phase.DONE:  # noqa: ASYNC110 - read, not told
                await asyncio.sleep(0.005)
        yield device


@asynccontextmanager
async def keeping(device: Bench) -> AsyncIterator[Keeper]:
    keeper = new_keeper(device)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.run())
        yield keeper
        task.cancel()


def new_keeper(device: Bench) -> Keeper:
    return Keeper(
        engine=device.memory,
        journal=device.journal,
        now=now,
        bounds=QUICK,
        on_change=lambda _: None,
        on_event=lambda *_: None,
    )


async def live(device: Bench, fate: Fate, command: UUID) -> None:
    """Be an agent that is given the command, until it is answered or *fate* ends it."""
    mortal = replace(
        device,
        journal=Journal(MortalDatabase(device.journal.database, fate), {}),  # type: ignore[arg-type]
        engine=MortalEngine(device.memory, fate),
        keeper=IdleKeeper(),
    )
    with suppress(BaseExceptionGroup, Killed):
        async with mortal.serving() as server:
            await order(server, "restart", RESTART, command=command)
            await mortal.line.answer(command)


async def recover(device: Bench, command: UUID) -> str:
    """Be the next agent, which lives, until the command is answered and the service runs; return the answer.

    Its keeper waits for the commands, and the sender repeats itself.
    """
    keeper = new_keeper(device)
    async with replace(device, keeper=keeper).serving() as server, asyncio.TaskGroup() as group:
        task = group.create_task(keeper.run())
        await order(server, "restart", RESTART, command=command)
        answer = await device.line.answer(command)
        async with asyncio.timeout(10):
            while [each.state for each in keeper.state().services] != [ServiceState.RUNNING]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        task.cancel()
    assert answer.status is CommandStatus.SUCCEEDED
    return answer.detail


async def steps_of_a_restart(folder: Path) -> list[str]:
    fate = Fate()
    async with device_with_web(folder) as device:
        await live(device, fate, uuid4())
    return fate.taken


async def test_the_steps_begin_and_end_where_they_should(tmp_path: Path) -> None:
    steps = await steps_of_a_restart(tmp_path)

    assert steps.index("before the stop") < steps.index("before the start")
    assert steps.index("after the journal") < steps.index("before the stop")
    assert len(steps) >= 16


async def test_an_agent_killed_at_any_step_has_restarted_exactly_once_in_the_end(tmp_path: Path) -> None:
    steps = await steps_of_a_restart(tmp_path / "all")
    answers = set()
    for survived in range(len(steps) + 1):
        async with device_with_web(tmp_path / str(survived)) as device:
            command = uuid4()
            await live(device, Fate(survived), command)
            answers.add(await recover(device, command))

            where = f"killed after {survived} steps, at {steps[survived - 1 : survived + 1]}"
            assert device.starts() == 2, where
            assert device.stops() == 1, where
    assert answers == {"web restarted", "restart took place; confirmed after the agent restarted"}


async def test_an_agent_killed_again_while_it_recovers_has_restarted_exactly_once(tmp_path: Path) -> None:
    steps = await steps_of_a_restart(tmp_path / "all")
    for first in range(0, len(steps), 2):
        for second in range(1, 14, 3):
            async with device_with_web(tmp_path / f"{first}-{second}") as device:
                command = uuid4()
                await live(device, Fate(first), command)
                await live(device, Fate(second), command)
                await recover(device, command)

                assert (device.starts(), device.stops()) == (2, 1), f"killed after {first} and {second} steps"


@pytest.mark.parametrize("deed", ["removed", "restarted"])
async def test_what_others_did_to_the_container_meanwhile_counts_as_the_restart(
    tmp_path: Path, deed: str
) -> None:
    steps = await steps_of_a_restart(tmp_path / "all")
    async with device_with_web(tmp_path / "one") as device:
        command = uuid4()
        await live(device, Fate(steps.index("before the stop")), command)
        container = (await device.memory.containers())[0].id
        if deed == "removed":
            device.memory.world.take_away(container)
        else:
            device.memory.world.kill(container)
            await device.memory.start(container)
        before = device.starts()
        await recover(device, command)

        assert device.starts() == before + (1 if deed == "removed" else 0)
        assert device.stops() == 0
