"""The loop on the memory engine."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from device.deploy.course import Bounds
from device.deploy.reports import KeeperState
from device.engine.behaviour import Behaviour
from device.journal import Journal
from schemas.config import Config, ServiceConfig
from schemas.desired import Condition, TcpCheck
from schemas.errors import ErrorCode, Problem
from schemas.reported import EventKind, Health, Outcome, Phase, ServiceState
from tests.servers.machine import PAUSES, InMemory, in_memory, now, service

CHECK = TcpCheck(type="tcp", port=80, interval=0.5, retries=1)
STORE = service("store", health=CHECK)
API = service("api", depends_on={"store": Condition.HEALTHY})


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[InMemory]:
    async with in_memory(tmp_path) as ready:
        yield ready


async def test_a_release_comes_up_in_dependency_order_and_is_committed(machine: InMemory) -> None:
    machine.engine.world.behave("shop/store:1", Behaviour(healthy_after=0.3))
    store = service("store", "shop/store:1", health=CHECK)
    async with machine.agent():
        await machine.deploy(API, store)
        await machine.until(
            lambda: bool(machine.state().services) and machine.report("store").health is Health.STARTING
        )
        assert machine.report("api").state is ServiceState.WAITING
        error = machine.report("api").error
        assert error is not None
        assert error.message == "api waits for store to be healthy"
        await machine.ended(Outcome.COMMITTED)

    assert machine.did("create", "start") == [
        ("create", "store"),
        ("start", "store"),
        ("create", "api"),
        ("start", "api"),
    ]
    state = machine.state()
    assert (state.generation, state.committed_generation, state.phase) == (1, 1, Phase.DONE)
    assert [each.well for each in state.services] == [True, True]
    assert machine.told(EventKind.SERVICE_STARTED) == ["store", "api"]
    assert machine.told(EventKind.GENERATION_ACCEPTED) == machine.told(EventKind.GENERATION_ENDED) == [None]
    phases = [each.phase for each in machine.states]
    assert sorted(set(phases), key=phases.index) == [
        Phase.STAGING,
        Phase.SWITCHING,
        Phase.SOAKING,
        Phase.DONE,
    ]


async def test_all_images_are_pulled_before_anything_is_made(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(service("a", "shop/a:1"), service("b", "shop/b:1"))
        await machine.ended(Outcome.COMMITTED)

    kinds = [kind for kind, _ in machine.engine.world.actions]
    assert kinds[:2] == ["pull", "pull"]
    assert "pull" not in kinds[2:]


async def test_the_same_release_again_is_no_change(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(STORE, API)
        await machine.ended(Outcome.COMMITTED)
        before = list(machine.engine.world.actions)
        await machine.deploy(STORE, API)
        await machine.ended(Outcome.NO_CHANGE)

    assert list(machine.engine.world.actions) == before
    assert machine.state().committed_generation == 2


async def test_a_new_generation_removes_and_changes_only_what_changed(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(STORE, service("web"), service("old"))
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.actions.clear()
        await machine.deploy(STORE, service("web", env={"A": "1"}))
        await machine.ended(Outcome.COMMITTED)

    assert {name for _, name in machine.did("create", "start", "stop", "remove")} == {"web", "old"}
    assert sorted(box.service for box in machine.engine.world.boxes.values()) == ["store", "web"]
    assert machine.told(EventKind.SERVICE_DIED) == []
    assert machine.told(EventKind.DRIFT_REPAIRED) == []


async def test_a_container_taken_away_is_back_and_told_of(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(STORE, API)
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.take_away("store")
        await machine.until(lambda: machine.told(EventKind.DRIFT_REPAIRED) == ["store"])
        await machine.until(lambda: machine.report("store").well)

    assert machine.did("create") == [("create", "store"), ("create", "api"), ("create", "store")]
    assert (machine.state().phase, machine.state().outcome) == (Phase.DONE, Outcome.COMMITTED)


async def test_a_crashing_service_is_restarted_with_growing_pauses(machine: InMemory) -> None:
    machine.engine.world.behave("shop/crash:1", Behaviour(exits_after=0.05, exit_code=3))
    async with machine.agent():
        await machine.deploy(service("web", "shop/crash:1"))
        began = asyncio.get_running_loop().time()
        await machine.until(lambda: len(machine.did("start")) == 3)
        took = asyncio.get_running_loop().time() - began
        await machine.until(lambda: machine.report("web").state is ServiceState.BACKING_OFF)

    assert took >= 0.3
    report = machine.report("web")
    assert (report.exit_code, report.restarts) == (3, 2)
    assert report.error is not None
    assert (report.error.code, report.error.message) == ("service.exited", "web ended with exit code 3")
    assert machine.told(EventKind.SERVICE_DIED)[0] == "web"


async def test_a_release_that_never_gets_well_ends_as_not_rolled_back_and_says_why(machine: InMemory) -> None:
    machine.bounds = Bounds(timedelta(seconds=0.2), timedelta(seconds=0.5), PAUSES)
    machine.engine.world.behave(
        "shop/crash:1", Behaviour(exits_after=0.05, exit_code=3, lines=("cannot open /data",))
    )
    async with machine.agent():
        await machine.deploy(STORE, service("web", "shop/crash:1"))
        await machine.ended(Outcome.NOT_ROLLED_BACK)
        [problem] = machine.state().problems
        await machine.until(lambda: len(machine.did("start")) >= 3)

    assert problem.element == "web"
    assert problem.phase in {"switching", "soaking"}  # it is up for a moment again and again
    assert "exit code 3" in problem.message
    assert "cannot open /data" in problem.message
    assert machine.state().committed_generation == 0


async def test_an_image_that_cannot_be_had_leaves_the_old_release_running(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(service("web"))
        await machine.ended(Outcome.COMMITTED)
        first = machine.state().release_id
        machine.engine.world.actions.clear()
        await machine.deploy(service("web", "shop/not-found:2"), service("more"))
        await machine.ended(Outcome.FAILED_NO_STATE_CHANGE)
        machine.engine.world.kill("web")
        await machine.until(lambda: len(machine.did("start")) == 1)
        await machine.until(lambda: machine.report("web").well)

    state = machine.state()
    [problem] = state.problems
    assert (problem.code, problem.phase, problem.element) == (
        "image.not_found",
        "staging",
        "shop/not-found:2",
    )
    assert (state.generation, state.committed_generation, state.release_id) == (2, 1, first)
    assert [each.image for each in state.services] == ["shop/app:1"]


async def test_a_first_release_whose_image_cannot_be_had_reports_each_service_as_failed(
    machine: InMemory,
) -> None:
    async with machine.agent():
        await machine.deploy(service("web", "shop/not-found:1"))
        await machine.ended(Outcome.FAILED_NO_STATE_CHANGE)
        await machine.until(lambda: machine.report("web").state is ServiceState.FAILED)

    error = machine.report("web").error
    assert error is not None
    assert error.code == "image.not_found"
    assert not machine.engine.world.boxes


async def test_a_pull_that_may_be_tried_again_is(machine: InMemory) -> None:
    machine.engine.world.fail_next("pull", ErrorCode.ENGINE_UNREACHABLE)
    async with machine.agent():
        await machine.deploy(service("web"))
        await machine.until(
            lambda: [each.code for each in machine.state().problems] == ["engine.unreachable"]
        )
        await machine.ended(Outcome.COMMITTED)
        await machine.until(lambda: machine.state().problems == ())


async def test_what_runs_is_kept_alive_during_a_long_pull(machine: InMemory) -> None:
    machine.engine.world.behave("shop/big:1", Behaviour(pull_takes=30))
    async with machine.agent():
        await machine.deploy(service("web"))
        await machine.ended(Outcome.COMMITTED)
        await machine.deploy(service("web", "shop/big:1"))
        await machine.until(lambda: machine.state().phase is Phase.STAGING)
        machine.engine.world.take_away("web")
        await machine.until(lambda: len(machine.did("start")) == 2)

        assert machine.state().phase is Phase.STAGING
        assert machine.report("web").image == "shop/app:1"


async def test_a_newer_generation_replaces_one_that_is_being_staged(machine: InMemory) -> None:
    machine.engine.world.behave("shop/big:1", Behaviour(pull_takes=30))
    async with machine.agent():
        await machine.deploy(service("web", "shop/big:1"))
        await machine.until(lambda: machine.state().phase is Phase.STAGING)
        await machine.deploy(service("web"))
        await machine.ended(Outcome.COMMITTED)

    assert [each.image for each in machine.state().services] == ["shop/app:1"]


async def test_a_slow_stop_of_one_service_holds_up_no_other(machine: InMemory) -> None:
    machine.engine.world.behave("shop/slow:1", Behaviour(stop_takes=30))
    async with machine.agent():
        await machine.deploy(service("slow", "shop/slow:1", stop_grace=60), service("web"))
        await machine.ended(Outcome.COMMITTED)
        await machine.journal.hold("slow")
        machine.keeper.wake() if machine.keeper else None
        await machine.until(lambda: ("stop", "slow") in machine.engine.world.actions)
        machine.engine.world.take_away("web")
        await machine.until(lambda: len(machine.did("create")) == 3)

    assert machine.did("create")[-1] == ("create", "web")


async def test_a_held_service_stays_stopped_until_it_is_let_go(machine: InMemory) -> None:
    job = service("job", restart="on_failure")
    async with machine.agent() as keeper:
        await machine.deploy(job)
        await machine.ended(Outcome.COMMITTED)
        await machine.journal.hold("job")
        keeper.wake()
        await machine.until(lambda: machine.report("job").state is ServiceState.STOPPED)
        await asyncio.sleep(0.1)
        assert machine.report("job").state is ServiceState.STOPPED
        await machine.journal.unhold("job")
        keeper.wake()
        await machine.until(lambda: machine.report("job").well)

    assert len(machine.did("start")) == 2
    assert machine.told(EventKind.SERVICE_DIED) == []


async def test_a_reserved_service_is_left_alone_until_it_is_let_go(machine: InMemory) -> None:
    async with machine.agent() as keeper:
        await machine.deploy(service("web"), service("other"))
        await machine.ended(Outcome.COMMITTED)
        async with keeper.reserve("web"):
            machine.engine.world.take_away("web")
            machine.engine.world.take_away("other")
            await machine.until(lambda: len(machine.did("create")) == 3)
            await asyncio.sleep(0.1)
            assert machine.did("create")[2:] == [("create", "other")]
        await machine.until(lambda: len(machine.did("create")) == 4)


async def test_a_restart_by_a_command_is_neither_a_death_nor_a_failure(machine: InMemory) -> None:
    async with machine.agent() as keeper:
        await machine.deploy(service("web"))
        await machine.ended(Outcome.COMMITTED)
        [box] = machine.engine.world.boxes.values()
        async with keeper.reserve("web"):
            await machine.engine.stop(box.id, grace=1)
            keeper.wake()
            await asyncio.sleep(0.1)
            await machine.engine.start(box.id)
        await machine.until(lambda: machine.told(EventKind.SERVICE_STARTED) == ["web", "web"])

    assert len(machine.did("start")) == 2
    assert machine.told(EventKind.SERVICE_DIED) == []


async def test_reserving_waits_for_the_step_in_hand(machine: InMemory) -> None:
    machine.engine.world.behave("shop/slow:1", Behaviour(start_takes=0.3))
    async with machine.agent() as keeper:
        await machine.deploy(service("web", "shop/slow:1"))
        await machine.until(lambda: ("create", "web") in machine.engine.world.actions)
        async with keeper.reserve("web"):
            begun = len(machine.did("start"))
            await asyncio.sleep(0.4)
            assert len(machine.did("start")) == begun
        await machine.ended(Outcome.COMMITTED)


async def test_an_unhealthy_service_is_told_of_and_restarted(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(STORE)
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.force_health("store", Health.UNHEALTHY)
        await machine.until(lambda: machine.report("store").health is Health.UNHEALTHY)
        machine.engine.world.force_health("store", None)
        machine.engine.world.behave("shop/app:1", Behaviour())
        await machine.until(lambda: machine.report("store").well)

    assert machine.told(EventKind.SERVICE_UNHEALTHY) == ["store"]


async def test_a_service_that_stays_unhealthy_is_restarted(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(STORE)
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.force_health("store", Health.UNHEALTHY)
        await machine.until(lambda: len(machine.did("start")) == 2)

    assert machine.did("stop") == [("stop", "store")]
    assert machine.told(EventKind.SERVICE_DIED) == []


async def test_an_engine_that_is_down_is_reported_and_states_stay_as_last_observed(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(service("web"))
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.go_down()
        await machine.until(
            lambda: [each.code for each in machine.state().problems] == ["engine.unreachable"]
        )
        assert machine.report("web").well
        machine.engine.world.come_up()
        machine.engine.world.take_away("web")
        await machine.until(lambda: machine.state().problems == () and len(machine.did("start")) == 2)


async def test_a_configuration_makes_new_containers_only_where_it_changes_something(
    machine: InMemory,
) -> None:
    async with machine.agent() as keeper:
        await machine.deploy(STORE, service("web"))
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.actions.clear()
        services = {"web": ServiceConfig(env={"A": "1"})}
        await machine.journal.accept_config(Config(version=2, services=services), now())
        keeper.wake()
        await machine.until(lambda: len(machine.did("start")) == 1)

    assert [name for _, name in machine.did("stop", "remove", "create", "start")] == ["web"] * 4
    assert machine.told(EventKind.DRIFT_REPAIRED) == []


async def test_after_a_reboot_services_come_back_in_order(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(STORE, API)
        await machine.ended(Outcome.COMMITTED)
    machine.engine.world.kill("store")
    machine.engine.world.kill("api")
    machine.engine.world.actions.clear()

    async with machine.agent():
        await machine.until(machine.well)

    assert machine.did("start", "create") == [("start", "store"), ("start", "api")]
    assert (machine.state().phase, machine.state().outcome) == (Phase.DONE, Outcome.COMMITTED)


async def test_a_step_that_fails_is_reported_with_its_class_and_tried_again(machine: InMemory) -> None:
    machine.engine.world.fail_next("start", ErrorCode.PORT_IN_USE)
    problems: list[Problem] = []
    async with machine.agent():
        await machine.deploy(service("web"))
        await machine.until(
            lambda: bool(machine.state().services) and machine.report("web").error is not None
        )
        problems.extend(each for each in [machine.report("web").error] if each is not None)
        await machine.ended(Outcome.COMMITTED)

    [problem] = problems
    assert (problem.code, problem.failure_class, problem.element) == ("port.in_use", "resource", "web")
    assert machine.report("web").error is None


async def test_nothing_is_removed_before_the_first_order(machine: InMemory) -> None:
    async with machine.agent():
        await machine.deploy(service("web"))
        await machine.ended(Outcome.COMMITTED)
    stranger = InMemory(
        machine.engine, await Journal.open(machine.journal.database.path.parent / "b.db", now=now())
    )

    async with stranger.agent() as keeper:
        keeper.wake()
        await asyncio.sleep(0.2)
        assert keeper.state() == KeeperState()
    await stranger.journal.close()

    assert len(machine.engine.world.boxes) == 1


async def test_a_failure_is_forgotten_with_its_service(machine: InMemory) -> None:
    machine.engine.world.behave("shop/bad:1", Behaviour(create_fails=ErrorCode.ENGINE_REFUSED))
    async with machine.agent():
        await machine.deploy(STORE, service("web", "shop/bad:1"))
        await machine.until(lambda: len(machine.state().services) == 2)
        await machine.until(lambda: machine.report("web").error is not None)
        await machine.deploy(STORE)
        await machine.ended(Outcome.NO_CHANGE)
        await machine.until(lambda: machine.state().problems == ())


@pytest.mark.parametrize("jump", [timedelta(days=90), -timedelta(days=400)])
async def test_a_clock_that_is_set_during_a_switch_decides_nothing(
    machine: InMemory, jump: timedelta
) -> None:
    machine.engine.world.behave("shop/store:1", Behaviour(healthy_after=1.0))
    async with machine.agent() as keeper:
        await machine.deploy(service("store", "shop/store:1", health=CHECK.model_copy(update={"retries": 9})))
        await machine.until(lambda: machine.state().phase is Phase.SWITCHING)
        await machine.until(
            lambda: bool(machine.state().services) and machine.report("store").health is Health.STARTING
        )
        machine.clock = lambda: now() + jump
        keeper.wake()
        await machine.ended(Outcome.COMMITTED)


async def test_a_loop_that_failed_and_runs_anew_goes_on_probing_and_fetching(machine: InMemory) -> None:
    machine.engine.world.behave("shop/slow:1", Behaviour(pull_takes=0.5))
    async with machine.agent() as keeper:
        await machine.deploy(STORE)
        await machine.ended(Outcome.COMMITTED)
        await machine.deploy(STORE, service("slow", "shop/slow:1"))
        await machine.until(lambda: machine.state().phase is Phase.STAGING)

    async with asyncio.TaskGroup() as group:
        again = group.create_task(keeper.run())
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.force_health("store", Health.UNHEALTHY)
        await machine.until(lambda: machine.told(EventKind.SERVICE_UNHEALTHY) == ["store"])
        again.cancel()


async def test_an_agent_killed_while_it_restarts_an_ill_service_starts_it_though_it_ended_well(
    machine: InMemory,
) -> None:
    machine.engine.world.behave("shop/slow:1", Behaviour(stop_takes=0.5))
    async with machine.agent():
        await machine.deploy(service("web", "shop/slow:1", health=CHECK, restart="on_failure"))
        await machine.ended(Outcome.COMMITTED)
        machine.engine.world.force_health("web", Health.UNHEALTHY)
        await machine.until(lambda: machine.did("stop") == [("stop", "web")])
    machine.engine.world.force_health("web", None)
    machine.engine.world.kill("web", exit_code=0)

    async with machine.agent():
        await machine.until(machine.well)

    assert len(machine.did("start")) == 2
    assert machine.report("web").state is ServiceState.RUNNING
