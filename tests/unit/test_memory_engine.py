"""What the memory engine adds to the contract: behaviours, a clock, and knobs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from device.engine.behaviour import Behaviour
from device.engine.memory import MemoryEngine
from device.engine.protocol import (
    Container,
    ContainerSpec,
    ContainerState,
    Engine,
    EngineEvent,
    EngineEventKind,
    EngineRefused,
    EngineUnreachable,
    ImageNotFound,
)
from schemas.desired import ExecCheck, ServiceManifest, TcpCheck
from schemas.errors import ErrorCode
from schemas.reported import Health

DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
CHECK = ExecCheck(type="exec", command=["true"], interval=1, retries=3)


class Clock:
    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time

    def turn(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


async def started(engine: Engine, image: str = "shop/web:1", name: str = "web") -> str:
    await engine.pull(image)
    manifest = ServiceManifest(name=name, image=image, health=CHECK)
    container = await engine.create(ContainerSpec(manifest, generation=1, release_id=DEVICE))
    await engine.start(container)
    return container


async def only(engine: Engine) -> Container:
    [container] = await engine.containers()
    return container


async def next_of(events: AsyncIterator[EngineEvent], kind: EngineEventKind) -> EngineEvent:
    async with asyncio.timeout(5):
        async for event in events:
            if event.kind is kind:
                return event
    raise AssertionError("the events ended")


async def test_an_unknown_image_is_pulled_starts_and_is_healthy_at_once() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())

    await started(engine)

    seen = await only(engine)
    assert (seen.state, seen.health) == (ContainerState.RUNNING, Health.HEALTHY)


async def test_health_follows_the_clock() -> None:
    clock = Clock()
    engine = MemoryEngine(
        DEVICE, now=clock, behaviours={"a:1": Behaviour(healthy_after=2, unhealthy_after=5)}
    )
    await started(engine, "a:1")

    seen = []
    for _ in range(6):
        seen.append((await only(engine)).health)
        clock.turn(1)

    assert seen == [Health.STARTING] * 2 + [Health.HEALTHY] * 3 + [Health.UNHEALTHY]


async def test_what_never_becomes_healthy_is_unhealthy_after_its_retries() -> None:
    clock = Clock()
    engine = MemoryEngine(DEVICE, now=clock)
    await started(engine, "any/never-healthy:1")

    clock.turn(2.9)
    early = (await only(engine)).health
    clock.turn(0.1)

    assert (early, (await only(engine)).health) == (Health.STARTING, Health.UNHEALTHY)


async def test_a_container_ends_when_its_time_has_come_and_says_so() -> None:
    clock = Clock()
    engine = MemoryEngine(DEVICE, now=clock, behaviours={"a:1": Behaviour(exits_after=3, exit_code=7)})
    events = engine.events()
    waiting = asyncio.ensure_future(next_of(events, EngineEventKind.DIED))
    await asyncio.sleep(0)
    await started(engine, "a:1")

    clock.turn(10)
    engine.world.settle()

    assert (await waiting).exit_code == 7
    seen = await only(engine)
    assert (seen.state, seen.exit_code) == (ContainerState.EXITED, 7)
    assert seen.finished_at == NOON + timedelta(seconds=3)


async def test_it_can_crash_a_number_of_times_and_then_stay() -> None:
    clock = Clock()
    engine = MemoryEngine(DEVICE, now=clock)
    container = await started(engine, "any/crashes-twice:1")

    states = []
    for _ in range(3):
        clock.turn(2)
        states.append((await only(engine)).state)
        await engine.start(container)

    assert states == [ContainerState.EXITED, ContainerState.EXITED, ContainerState.RUNNING]


async def test_what_does_not_stop_in_time_is_killed() -> None:
    clock = Clock()
    engine = MemoryEngine(DEVICE, now=clock, behaviours={"a:1": Behaviour(stop_takes=30)})
    container = await started(engine, "a:1")

    stopping = asyncio.ensure_future(engine.stop(container, grace=10))
    await asyncio.sleep(0)
    clock.turn(10)
    engine.world.settle()
    await stopping

    assert (await only(engine)).exit_code == 137


async def test_an_image_can_be_missing_from_every_registry() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())

    with pytest.raises(ImageNotFound):
        await engine.pull("any/not-found:1")


async def test_an_engine_that_is_down_cuts_off_readers_and_keeps_its_containers() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())
    await started(engine)
    events = engine.events()
    waiting = asyncio.ensure_future(next_of(events, EngineEventKind.REMOVED))
    await asyncio.sleep(0)

    engine.world.go_down()

    with pytest.raises(EngineUnreachable):
        await waiting
    with pytest.raises(EngineUnreachable):
        await engine.containers()
    engine.world.come_up()
    assert (await only(engine)).state is ContainerState.RUNNING


async def test_a_hanging_engine_answers_once_it_is_well_again() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())
    engine.world.hang()
    waiting = asyncio.ensure_future(engine.containers())
    await asyncio.sleep(0.01)
    assert not waiting.done()

    engine.world.come_up()

    assert await waiting == []


async def test_one_call_can_be_made_to_fail() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())
    container = await started(engine)
    await engine.stop(container, grace=0)
    engine.world.fail_next("start", ErrorCode.PORT_IN_USE)

    with pytest.raises(EngineRefused, match=r"port\.in_use"):
        await engine.start(container)

    await engine.start(container)


async def test_what_is_removed_behind_the_agents_back_is_gone_and_told() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())
    await started(engine)
    events = engine.events()
    waiting = asyncio.ensure_future(next_of(events, EngineEventKind.REMOVED))
    await asyncio.sleep(0)

    engine.world.take_away("web")

    assert (await waiting).service == "web"
    assert await engine.containers() == []


async def test_probes_find_what_the_behaviour_says() -> None:
    clock = Clock()
    engine = MemoryEngine(DEVICE, now=clock, behaviours={"a:1": Behaviour(healthy_after=1)})
    container = await started(engine, "a:1")
    check = TcpCheck(type="tcp", port=80)

    before = await engine.probe(container, check)
    clock.turn(1)
    after = await engine.probe(container, check)

    assert (before.passed, after.passed) == (False, True)


async def test_a_follower_beside_a_reader_of_events_gets_each_line_once() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())
    container = await started(engine)

    async def read_lines() -> list[str]:
        return [line async for line in engine.follow(container, tail=10)]

    reading = asyncio.ensure_future(next_of(engine.events(), EngineEventKind.DIED))
    following = asyncio.ensure_future(read_lines())
    await asyncio.sleep(0.01)

    engine.world.say("web", "hello")
    await asyncio.sleep(0.01)
    engine.world.say("web", "again")
    engine.world.kill("web")

    assert await following == ["hello", "again"]
    assert (await reading).exit_code == 137


async def test_a_run_is_remembered_in_order() -> None:
    engine = MemoryEngine(DEVICE, now=Clock())

    await started(engine)

    assert list(engine.world.actions) == [("pull", "shop/web:1"), ("create", "web"), ("start", "web")]
