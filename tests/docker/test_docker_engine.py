"""What only Docker can show: limits, security, a daemon that is away, hangs or talks nonsense."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest

from device.engine import names
from device.engine.docker_daemon import Daemon
from device.engine.docker_engine import DockerEngine
from device.engine.protocol import (
    ContainerState,
    EngineEventKind,
    EngineRefused,
    EngineUnreachable,
    ImageNotFound,
)
from schemas.desired import HttpCheck
from schemas.errors import FailureClass
from schemas.reported import Health
from tests.docker.kits import Kit, Role, eventually
from tests.servers.docker import docker


def now() -> datetime:
    return datetime.now(UTC)


def engine_at(socket: Path) -> DockerEngine:
    return DockerEngine(uuid4(), now=now, daemon=Daemon(f"unix://{socket}", timeout=1))


@asynccontextmanager
async def a_socket_that_says(answer: bytes | None, folder: Path) -> AsyncIterator[Path]:
    """Listen on a Unix socket and give every request the same answer; None: none, ever."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            writer.close()

    path = folder / "docker.sock"
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield path
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_limits_reach_the_container(on_docker: Kit) -> None:
    limits = {"cpus": 0.5, "memory_bytes": 32 * 2**20, "pids": 50}

    container = await on_docker.run(Role.STORE, resources=limits)

    host = (await on_docker.engine.inspect(container))["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 32 * 2**20, 50)
    assert host["MemorySwap"] == host["Memory"]


async def test_a_container_gets_no_more_rights_than_it_needs(on_docker: Kit) -> None:
    container = await on_docker.run(Role.STORE)

    host = (await on_docker.engine.inspect(container))["HostConfig"]

    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["Init"] is True
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "5m"}}


async def test_a_service_is_told_who_and_where_it_is(on_docker: Kit) -> None:
    service = on_docker.service(Role.STORE, env={"COLOUR": "red"})
    shown = service.model_copy(update={"command": ["sh", "-c", "echo $COLOUR $FLEETLINE_SERVICE; env"]})
    container = await on_docker.create(shown)
    await on_docker.engine.start(container)

    lines = await eventually(lambda: on_docker.engine.logs(container, tail=50), bool)

    assert lines[0] == "red store"
    assert any(line.startswith("FLEETLINE_DEVICE=") for line in lines)


async def test_services_of_a_device_find_each_other_by_name(on_docker: Kit) -> None:
    await on_docker.run(Role.STORE, "store")
    api = await on_docker.run(Role.STORE, "api", command=["/app/api"])
    check = HttpCheck(type="http", port=8080, path="/", timeout=5)

    await eventually(lambda: on_docker.engine.probe(api, check), lambda answer: answer.passed)


async def test_an_images_own_check_must_exist_to_be_relied_on(on_docker: Kit) -> None:
    with pytest.raises(EngineRefused, match="has no HEALTHCHECK"):
        await on_docker.create(on_docker.service(Role.STORE, health={"type": "docker"}))


async def test_an_images_own_check_counts_where_it_is_asked_for_and_only_there(
    on_docker: Kit, demo_image: str, tmp_path: Path
) -> None:
    image = f"{demo_image}-checked"
    (tmp_path / "Dockerfile").write_text(
        f'FROM {demo_image}\nHEALTHCHECK --interval=500ms CMD ["/bin/true"]\n'
    )
    docker("build", "-q", "-t", image, str(tmp_path))
    try:
        checked = await on_docker.run(Role.STORE, "checked", image=image, health={"type": "docker"})
        plain = await on_docker.run(Role.STORE, "plain", image=image)

        await eventually(lambda: on_docker.seen(checked), lambda seen: seen.health is Health.HEALTHY)
        assert (await on_docker.seen(plain)).health is Health.NONE
    finally:
        await on_docker.engine.purge(volumes=True)
        docker("rmi", image)


async def test_a_listing_costs_one_request_while_nothing_happens(on_docker: Kit) -> None:
    for name in ("a", "b"):
        await on_docker.run(Role.STORE, name)
    await on_docker.engine.containers()
    before = on_docker.engine.calls

    for _ in range(5):
        await on_docker.engine.containers()

    assert on_docker.engine.calls - before == 5


async def test_a_restart_behind_the_agents_back_is_seen(on_docker: Kit) -> None:
    container = await on_docker.run(Role.STORE)
    before = await on_docker.seen(container)
    # The engine tells ages in whole seconds, so a restart within two of the start looks the same.
    await asyncio.sleep(3.5)

    await asyncio.to_thread(docker, "restart", "-t", "1", container)

    after = await on_docker.seen(container)
    assert before.started_at is not None
    assert after.started_at is not None
    assert after.started_at > before.started_at


async def test_purging_leaves_nothing_of_the_device(on_docker: Kit) -> None:
    await on_docker.run(Role.STORE, volumes=[{"name": "data", "path": "/data"}])
    [container] = await on_docker.engine.containers()
    prefix = container.name.removesuffix("-store")

    await on_docker.engine.purge(volumes=True)

    for kind in (["ps", "-a"], ["network", "ls"], ["volume", "ls"]):
        assert docker(*kind, "-q", "--filter", f"name={prefix}") == ""


