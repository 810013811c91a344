"""The loop on a real Docker daemon."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from device.deploy.course import Bounds
from device.engine.docker_engine import DockerEngine
from schemas.desired import ServiceManifest
from schemas.reported import EventKind, Health, Outcome, ServiceState
from tests.servers.docker import docker
from tests.servers.machine import Machine, a_journal, now

HTTP = {"type": "http", "port": 8080, "path": "/health", "interval": 1}
TCP = {"type": "tcp", "port": 8080, "interval": 1}
EXEC = {"type": "exec", "command": ["wget", "-q", "-O", "-", "http://127.0.0.1:8080/health"], "interval": 0.5}


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine[DockerEngine]]:
    engine = DockerEngine(uuid4(), now=now)
    async with a_journal(tmp_path) as journal:
        try:
            yield Machine(engine, journal, bounds=Bounds(soak=timedelta(seconds=0.3)))
        finally:
            await engine.purge(volumes=True)
            await engine.close()


def store(image: str, **fields: Any) -> ServiceManifest:
    volumes = [{"name": "data", "path": "/data"}]
    manifest = {
        "name": "store",
        "image": image,
        "command": ["/app/store"],
        "volumes": volumes,
        "health": HTTP,
    }
    return ServiceManifest.model_validate(manifest | fields)


def api(image: str, **fields: Any) -> ServiceManifest:
    manifest = {
        "name": "api",
        "image": image,
        "command": ["/app/api"],
        "health": TCP,
        "ports": [{"container": 8080}],
        "depends_on": {"store": "healthy"},
    }
    return ServiceManifest.model_validate(manifest | fields)


def started_at(machine: Machine[DockerEngine], name: str) -> datetime:
    at = machine.report(name).started_at
    assert at is not None
    return at


async def test_two_services_become_healthy_in_order(machine: Machine[DockerEngine], demo_image: str) -> None:
    async with machine.agent():
        await machine.deploy(api(demo_image), store(demo_image))
        await machine.until(lambda: machine.well() and machine.state().outcome is Outcome.COMMITTED, 60)

        assert [each.health for each in machine.state().services] == [Health.HEALTHY, Health.HEALTHY]
        assert started_at(machine, "store") < started_at(machine, "api")
        [port] = machine.report("api").ports
        assert port.container == 8080
        assert machine.report("api").image_id.startswith("sha256:")
    assert machine.told(EventKind.SERVICE_STARTED) == ["store", "api"]


async def test_a_removed_container_is_back_and_healthy_within_fifteen_seconds(
    machine: Machine[DockerEngine], demo_image: str
) -> None:
    async with machine.agent():
        await machine.deploy(store(demo_image, health=EXEC))
        await machine.until(lambda: machine.state().outcome is Outcome.COMMITTED, 60)
        former = machine.report("store").container
        began = monotonic()
        docker("rm", "-f", former)
        await machine.until(lambda: machine.well() and machine.report("store").container != former)

    assert monotonic() - began < 15
    assert machine.told(EventKind.DRIFT_REPAIRED) == ["store"]


async def test_a_second_release_changes_only_one_container(
    machine: Machine[DockerEngine], demo_image: str
) -> None:
    async with machine.agent():
        await machine.deploy(store(demo_image), api(demo_image))
        await machine.until(lambda: machine.state().outcome is Outcome.COMMITTED, 60)
        before = {each.name: (each.container, each.started_at) for each in machine.state().services}
        await machine.deploy(store(demo_image), api(demo_image, env={"GREETING": "hello"}))
        await machine.until(lambda: machine.state().committed_generation == 2, 60)
        after = {each.name: (each.container, each.started_at) for each in machine.state().services}

    assert after["store"] == before["store"]
    assert after["api"] != before["api"]


async def test_a_container_that_was_killed_is_started_again(
    machine: Machine[DockerEngine], demo_image: str
) -> None:
    async with machine.agent():
        await machine.deploy(store(demo_image))
        await machine.until(lambda: machine.state().outcome is Outcome.COMMITTED, 60)
        container = machine.report("store").container
        docker("kill", container)
        await machine.until(lambda: machine.report("store").restarts == 1 and machine.well())

    assert machine.report("store").container == container
    assert (EventKind.SERVICE_DIED, "store", 137) in [
        (kind, name, data.get("exit_code")) for kind, name, data in machine.events
    ]


async def test_a_job_completes_before_what_waits_for_it(
    machine: Machine[DockerEngine], demo_image: str
) -> None:
    job = ServiceManifest.model_validate(
        {"name": "job", "image": demo_image, "command": ["true"], "restart": "on_failure"}
    )
    async with machine.agent():
        await machine.deploy(api(demo_image, depends_on={"job": "completed"}), job)
        await machine.until(lambda: machine.state().outcome is Outcome.COMMITTED, 60)

    assert machine.report("job").state is ServiceState.COMPLETED
    assert machine.report("job").exit_code == 0


async def test_an_image_nobody_has_leaves_what_runs_alone(
    machine: Machine[DockerEngine], demo_image: str
) -> None:
    machine.bounds = Bounds(soak=timedelta(seconds=0.3), patience=timedelta(seconds=1))
    async with machine.agent():
        await machine.deploy(store(demo_image))
        await machine.until(lambda: machine.state().outcome is Outcome.COMMITTED, 60)
        container = machine.report("store").container
        await machine.deploy(store("localhost:1/fleetline-test/absent:1"))
        await machine.until(lambda: machine.state().outcome is Outcome.FAILED_NO_STATE_CHANGE, 60)

        assert machine.report("store").container == container
        assert machine.well()
        assert [each.phase for each in machine.state().problems] == ["staging"]
