"""What the agent does next, as tables and as properties."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.deploy.attempts import PAUSES, Attempts, after_run, after_step, run_of
from device.deploy.picture import Observed, Want, want_of
from device.deploy.plan import Standing, plan, survey
from device.deploy.steps import Create, Pull, Remove, Restart, Start, Step, Stop
from device.engine.protocol import Container, ContainerState
from schemas.config import Config, ServiceConfig
from schemas.desired import Condition, Desired, PortMapping, Release, ServiceManifest, TcpCheck
from schemas.reported import Health, PublishedPort, ServiceState

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RELEASE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
CHECK = TcpCheck(type="tcp", port=80)


def service(name: str, **fields: Any) -> ServiceManifest:
    return ServiceManifest(**{"name": name, "image": f"{name}:1", **fields})


def wanted(*services: ServiceManifest, generation: int = 2, **said: Any) -> Want:
    release = Release(name="shop", version="1", services=list(services))
    desired = Desired(generation=generation, release_id=RELEASE, release=release, issued_at=NOON)
    return replace(want_of(desired, Config()), **said)


def container(
    manifest: ServiceManifest, state: ContainerState = ContainerState.RUNNING, **fields: Any
) -> Container:
    facts: dict[str, Any] = {
        "id": f"{manifest.name}-1",
        "name": f"fl-{manifest.name}",
        "service": manifest.name,
        "image": manifest.image,
        "image_id": "sha256:1",
        "fingerprint": manifest.fingerprint,
        "generation": 1,
        "state": state,
        "started_at": NOON,
        "finished_at": NOON if state is ContainerState.EXITED else None,
        "exit_code": 1 if state is ContainerState.EXITED else None,
    }
    return Container(**{**facts, **fields})


def seen(*containers: Container, images: set[str] | None = None, **facts: Any) -> Observed:
    return Observed(tuple(containers), frozenset(images or ()), **facts)


WEB, STORE = service("web"), service("store", health=CHECK)
API = service("api", depends_on={"store": Condition.HEALTHY})
ONCE = service("migrate", restart="on_failure")


def test_an_empty_device_pulls_then_creates_then_starts() -> None:
    want = wanted(WEB)

    assert plan(want, seen(), NOON) == [Pull("web", "web:1")]
    [create] = plan(want, seen(images={"web:1"}), NOON)
    assert isinstance(create, Create)
    assert (create.service, create.spec.generation) == ("web", 2)
    created = container(WEB, ContainerState.CREATED)
    assert plan(want, seen(created), NOON) == [Start("web", "web-1")]


def test_a_container_from_before_with_the_same_fingerprint_is_adopted() -> None:
    assert plan(wanted(WEB), seen(container(WEB)), NOON) == []


def test_a_changed_service_is_stopped_and_removed_first() -> None:
    old = container(service("web", env={"A": "1"}))
    want, images = wanted(WEB), {"web:1"}

    assert plan(want, seen(old, images=images), NOON) == [Stop("web", "web-1", 10)]
    ended = replace(old, state=ContainerState.EXITED)
    assert plan(want, seen(ended, images=images), NOON) == [Remove("web", "web-1")]


def test_a_configuration_makes_another_container() -> None:
    config = Config(services={"web": ServiceConfig(env={"A": "1"})})
    release = Release(name="shop", version="1", services=[WEB])
    desired = Desired(generation=2, release_id=RELEASE, release=release, issued_at=NOON)

    steps = plan(want_of(desired, config), seen(container(WEB), images={"web:1"}), NOON)

    assert steps == [Stop("web", "web-1", 10)]


def test_nothing_is_removed_while_an_image_is_missing() -> None:
    changed = container(service("web", env={"A": "1"}))
    leaving = container(service("old"))

    steps = plan(wanted(WEB, service("new")), seen(changed, leaving, images={"web:1"}), NOON)

    assert steps == [Pull("new", "new:1")]


def test_a_service_waits_for_its_dependency_and_names_it() -> None:
    images = {"api:1", "store:1"}
    running = container(STORE)

    [store, api] = survey(wanted(STORE, API), seen(running, images=images), NOON)

    assert store.state is ServiceState.RUNNING
    assert (api.state, api.step, api.reason) == (ServiceState.WAITING, None, "waits for store to be healthy")
    healthy = seen(running, images=images, health={running.id: Health.HEALTHY})
    assert [type(step) for step in plan(wanted(STORE, API), healthy, NOON)] == [Create]


@pytest.mark.parametrize(
    ("condition", "state", "exit_code", "waits"),
    [
        (Condition.STARTED, ContainerState.CREATED, None, True),
        (Condition.STARTED, ContainerState.RUNNING, None, False),
        (Condition.STARTED, ContainerState.EXITED, 0, False),
        (Condition.STARTED, ContainerState.EXITED, 1, True),
        (Condition.COMPLETED, ContainerState.RUNNING, None, True),
        (Condition.COMPLETED, ContainerState.EXITED, 0, False),
        (Condition.COMPLETED, ContainerState.EXITED, 1, True),
    ],
)
def test_conditions(condition: Condition, state: ContainerState, exit_code: int | None, waits: bool) -> None:  # noqa: FBT001
    dependent = service("web", depends_on={"migrate": condition})
    first = container(ONCE, state, exit_code=exit_code)

    standing = survey(wanted(ONCE, dependent), seen(first, images={"web:1"}), NOON)[1]

    assert (standing.state is ServiceState.WAITING) is waits


def test_a_dependency_that_turns_unhealthy_later_stops_nobody() -> None:
    store, api = container(STORE), container(API)
    observed = seen(
        store, api, health={store.id: Health.UNHEALTHY}, attempts={"store": after_step(Attempts(), NOON)}
    )

    assert plan(wanted(STORE, API), observed, NOON) == []


def test_after_a_reboot_services_come_back_in_order() -> None:
    store, api = container(STORE, ContainerState.EXITED), container(API, ContainerState.EXITED)

    assert plan(wanted(STORE, API), seen(store, api), NOON) == [Start("store", "store-1")]


@pytest.mark.parametrize(
    ("policy", "exit_code", "state"),
    [
        ("always", 0, ServiceState.STARTING),
        ("always", 1, ServiceState.STARTING),
        ("on_failure", 0, ServiceState.COMPLETED),
        ("on_failure", 1, ServiceState.STARTING),
        ("never", 0, ServiceState.COMPLETED),
        ("never", 1, ServiceState.FAILED),
    ],
)
def test_what_follows_an_ending(policy: str, exit_code: int, state: ServiceState) -> None:
    manifest = service("web", restart=policy)
    ended = container(manifest, ContainerState.EXITED, exit_code=exit_code)

    [standing] = survey(wanted(manifest), seen(ended), NOON)

    assert standing.state is state
    assert (standing.step is not None) is (state is ServiceState.STARTING)


def test_a_service_that_was_asked_for_starts_although_it_had_completed() -> None:
    ended = container(ONCE, ContainerState.EXITED, exit_code=0)

    assert plan(wanted(ONCE, asked=frozenset({"migrate"})), seen(ended), NOON) == [
        Start("migrate", "migrate-1")
    ]


def test_a_crashed_service_pauses_and_says_until_when() -> None:
    ended = container(WEB, ContainerState.EXITED)
    attempts = after_run(Attempts(), ended, NOON)

    [standing] = survey(wanted(WEB), seen(ended, attempts={"web": attempts}), NOON)

    assert (standing.state, standing.due) == (ServiceState.BACKING_OFF, NOON + timedelta(seconds=1))
    later = NOON + timedelta(seconds=1)
    assert plan(wanted(WEB), seen(ended, attempts={"web": attempts}), later) == [Start("web", "web-1")]


def test_an_unhealthy_service_is_restarted_after_a_pause_unless_it_never_restarts() -> None:
    manifest = service("web", health=CHECK)
    sick = container(manifest)
    observed = seen(
        sick, health={sick.id: Health.UNHEALTHY}, attempts={"web": after_run(Attempts(), sick, NOON)}
    )

    assert plan(wanted(manifest), observed, NOON) == []
    assert plan(wanted(manifest), observed, NOON + timedelta(seconds=1)) == [Restart("web", "web-1", 10)]
    never = service("web", health=CHECK, restart="never")
    sick = container(never)
    assert plan(wanted(never), seen(sick, health={sick.id: Health.UNHEALTHY}), NOON) == []


def test_a_held_service_is_stopped_and_stays_stopped() -> None:
    want = wanted(WEB, held=frozenset({"web"}))

    assert plan(want, seen(container(WEB)), NOON) == [Stop("web", "web-1", 10)]
    [standing] = survey(want, seen(container(WEB, ContainerState.EXITED)), NOON)
    assert (standing.state, standing.step) == (ServiceState.STOPPED, None)
    assert plan(want, seen(), NOON) == []


def test_what_left_the_release_goes_before_what_comes() -> None:
    old = container(service("old"))
    want, images = wanted(WEB), {"web:1"}

    assert plan(want, seen(old, images=images), NOON) == [Stop("old", "old-1", 10)]
    ended = replace(old, state=ContainerState.EXITED)
    assert plan(want, seen(ended, images=images), NOON) == [Remove("old", "old-1")]
    assert [type(step) for step in plan(want, seen(images=images), NOON)] == [Create]


def test_a_container_of_a_newer_generation_is_left_alone() -> None:
    newer = container(service("other"), generation=9)

    assert plan(wanted(WEB), seen(container(WEB), newer), NOON) == []


def test_a_port_moves_only_after_its_old_holder_is_gone() -> None:
    port = PublishedPort(container=80, host=8080, address="127.0.0.1")
    old_api = container(service("api", ports=[PortMapping(container=80, host=8080)]), ports=(port,))
    web = service("web", ports=[PortMapping(container=80, host=8080)], health=CHECK)
    api = service("api", depends_on={"web": Condition.HEALTHY})

    want, images = wanted(web, api), {"web:1", "api:1"}

    [standing, _] = survey(want, seen(old_api, images=images), NOON)
    assert standing.reason == "waits until the old container of api has given up port 8080"
    assert plan(want, seen(old_api, images=images), NOON) == [Stop("api", "api-1", 10)]


def test_a_changed_service_runs_on_until_its_successor_could_start() -> None:
    old_api = container(service("api"))

    assert plan(wanted(STORE, API), seen(old_api, container(STORE), images={"api:1"}), NOON) == []


def test_a_second_container_of_a_service_is_removed() -> None:
    first, second = container(WEB), container(WEB, ContainerState.EXITED, id="web-2")

    assert plan(wanted(WEB), seen(first, second), NOON) == [Remove("web", "web-2")]


def test_pauses_double_up_to_a_minute() -> None:
    assert [PAUSES.after(n).total_seconds() for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_run_counts_once_and_a_long_one_wipes_out_what_was_before() -> None:
    ended = container(WEB, ContainerState.EXITED)
    once = after_run(Attempts(), ended, NOON)

    assert after_run(once, ended, NOON + timedelta(hours=1)) == once
    assert once.run == run_of(ended)
    many = replace(once, failures=6)
    short = replace(ended, started_at=NOON - timedelta(minutes=1))
    long = replace(ended, started_at=NOON - timedelta(minutes=5))
    assert after_run(many, short, NOON).failures == 7
    assert after_run(many, long, NOON).failures == 1


def test_a_clock_that_was_set_back_delays_no_start() -> None:
    attempts = after_step(Attempts(failures=10), NOON)

    assert attempts.next_start(NOON) == NOON + PAUSES.longest
    assert attempts.next_start(NOON - timedelta(days=400)) is None


# Properties over any release, any state of the device and any commands.

NAMES = ["a", "b", "c", "d", "e"]
PORTS = [8001, 8002]


@st.composite
def releases(draw: st.DrawFn) -> tuple[ServiceManifest, ...]:
    services: list[ServiceManifest] = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5)):
        before = (
            draw(st.lists(st.sampled_from(services), unique_by=lambda each: each.name)) if services else []
        )
        conditions = {
            each.name: draw(
                st.sampled_from(
                    [Condition.STARTED, *([Condition.HEALTHY] if each.health else [])]
                    + ([Condition.COMPLETED] if each.restart != "always" else [])
                )
            )
            for each in before
        }
        port = draw(st.sampled_from([None, *PORTS]))
        taken = {mapping.host for each in services for mapping in each.ports}
        services.append(
            service(
                name,
                image=f"{name}:{draw(st.integers(1, 2))}",
                restart=draw(st.sampled_from(["always", "on_failure"])),
                health=draw(st.sampled_from([None, CHECK])),
                ports=[] if port is None or port in taken else [PortMapping(container=80, host=port)],
                depends_on=conditions,
            )
        )
    return tuple(services)


@st.composite
def devices(draw: st.DrawFn) -> Observed:
    former = draw(releases())
    containers = [
        container(
            each,
            state := draw(st.sampled_from(ContainerState)),
            exit_code=draw(st.sampled_from([0, 1])) if state is ContainerState.EXITED else None,
            ports=_published(each) if state is ContainerState.RUNNING else (),
        )
        for each in former
    ]
    images = draw(st.sets(st.sampled_from([f"{name}:{n}" for name in NAMES for n in (1, 2)])))
    health = {each.id: draw(st.sampled_from(Health)) for each in containers}
    return Observed(tuple(containers), frozenset(images), health)


def _published(manifest: ServiceManifest) -> tuple[PublishedPort, ...]:
    return tuple(
        PublishedPort(container=each.container, host=each.host or 0, address=each.address)
        for each in manifest.ports
    )


def carried_out(step: Step, device: Observed, want: Want) -> Observed:
    """Return the device after *step*: whatever is started becomes healthy, or completes if it is to."""
    others = tuple(each for each in device.containers if not _is_target(each, step))
    target = next((each for each in device.containers if _is_target(each, step)), None)
    match step:
        case Pull():
            return replace(device, images=device.images | {step.image})
        case Create():
            assert target is None, "a second container of a service"
            return replace(device, containers=(*others, container(step.spec.service, ContainerState.CREATED)))
        case Start() | Restart():
            assert target is not None
            manifest = next(each for each in want.services if each.name == step.service)
            held_ports = {port.host for each in others for port in each.ports}
            assert not held_ports & {each.host for each in manifest.ports}, "two services on one port"
            completes = manifest.restart == "on_failure"
            state = ContainerState.EXITED if completes else ContainerState.RUNNING
            now = container(
                manifest,
                state,
                exit_code=0 if completes else None,
                ports=() if completes else _published(manifest),
            )
            health = {**device.health, now.id: Health.HEALTHY}
            return replace(device, containers=(*others, now), health=health)
        case Stop():
            assert target is not None
            ended = replace(target, state=ContainerState.EXITED, exit_code=143, ports=())
            return replace(device, containers=(*others, ended))
        case Remove():
            assert target is not None
            assert target.state is not ContainerState.RUNNING, "a running container is removed"
            return replace(device, containers=others)


def _stays_unmet(other: Standing, condition: Condition) -> bool:
    """A job that ended is not healthy, one that still runs has not completed: only time could help."""
    match condition:
        case Condition.HEALTHY:
            return other.state is not ServiceState.RUNNING or other.health is not Health.HEALTHY
        case Condition.COMPLETED:
            return other.state in {ServiceState.RUNNING, ServiceState.STARTING}
        case Condition.STARTED:
            return False


def _is_target(each: Container, step: Step) -> bool:
    match step:
        case Pull():
            return False
        case Create():
            return each.service == step.service
        case _:
            return each.id == step.container


@given(releases(), devices(), st.randoms(use_true_random=False))
def test_carrying_out_any_step_of_plan_after_plan_ends_with_nothing_to_do(
    services: tuple[ServiceManifest, ...], device: Observed, random: Any
) -> None:
    want = wanted(*services)
    steps = plan(want, device, NOON)
    for _ in range(60):
        if not steps:
            break
        device = carried_out(random.choice(steps), device, want)
        steps = plan(want, device, NOON)

    assert steps == []
    standings = {each.service: each for each in survey(want, device, NOON)}
    states = {name: each.state for name, each in standings.items()}
    waiting = {name for name, state in states.items() if state is ServiceState.WAITING}
    stuck = {
        each.name
        for each in services
        if any(_stays_unmet(standings[name], condition) for name, condition in each.depends_on.items())
    }
    assert not waiting or waiting & stuck
    assert {each.service for each in device.containers} >= set(states) - waiting
    if not waiting:
        assert {each.service for each in device.containers} == set(states)


@given(releases(), devices())
def test_every_pull_comes_before_any_removal(services: tuple[ServiceManifest, ...], device: Observed) -> None:
    steps = plan(wanted(*services), device, NOON)

    if any(isinstance(step, Pull) for step in steps):
        assert not any(isinstance(step, Stop | Remove) for step in steps)


@given(releases(), devices(), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_reserved_services_are_left_alone_and_held_ones_only_stopped(
    services: tuple[ServiceManifest, ...], device: Observed, held: set[str], reserved: set[str]
) -> None:
    names = {each.name for each in services}
    steps = plan(wanted(*services, held=frozenset(held), reserved=frozenset(reserved)), device, NOON)

    assert not {step.service for step in steps} & reserved
    assert all(isinstance(step, Stop) for step in steps if step.service in held & names)


@given(releases(), devices())
def test_a_plan_has_one_step_for_a_service_at_most(
    services: tuple[ServiceManifest, ...], device: Observed
) -> None:
    steps = plan(wanted(*services), device, NOON)

    assert len({step.service for step in steps}) == len(steps)


@given(releases(), devices())
def test_planning_twice_gives_the_same_plan(services: tuple[ServiceManifest, ...], device: Observed) -> None:
    assert plan(wanted(*services), device, NOON) == plan(wanted(*services), device, NOON)
