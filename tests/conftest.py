"""Real servers shared by the whole run; each starts when the first test asks for it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cloud.pki.authority import Authority
from tests.servers import docker
from tests.servers.influx import Influx
from tests.servers.influx import influx as run_influx
from tests.servers.mosquitto import Mosquitto, mosquitto
from tests.servers.postgres import Postgres
from tests.servers.postgres import postgres as run_postgres
from tests.servers.victoria_metrics import victoria_metrics as run_victoria_metrics


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
