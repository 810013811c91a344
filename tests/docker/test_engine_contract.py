"""What every engine promises (`device/engine/protocol.py`), in memory and on Docker alike."""

from datetime import UTC, datetime
from socket import socket

import pytest

from device.engine.protocol import (
    ContainerSpec,
    ContainerState,
    EngineEventKind,
    EngineRefused,
    ImageNotFound,
    NoSuchContainer,
)
from schemas.desired import HttpCheck, TcpCheck
from schemas.reported import Health
from tests.docker.kits import RELEASE, Kit, Role, eventually

HTTP = HttpCheck(type="http", port=8080, path="/health", timeout=2)
TCP = TcpCheck(type="tcp", port=8080, timeout=2)
STORE_CHECK = {
    "type": "exec",
    "command": ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/health"],
    "interval": 0.5,
    "retries": 2,
}
SICK_CHECK = {"type": "exec", "command": ["false"], "interval": 0.5, "retries": 2}


def free_port() -> int:
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_the_engine_says_what_it_is(kit: Kit) -> None:
    info = await kit.engine.info()

    assert info.name in {"memory", "docker"}
    assert info.version
    assert info.architecture


async def test_a_container_is_created_started_stopped_and_removed(kit: Kit) -> None:
    service = kit.service(Role.STORE)
    before = datetime.now(UTC)

    container = await kit.create(service, generation=7)
    created = await kit.seen(container)
    await kit.engine.start(container)
    running = await kit.seen(container)
    await kit.engine.stop(container, grace=5)
    ended = await kit.seen(container)
    await kit.engine.remove(container)

    assert (created.state, created.started_at, created.exit_code) == (ContainerState.CREATED, None, None)
    assert (created.service, created.generation, created.fingerprint) == ("store", 7, service.fingerprint)
    assert (created.image, created.image_id) == (service.image, await kit.engine.image_id(service.image))
    assert (running.state, running.health, running.exit_code) == (ContainerState.RUNNING, Health.NONE, None)
    assert running.started_at is not None
    assert running.started_at >= before
    assert (ended.state, ended.started_at) == (ContainerState.EXITED, running.started_at)
    assert ended.exit_code is not None
    assert ended.finished_at is not None
    assert ended.finished_at >= running.started_at
    assert await kit.engine.containers() == []


async def test_every_action_may_be_repeated(kit: Kit) -> None:
    container = await kit.run(Role.STORE)
    first = await kit.seen(container)

    await kit.engine.start(container)
    assert await kit.seen(container) == first
    await kit.engine.stop(container, grace=5)
    await kit.engine.stop(container, grace=5)
    await kit.engine.remove(container)
    await kit.engine.remove(container)
    await kit.engine.stop(container, grace=5)

    with pytest.raises(NoSuchContainer):
        await kit.engine.start(container)


async def test_a_second_start_is_a_new_run(kit: Kit) -> None:
    container = await kit.run(Role.SHORT)
    ended = await eventually(lambda: kit.seen(container), lambda seen: seen.exit_code == 3)

    await kit.engine.start(container)

    again = await eventually(
        lambda: kit.seen(container),
        lambda seen: seen.started_at != ended.started_at and seen.exit_code == 3,
    )
    assert again.id == ended.id


async def test_a_new_container_takes_the_place_of_a_stopped_one_but_never_of_a_running_one(kit: Kit) -> None:
    former = await kit.run(Role.STORE)

    with pytest.raises(EngineRefused, match="stop it first"):
        await kit.create(kit.service(Role.STORE), generation=2)
    await kit.engine.stop(former, grace=5)
    latter = await kit.create(kit.service(Role.STORE), generation=2)

    assert [each.id for each in await kit.engine.containers()] == [latter]


async def test_containers_are_listed_oldest_first(kit: Kit) -> None:
    made = [await kit.create(kit.service(Role.STORE, name)) for name in ("c", "b", "a")]

    listed = [each.id for each in await kit.engine.containers()]

    assert sorted(listed) == sorted(made)


