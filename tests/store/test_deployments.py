import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cloud.store import configs, deployments, devices, releases
from cloud.store.database import Database
from cloud.store.deployments import DeviceState
from schemas.config import Config
from schemas.desired import DeploymentConfig, Release, Target
from schemas.errors import FleetError
from schemas.presence import Online, Presence
from schemas.reported import Outcome, Phase, Reported
from tests.store.conftest import NOON, enrol

LATER = NOON + timedelta(minutes=5)
PATIENCE = timedelta(seconds=60)


def a_release(version: str = "1", **service: Any) -> Release:
    fields = {"name": "web", "image": "registry.example/web:1", **service}
    return Release.model_validate({"name": "shop", "version": version, "services": [fields]})


async def order(
    database: Database, *targets: UUID, release: Release | UUID | None = None
) -> tuple[UUID, dict[UUID, int]]:
    config = DeploymentConfig(release=release or a_release(), target=Target(devices=list(targets)))
    async with database.session() as session:
        row, generations = await deployments.create(session, config, list(targets), "test", NOON)
    return row.id, generations


async def report(database: Database, device: UUID, **fields: Any) -> None:
    async with database.session() as session:
        reported = Reported(at=NOON, **fields)
        assert await devices.record_reported(session, device, reported)
        await deployments.record_outcome(session, device, reported, NOON)


async def state(database: Database, deployment: UUID) -> DeviceState:
    async with database.session() as session:
        (only,) = await deployments.progress(session, deployment)
    return only.state


async def publish(database: Database) -> list[tuple[UUID, int]]:
    async with database.session() as session:
        rows = await deployments.unpublished(session, 100)
        await deployments.published(session, rows, NOON)
        return [(row.device, row.generation) for row in rows]


async def test_a_release_is_stored_once_and_never_changes(database: Database) -> None:
    async with database.session() as session:
        first = await releases.store(session, a_release(), NOON)
        again = await releases.store(session, a_release(), LATER)
        assert first.id == again.id
        assert releases.release_of(first) == a_release()
        with pytest.raises(FleetError) as caught:
            await releases.store(session, a_release(image="registry.example/web:2"), NOON)
    assert caught.value.code == "release.changed"


async def test_orders_at_once_give_every_device_its_own_growing_number(database: Database) -> None:
    targets = [await enrol(database) for _ in range(3)]

    done = await asyncio.gather(*(order(database, *(targets if n % 2 else targets[::-1])) for n in range(8)))

    for device in targets:
        assert sorted(generations[device] for _, generations in done) == list(range(1, 9))


async def test_only_the_newest_order_is_published_and_only_once(database: Database, device: UUID) -> None:
    await order(database, device)
    await order(database, device, release=a_release("2"))

    assert await publish(database) == [(device, 2)]
    assert await publish(database) == []


async def test_an_unknown_release_is_refused(database: Database, device: UUID) -> None:
    with pytest.raises(FleetError) as caught:
        await order(database, device, release=uuid4())
    assert caught.value.code == "release.unknown"


async def test_progress_says_no_more_than_the_device_said(database: Database, device: UUID) -> None:
    deployment, _ = await order(database, device)
    seen = [await state(database, deployment)]
    await publish(database)
    seen.append(await state(database, deployment))
    words: list[dict[str, Any]] = [
        {},
        {"phase": Phase.STAGING},
        {"phase": Phase.SOAKING},
        {"phase": Phase.DONE, "outcome": Outcome.COMMITTED},
    ]
    for revision, said in enumerate(words):
        await report(database, device, revision=revision, generation=1, **said)
        seen.append(await state(database, deployment))

    assert [each.value for each in seen] == [
        "queued",
        "notified",
        "accepted",
        "staging",
        "soaking",
        "committed",
    ]


async def test_a_newer_order_supersedes_one_that_has_not_ended(database: Database, device: UUID) -> None:
    first, _ = await order(database, device)
    second, _ = await order(database, device, release=a_release("2"))
    assert await state(database, first) is DeviceState.SUPERSEDED

    await report(database, device, revision=1, generation=2, outcome=Outcome.ROLLED_BACK)
    third, _ = await order(database, device, release=a_release("3"))

    assert await state(database, second) is DeviceState.ROLLED_BACK
    assert await state(database, third) is DeviceState.QUEUED


