"""`python -m cloud serve` as an init system meets it."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from cloud.settings import PREFIX
from cloud.store import deployments
from cloud.store.database import Database
from schemas import topics
from schemas.desired import DeploymentConfig, Desired, Release, Target
from tests.broker.cloud import connected, now, settings_for, until
from tests.servers.mosquitto import HOST, Mosquitto, free_ports


@asynccontextmanager
async def started(directory: Path, broker: Mosquitto, port: int, **others: str) -> AsyncIterator[Process]:
    """Start the cloud's process; it ends with the block if it has not before."""
    told = settings_for(directory, broker)
    names = (
        "data_dir",
        "pki_dir",
        "mqtt_host",
        "mqtt_port",
        "mqtt_ca",
        "mqtt_cert",
        "mqtt_key",
        "topic_root",
    )
    variables = {f"{PREFIX}{name.upper()}": str(getattr(told, name)) for name in names}
    environment = {**os.environ, **variables, f"{PREFIX}HTTP_PORT": str(port), **others}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cloud", "serve", env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def healthy(port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:

        async def answers() -> bool:
            try:
                answer = await client.get(f"http://{HOST}:{port}/api/v1/health")
            except httpx.HTTPError:
                return False
            return answer.status_code == httpx.codes.OK

        await until(answers)


async def test_it_serves_survives_a_kill_and_ends_in_order(own_broker: Mosquitto, tmp_path: Path) -> None:
    directory = tmp_path / "cloud"
    (port,) = free_ports(1)
    async with started(directory, own_broker, port) as process:
        await healthy(port)
        process.kill()
        await process.wait()

    database = await Database.open(f"sqlite:///{directory / 'fleet.db'}")
    async with connected(own_broker, database) as device:
        config = DeploymentConfig(
            release=Release(name="shop", version="1", services=[]), target=Target(devices=[device.id])
        )
        async with database.session() as session:
            await deployments.create(session, config, [device.id], "test", now())
        await database.close()
        async with started(directory, own_broker, port) as process:
            _, payload = await device.heard(topics.Desired)
            assert Desired.model_validate_json(payload).generation == 1
            await healthy(port)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MQTT_PORT", "many"),
        ("DATABASE_URL", "postgresql:user:hunter2@host/fleet"),
        ("METRICS_URL", "user:hunter2@host"),
        ("MQTT_CA", "/nowhere/ca.pem"),
    ],
)
async def test_wrong_settings_are_named_and_nothing_starts(
    own_broker: Mosquitto, tmp_path: Path, name: str, value: str
) -> None:
    async with started(tmp_path, own_broker, 1, **{f"{PREFIX}{name}": value}) as process:
        _, said = await process.communicate()

    assert process.returncode == 2, said
    assert f"{PREFIX}{name}".encode() in said
    assert b"Traceback" not in said
    assert b"hunter2" not in said
