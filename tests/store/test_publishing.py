"""How orders get from the database to the broker."""

from uuid import UUID

import pytest

from cloud.deployments import AT_ONCE, Deployer
from cloud.feed import Feed
from cloud.store.database import Database
from schemas.desired import DeploymentConfig, Target
from tests.store.conftest import NOON, enrol
from tests.store.publishing import Taker
from tests.store.test_deployments import a_release


@pytest.fixture
def bus() -> Taker:
    return Taker()


@pytest.fixture
def deployer(database: Database, bus: Taker) -> Deployer:
    return Deployer(database, bus, Feed(), lambda: NOON)


def an_order(*devices: UUID) -> DeploymentConfig:
    return DeploymentConfig(release=a_release(), target=Target(devices=list(devices)))


async def test_a_request_publishes_one_batch_and_the_sweep_the_rest(
    database: Database, bus: Taker, deployer: Deployer
) -> None:
    fleet = [await enrol(database) for _ in range(AT_ONCE + 5)]

    await deployer.deploy(an_order(*fleet), by="test")
    assert len(bus.asked) == AT_ONCE
    await deployer.sweep()
    assert sorted(bus.asked) == sorted(fleet)

    bus.asked.clear()
    target = Target(devices=fleet)
    await deployer.update_config(target, agent={"telemetry_interval": 5}, services={}, by="test")
    assert len(bus.asked) == AT_ONCE
    await deployer.sweep()
    assert sorted(bus.asked) == sorted(fleet)


async def test_a_request_does_not_wait_for_a_broker_that_took_nothing_from_the_last(
    database: Database, bus: Taker, deployer: Deployer, device: UUID
) -> None:
    bus.hangs = True
    for _ in range(3):
        await deployer.deploy(an_order(device), by="test")
    assert bus.asked == [device]

    bus.hangs = False
    await deployer.sweep()
    await deployer.deploy(an_order(device), by="test")
    assert bus.asked == [device] * 3