async def test_an_order_the_device_is_past_has_ended(database: Database, device: UUID) -> None:
    """The database was restored: the device is at 9, the cloud has ordered 1."""
    deployment, _ = await order(database, device)
    await publish(database)

    await report(database, device, revision=1, generation=9, phase=Phase.SOAKING)

    async with database.session() as session:
        (only,) = await deployments.progress(session, deployment)
    assert (only.state, only.outcome, only.ended_at) == (DeviceState.SUPERSEDED, None, NOON)
    _, generations = await order(database, device)
    assert generations == {device: 10}


async def test_what_the_broker_lost_is_published_again(database: Database, device: UUID) -> None:
    await order(database, device)
    await order(database, device, release=a_release("2"))
    await publish(database)

    async with database.session() as session:
        await deployments.publish_again(session)

    assert await publish(database) == [(device, 2)]


async def test_an_online_device_that_never_heard_of_its_order_is_sent_it_again(
    database: Database, device: UUID
) -> None:
    await order(database, device)
    await publish(database)

    async def look(now: Any) -> list[tuple[UUID, int]]:
        async with database.session() as session:
            await deployments.publish_unheard(session, now, patience=PATIENCE)
        return await publish(database)

    assert await look(LATER) == [], "it is offline: the broker keeps the order for it"
    async with database.session() as session:
        await devices.record_presence(
            session, device, Presence(status=Online.ONLINE, session=1, boot=uuid4(), at=NOON)
        )
    assert await look(NOON + timedelta(seconds=59)) == []
    assert await look(LATER) == [(device, 1)]
    await report(database, device, revision=1, generation=2**40)
    assert await look(LATER + PATIENCE) == []


async def change(database: Database, device: UUID, agent: Any = None, services: Any = None) -> int:
    async with database.session() as session:
        versions = await configs.change(
            session, [device], agent=agent or {}, services=services or {}, by="test", now=NOON
        )
    return versions[device]


async def config(database: Database, device: UUID) -> Config:
    async with database.session() as session:
        row = await configs.newest(session, device)
    assert row is not None
    return configs.config_of(row)


async def test_a_configuration_grows_by_merge_patches(database: Database, device: UUID) -> None:
    await order(database, device)

    assert (
        await change(database, device, {"telemetry_interval": 5}, {"web": {"env": {"A": "1", "B": "2"}}}) == 1
    )
    assert await change(database, device, {"log_level": "debug"}, {"web": {"env": {"A": None}}}) == 2

    now = await config(database, device)
    assert (now.version, now.agent.telemetry_interval, now.agent.log_level) == (2, 5, "debug")
    assert now.services["web"].env == {"B": "2"}
    await change(database, device, {"telemetry_interval": None}, {"web": None})
    now = await config(database, device)
    assert (now.agent.telemetry_interval, now.services) == (10, {})


async def test_a_configuration_that_does_not_fit_changes_nothing(database: Database, device: UUID) -> None:
    await order(database, device)
    for agent, services, code in (
        ({"telemetry_intervall": 5}, {}, "field.unknown"),
        ({"telemetry_interval": 0}, {}, "value.out_of_range"),
        ({}, {"wep": {"env": {}}}, "config.unknown_service"),
        ({}, {"web": {"env": {f"V{n}": "x" * 8000 for n in range(40)}}}, "payload.too_large"),
    ):
        with pytest.raises(FleetError) as caught:
            await change(database, device, agent, services)
        assert caught.value.code == code
    with pytest.raises(FleetError, match="did you mean 'telemetry_interval'"):
        await change(database, device, {"telemetry_intervall": 5})

    assert await change(database, device) == 1


async def test_a_configuration_is_published_until_the_device_has_it(database: Database, device: UUID) -> None:
    await change(database, device, {"telemetry_interval": 5})
    await change(database, device, {"telemetry_interval": 6})

    async with database.session() as session:
        (row,) = await configs.unpublished(session, 10)
        assert row.version == 2
        await configs.published(session, [row], NOON)
        await devices.record_presence(
            session, device, Presence(status=Online.ONLINE, session=1, boot=uuid4(), at=NOON)
        )
        assert await configs.unpublished(session, 10) == []
        await configs.publish_unheard(session, LATER, patience=PATIENCE)
    async with database.session() as session:
        assert [each.version for each in await configs.unpublished(session, 10)] == [2]
        await configs.published(session, [row], NOON)
        await devices.record_reported(session, device, Reported(at=NOON, revision=1, config_version=2))
        assert await configs.record_applied(session, device, 2, NOON)
        assert not await configs.record_applied(session, device, 2, NOON)
        await configs.publish_unheard(session, LATER, patience=PATIENCE)
    async with database.session() as session:
        assert await configs.unpublished(session, 10) == []
        await configs.publish_again(session)
        assert len(await configs.unpublished(session, 10)) == 1