async def test_a_missing_image_is_said_to_be_missing(kit: Kit) -> None:
    service = kit.service(Role.STORE).model_copy(update={"image": kit.missing_image})

    assert await kit.engine.image_id(kit.missing_image) is None
    with pytest.raises(ImageNotFound):
        await kit.create(service)
    with pytest.raises(ImageNotFound, match="not-found"):
        await kit.engine.pull(kit.missing_image)


async def test_an_exec_check_that_passes_makes_it_healthy(kit: Kit) -> None:
    container = await kit.run(Role.STORE, health=STORE_CHECK)

    await eventually(lambda: kit.seen(container), lambda seen: seen.health is Health.HEALTHY)


async def test_an_exec_check_that_fails_makes_it_unhealthy_and_is_told(kit: Kit) -> None:
    async with kit.events() as next_event:
        container = await kit.run(Role.SICK, health=SICK_CHECK)
        assert (await kit.seen(container)).health is Health.STARTING

        await next_event(EngineEventKind.HEALTH)

        assert (await kit.seen(container)).health is Health.UNHEALTHY


async def test_probes_reach_a_service_without_published_ports(kit: Kit) -> None:
    container = await kit.run(Role.STORE, health=HTTP)

    answer = await eventually(lambda: kit.engine.probe(container, HTTP), lambda answer: answer.passed)
    connected = await kit.engine.probe(container, TCP)
    await kit.engine.stop(container, grace=5)
    after = await kit.engine.probe(container, HTTP)

    assert (answer.reason, connected.reason) == ("status 200", "connected")
    assert not after.passed
    assert after.reason == "the container does not run"


async def test_a_probe_still_finds_a_service_that_was_started_again(kit: Kit) -> None:
    container = await kit.run(Role.STORE)
    await eventually(lambda: kit.engine.probe(container, TCP), lambda answer: answer.passed)

    await kit.engine.stop(container, grace=5)
    await kit.engine.start(container)

    await eventually(lambda: kit.engine.probe(container, TCP), lambda answer: answer.passed)


async def test_a_probe_of_a_removed_container_fails_with_a_reason(kit: Kit) -> None:
    container = await kit.run(Role.STORE)
    await kit.engine.remove(container)

    answer = await kit.engine.probe(container, TCP)

    assert not answer.passed
    assert answer.reason


async def test_logs_end_with_the_newest_lines(kit: Kit) -> None:
    container = await kit.run(Role.SHORT)
    await eventually(lambda: kit.seen(container), lambda seen: seen.state is ContainerState.EXITED)

    assert await kit.engine.logs(container, tail=10) == ["one", "two"]
    assert await kit.engine.logs(container, tail=1) == ["two"]
    assert await kit.engine.logs(container, tail=0) == []
    assert await kit.engine.logs(container, tail=10, since=datetime.now(UTC)) == []
    with pytest.raises(NoSuchContainer):
        await kit.engine.logs("0" * 64, tail=1)


async def test_followed_logs_come_line_by_line_and_end_with_the_container(kit: Kit) -> None:
    container = await kit.run(Role.TICKING)

    lines = [line async for line in kit.engine.follow(container, tail=100)]

    assert lines == [f"line {n}" for n in range(1, 6)]


async def test_following_what_has_ended_gives_its_last_lines(kit: Kit) -> None:
    container = await kit.run(Role.SHORT)
    await eventually(lambda: kit.seen(container), lambda seen: seen.state is ContainerState.EXITED)

    assert [line async for line in kit.engine.follow(container, tail=1)] == ["two"]


async def test_deaths_and_removals_are_told(kit: Kit) -> None:
    async with kit.events() as next_event:
        container = await kit.run(Role.SHORT)
        started = await next_event(EngineEventKind.STARTED)
        died = await next_event(EngineEventKind.DIED)
        await kit.engine.remove(container)
        removed = await next_event(EngineEventKind.REMOVED)

    assert {each.container for each in (started, died, removed)} == {container}
    assert {each.service for each in (started, died, removed)} == {"short"}
    assert died.exit_code == 3
    assert abs((died.at - datetime.now(UTC)).total_seconds()) < 60


