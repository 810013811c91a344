from collections.abc import Iterator

import httpx
import pytest

from cloud.pki.authority import Authority
from tests.servers.api import RunningApi, api
from tests.servers.mosquitto import Mosquitto


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory, broker: Mosquitto, authority: Authority
) -> Iterator[RunningApi]:
    """A server whose database the tests of this folder share: each brings its own devices and keys."""
    with api(tmp_path_factory.mktemp("api"), broker, authority) as server:
        yield server


@pytest.fixture
def own_api(
    tmp_path_factory: pytest.TempPathFactory, broker: Mosquitto, authority: Authority
) -> Iterator[RunningApi]:
    """A server of the test's own, to be stopped or moved in time."""
    with api(tmp_path_factory.mktemp("own-api"), broker, authority) as server:
        yield server


@pytest.fixture
def client(running: RunningApi) -> Iterator[httpx.Client]:
    with running.client() as opened:
        yield opened
