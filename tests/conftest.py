"""Real servers shared by the whole run; each starts when the first test asks for it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cloud.pki.authority import Authority
from tests.servers.mosquitto import Mosquitto, mosquitto


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority") / "pki", now=datetime.now(UTC))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("broker"), authority) as running:
        yield running
