from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from cloud.store import enrolment
from cloud.store.database import Database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the test's own, on each kind of server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    url: str = request.getfixturevalue("postgres").create_database()
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    await opened.upgrade()
    yield opened
    await opened.close()


@pytest.fixture
async def device(database: Database) -> UUID:
    return await enrol(database)


async def enrol(database: Database, name: str = "gateway", **labels: str) -> UUID:
    """Enrol a device and return its id."""
    device = uuid4()
    async with database.session() as session:
        await enrolment.admit(
            session, device, key=device.hex, name=name, labels=labels, certificate_expires_at=NOON, now=NOON
        )
    return device
