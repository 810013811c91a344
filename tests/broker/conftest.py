from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.pki.authority import Authority
from tests.servers.mosquitto import Mosquitto, mosquitto


@pytest.fixture
def own_broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    """A broker of the test's own, to be killed, restarted and emptied."""
    with mosquitto(tmp_path / "broker", authority) as running:
        yield running