async def test_a_running_container_has_counters_and_a_stopped_one_has_none(kit: Kit) -> None:
    container = await kit.run(Role.STORE, resources={"memory_bytes": 64 * 2**20})

    stats = await kit.engine.stats(container)
    await kit.engine.stop(container, grace=5)

    assert stats.cpu_seconds >= 0
    assert 0 < stats.memory_used_bytes < 64 * 2**20
    assert stats.memory_limit_bytes == 64 * 2**20
    assert stats.pids >= 1
    with pytest.raises(NoSuchContainer):
        await kit.engine.stats(container)


async def test_no_limit_is_told_as_none(kit: Kit) -> None:
    container = await kit.run(Role.STORE)

    assert (await kit.engine.stats(container)).memory_limit_bytes is None


async def test_ports_are_published_as_wished_or_anywhere_free(kit: Kit) -> None:
    wished = free_port()
    container = await kit.run(Role.STORE, ports=[{"container": 8080, "host": wished}, {"container": 8081}])

    first, second = (await kit.seen(container)).ports

    assert (first.container, first.host, first.address) == (8080, wished, "127.0.0.1")
    assert second.container == 8081
    assert second.host > 0


async def test_a_taken_port_is_refused_by_name(kit: Kit) -> None:
    ports = [{"container": 8080, "host": free_port()}]
    await kit.run(Role.STORE, "first", ports=ports)
    second = await kit.create(kit.service(Role.STORE, "second", ports=ports))

    with pytest.raises(EngineRefused, match=r"port\.in_use") as refused:
        await kit.engine.start(second)

    assert refused.value.problem.element == str(ports[0]["host"])
    assert (await kit.seen(second)).state is not ContainerState.RUNNING


async def test_what_does_not_end_in_time_is_killed(kit: Kit) -> None:
    container = await kit.run(Role.STUBBORN)

    await kit.engine.stop(container, grace=1)

    assert (await kit.seen(container)).exit_code == 137


async def test_a_volume_outlives_its_container(kit: Kit) -> None:
    volumes = [{"name": "data", "path": "/data"}]
    await kit.engine.remove(await kit.run(Role.STORE, volumes=volumes))
    container = await kit.run(Role.STORE, volumes=volumes)

    lines = await eventually(lambda: kit.engine.logs(container, tail=5), bool)

    assert "start 2" in lines[0]


async def test_purging_keeps_volumes_unless_told_otherwise(kit: Kit) -> None:
    await kit.run(Role.STORE, volumes=[{"name": "data", "path": "/data"}])

    first = await kit.engine.purge(volumes=False)
    second = await kit.engine.purge(volumes=True)
    third = await kit.engine.purge(volumes=True)

    [container, network] = first
    assert container == f"{network}-store"
    assert second == [f"{network}-data"]
    assert third == []
    assert await kit.engine.containers() == []


async def test_other_devices_are_neither_seen_nor_touched(kit: Kit) -> None:
    spec = ContainerSpec(kit.service(Role.STORE), generation=1, release_id=RELEASE)
    theirs = await kit.other.create(spec)
    await kit.other.start(theirs)
    await kit.run(Role.STORE)

    with pytest.raises(NoSuchContainer):
        await kit.engine.logs(theirs, tail=1)
    await kit.engine.stop(theirs, grace=0)
    await kit.engine.remove(theirs)
    await kit.engine.purge(volumes=True)

    [left] = await kit.other.containers()
    assert (left.id, left.state) == (theirs, ContainerState.RUNNING)


async def test_an_inspection_shows_no_environment(kit: Kit) -> None:
    container = await kit.run(Role.STORE, env={"PASSWORD": "hunter-two"})

    found = await kit.engine.inspect(container)

    assert "hunter-two" not in repr(found)
    assert container in repr(found)


async def test_a_container_may_be_named_by_the_beginning_of_its_id(kit: Kit) -> None:
    container = await kit.run(Role.STORE)

    await kit.engine.stop(container[:12], grace=5)

    assert (await kit.seen(container)).state is ContainerState.EXITED


async def test_calls_are_counted(kit: Kit) -> None:
    before = kit.engine.calls

    await kit.engine.containers()

    assert kit.engine.calls > before
