"""Real servers shared by the whole run; each starts when the first test asks for it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, settings

from cloud.pki.authority import Authority
from tests.servers import docker
from tests.servers.influx import Influx
from tests.servers.influx import influx as run_influx
from tests.servers.mosquitto import Mosquitto, mosquitto
from tests.servers.postgres import Postgres
from tests.servers.postgres import postgres as run_postgres
from tests.servers.stack import Stack
from tests.servers.stack import stack as run_stack
from tests.servers.victoria_metrics import victoria_metrics as run_victoria_metrics

settings.register_profile("fleetline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fleetline")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority") / "pki", now=datetime.now(UTC))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("broker"), authority) as running:
        yield running


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with run_influx(tmp_path_factory.mktemp("influx")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with run_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def demo_image() -> Iterator[str]:
    with docker.demo_image() as tag:
        yield tag


@pytest.fixture(scope="session")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_victoria_metrics(tmp_path_factory.mktemp("victoria-metrics")) as url:
        yield url


@pytest.fixture(scope="session")
def docker_stack(tmp_path_factory: pytest.TempPathFactory, demo_image: str) -> Iterator[Stack]:
    """Two devices on Docker; the image must outlive them."""
    with run_stack(tmp_path_factory.mktemp("docker"), "--devices", "2", "--engine", "docker") as running:
        yield running


@pytest.fixture(scope="session")
def memory_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two devices on the memory engine."""
    with run_stack(tmp_path_factory.mktemp("memory"), "--devices", "2", "--engine", "memory") as running:
        yield running


@pytest.fixture(scope="session")
def fragile_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two devices on the memory engine, for tests that kill broker and cloud."""
    with run_stack(tmp_path_factory.mktemp("fragile"), "--devices", "2", "--engine", "memory") as running:
        yield running