async def test_a_registry_that_does_not_answer_is_told_from_an_image_that_is_not_there(
    on_docker: Kit,
) -> None:
    with pytest.raises(ImageNotFound, match="no registry answered") as refused:
        await on_docker.engine.pull("127.0.0.1:1/shop/web:1")

    assert refused.value.problem.failure_class is FailureClass.NETWORK
    assert refused.value.problem.retryable


async def test_a_daemon_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "nothing.sock")

    with pytest.raises(EngineUnreachable, match=r"engine\.unreachable"):
        await engine.containers()
    with pytest.raises(EngineUnreachable):
        await anext(aiter(engine.events()))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="nothing"),
        pytest.param(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", id="status 500"),
        pytest.param(
            b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"ApiVersion": "1.', id="half an answer"
        ),
        pytest.param(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"ApiVersion": "1.', id="half a JSON"),
        pytest.param(b"\x00\xff\x00\xff\r\n\r\n", id="noise"),
    ],
)
async def test_a_daemon_that_talks_nonsense_or_not_at_all_is_unreachable(
    answer: bytes | None, tmp_path: Path
) -> None:
    async with a_socket_that_says(answer, tmp_path) as socket:
        engine = engine_at(socket)
        with pytest.raises(EngineUnreachable):
            await engine.containers()


_LEAVING = """
import asyncio
from datetime import UTC, datetime
from uuid import UUID
from device.engine import names
from device.engine.docker_daemon import Daemon
from device.engine.docker_engine import DockerEngine

async def main():
    engine = DockerEngine(UUID({device!r}), now=lambda: datetime.now(UTC))
    lines = engine.follow({container!r}, tail=1)
    await anext(lines)
    watching = asyncio.ensure_future(anext(engine.events()))
    hung = DockerEngine(UUID({device!r}), now=lambda: datetime.now(UTC), daemon=Daemon({hanging!r}))
    calling = asyncio.ensure_future(hung.containers())
    await asyncio.sleep(0.3)
    print("leaving", flush=True)

asyncio.run(main())
"""


async def test_a_process_ends_at_once_though_streams_are_open_and_a_daemon_hangs(
    on_docker: Kit, tmp_path: Path
) -> None:
    container = await on_docker.run(Role.STORE)
    device = (await on_docker.engine.inspect(container))["Config"]["Labels"]["io.fleetline.device"]
    async with a_socket_that_says(None, tmp_path) as socket:
        program = _LEAVING.format(device=device, container=container, hanging=f"unix://{socket}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", program, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"leaving\n"
            since = monotonic()
            _, errors = await process.communicate()

    assert (process.returncode, errors.decode()) == (0, "")
    assert monotonic() - since < 5


async def test_a_follower_that_leaves_ends_its_thread(on_docker: Kit) -> None:
    def streams() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if each.name == "engine-stream"}

    container = await on_docker.run(Role.STORE)
    lines = on_docker.engine.follow(container, tail=1)
    await anext(aiter(lines))
    assert streams()

    await lines.aclose()  # type: ignore[attr-defined]

    await eventually(lambda: asyncio.sleep(0, streams()), lambda left: not left)


async def test_a_container_is_listed_as_ended_as_soon_as_its_end_is_told(on_docker: Kit) -> None:
    container = await on_docker.run(Role.STORE)
    async with on_docker.events() as told:
        await asyncio.to_thread(docker, "kill", container)
        await told(EngineEventKind.DIED)

        assert (await on_docker.seen(container)).state is ContainerState.EXITED


async def test_services_created_side_by_side_share_one_network(on_docker: Kit) -> None:
    services = [on_docker.service(Role.SICK, f"service-{number}") for number in range(4)]

    made = await asyncio.gather(*(on_docker.create(each) for each in services))

    for container in made:
        await on_docker.engine.start(container)
    assert len(networks_of(made[0])) == 1


async def test_networks_of_the_same_name_are_cleared_up(on_docker: Kit) -> None:
    running = await on_docker.run(Role.STORE)
    (network,) = networks_of(running)
    for _ in range(2):  # newer daemons refuse, so that there is nothing to clear up
        order = {"Name": network, "Labels": {names.DEVICE: device_of(running)}, "CheckDuplicate": False}
        post("networks/create", order)

    more = await on_docker.run(Role.SICK, "more")

    assert len(networks_of(running)) == 1
    assert {each.id for each in await on_docker.engine.containers()} == {running, more}


async def test_a_container_starts_though_its_network_was_removed_meanwhile(on_docker: Kit) -> None:
    container = await on_docker.run(Role.STORE, ports=[{"container": 8080}])
    await on_docker.engine.stop(container, grace=5)
    docker("network", "rm", *networks_of(container))

    await on_docker.engine.start(container)

    again = await on_docker.engine.containers()
    assert [port.container for each in again for port in each.ports] == [8080]
    (joined,) = (await on_docker.engine.inspect(container))["NetworkSettings"]["Networks"].values()
    assert "store" in joined["Aliases"]


def post(path: str, body: object) -> None:
    ask = ["curl", "-s", "--unix-socket", "/var/run/docker.sock", f"http://docker/{path}"]
    subprocess.run([*ask, "--json", json.dumps(body)], check=True, capture_output=True)


def device_of(container: str) -> str:
    return docker("inspect", "-f", f'{{{{index .Config.Labels "{names.DEVICE}"}}}}', container)


def networks_of(container: str) -> list[str]:
    ours = f"label={names.DEVICE}={device_of(container)}"
    return docker("network", "ls", "--filter", ours, "--format", "{{.Name}}").split()
