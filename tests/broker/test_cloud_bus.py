import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest

from cloud.bus import Broker, Bus, Incoming
from cloud.metrics.protocol import Query
from cloud.metrics.sql import SqlMetrics
from cloud.settings import Settings
from cloud.store import commands, dead_letters, deployments, devices, events, streams
from cloud.store.database import Database, driver_url
from cloud.store.tables import CommandRow, DeviceRow
from schemas import topics
from schemas.base import to_wire
from schemas.commands import Command, CommandName, CommandResult, CommandStatus, LogChunk
from schemas.desired import DeploymentConfig, Desired, Release, Target
from schemas.presence import Online
from schemas.reported import DeviceEvent, Outcome
from schemas.topics import Topics
from tests.broker.cloud import Device, connected, enrol, now, running, settings_for, until
from tests.servers.mosquitto import Mosquitto
from tests.servers.postgres import Postgres


@pytest.fixture
def settings(own_broker: Mosquitto, tmp_path: Path) -> Settings:
    return settings_for(tmp_path / "cloud", own_broker)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The database of a cloud that runs."""
    async with running(settings) as database:
        yield database


@pytest.fixture
async def device(own_broker: Mosquitto, database: Database) -> AsyncIterator[Device]:
    async with connected(own_broker, database) as device:
        await device.greet(database)
        yield device


async def row_of(database: Database, device: UUID) -> DeviceRow:
    async with database.session() as session:
        return await devices.require(session, device)


async def command_of(database: Database, command: UUID) -> CommandRow | None:
    async with database.session() as session:
        return await commands.get(session, command)


async def online(database: Database, device: UUID) -> bool:
    return (await row_of(database, device)).online


async def order(database: Database, device: UUID, version: str = "1") -> UUID:
    """Store an order as a cloud does that is killed before it publishes anything."""
    release = Release(name="shop", version=version, services=[])
    config = DeploymentConfig(release=release, target=Target(devices=[device]))
    async with database.session() as session:
        row, _ = await deployments.create(session, config, [device], "test", now())
    return row.id


async def answer(device: Device, command: UUID, status: CommandStatus, name: str = "ping") -> None:
    result = CommandResult(status=status, at=now())
    await device.say(topics.Result(device.id, name, command), to_wire(result))


async def test_what_a_device_says_is_stored_and_told(database: Database, device: Device) -> None:
    await device.present()
    await device.report(1, generation=0)
    await device.say(topics.Event(device.id, "service-died"), to_wire(DeviceEvent(at=now(), service="web")))
    await device.say(topics.Chunk(device.id, uuid4()), to_wire(LogChunk(seq=0, lines=["hello"])))
    await device.say(topics.Alert(device.id, "hot"), b'{"celsius": 91}')

    async def kinds() -> list[str] | None:
        async with database.session() as session:
            told = [each.kind for each in await events.after(session, 0)]
        return told if len(told) == 6 else None

    assert await until(kinds) == ["presence", "presence", "reported", "event", "chunk", "alert"]
    row = await row_of(database, device.id)
    assert row.online
    assert row.seen_at is not None


async def test_a_device_that_vanishes_is_offline_and_an_older_will_changes_nothing(
    database: Database, device: Device
) -> None:
    await device.present(session=7)
    await until(lambda: online(database, device.id))
    await device.present(Online.OFFLINE, session=6)
    await device.report(1)
    await until(lambda: _reported(database, device.id))
    assert await online(database, device.id)

    await device.present(Online.OFFLINE, session=7)

    async def offline() -> bool:
        return not await online(database, device.id)

    await until(offline)


async def _reported(database: Database, device: UUID) -> bool:
    return (await row_of(database, device)).reported is not None


async def test_a_command_that_was_stored_but_never_sent_is_sent_until_answered(
    database: Database, device: Device
) -> None:
    command = Command(
        id=uuid4(),
        name=CommandName.PING,
        arguments={"echo": "hello"},
        issued_at=now(),
        deadline=now() + timedelta(minutes=1),
    )
    async with database.session() as session:
        await commands.create(session, command, device.id, now())

    for _ in range(2):
        topic, payload = await device.heard(topics.Command)
        assert topic.id == command.id
        assert json.loads(payload)["echo"] == "hello"
    await answer(device, command.id, CommandStatus.ACCEPTED)
    await answer(device, command.id, CommandStatus.SUCCEEDED)
    await answer(device, command.id, CommandStatus.ACCEPTED)

    async def succeeded() -> bool:
        row = await command_of(database, command.id)
        return row is not None and row.status == "succeeded"

    await until(succeeded)


async def test_a_command_that_somebody_published_to_the_topic_is_known_by_its_result(
    database: Database, device: Device
) -> None:
    command = uuid4()

    await answer(device, command, CommandStatus.SUCCEEDED, name="restart")

    row = await until(lambda: command_of(database, command))
    assert (row.name, row.status, row.issued_by) == ("restart", "succeeded", commands.BY_TOPIC)


async def test_an_order_that_was_stored_but_never_published_is_published_and_its_end_recorded(
    database: Database, device: Device
) -> None:
    deployment = await order(database, device.id)

    _, payload = await device.heard(topics.Desired)
    assert Desired.model_validate_json(payload).generation == 1
    await device.report(1, generation=1, outcome=Outcome.COMMITTED)

    async def committed() -> bool:
        async with database.session() as session:
            (only,) = await deployments.progress(session, deployment)
        return only.state == "committed"

    await until(committed)


async def test_a_broker_that_lost_everything_gets_the_orders_back(
    own_broker: Mosquitto, database: Database
) -> None:
    device = uuid4()
    await enrol(database, device)
    await order(database, device, "1")
    await order(database, device, "2")
    async with connected(own_broker, None, device) as before:
        while Desired.model_validate_json((await before.heard(topics.Desired))[1]).generation < 2:
            pass
    own_broker.kill()
    own_broker.wipe()
    own_broker.start()

    async with connected(own_broker, None, device) as after:
        _, payload = await after.heard(topics.Desired)
        assert Desired.model_validate_json(payload).generation == 2
        await after.present()
        await until(lambda: online(database, device))


async def test_a_cloud_killed_before_it_gave_a_broker_the_orders_back_gives_them_at_its_next_start(
    settings: Settings, own_broker: Mosquitto
) -> None:
    async with running(settings) as database, connected(own_broker, database) as device:
        await order(database, device.id)
        await device.heard(topics.Desired)
    own_broker.kill()
    own_broker.wipe()
    own_broker.start()
    await meet(own_broker, settings)

    async with running(settings), connected(own_broker, None, device.id) as after:
        _, payload = await after.heard(topics.Desired)
        assert Desired.model_validate_json(payload).generation == 1


async def meet(broker: Mosquitto, settings: Settings) -> None:
    """Connect as the cloud does, so that the broker knows it, and die."""
    own = broker.service("fleet-cloud").tls()
    door = Broker(settings.mqtt_host, settings.mqtt_port, settings.mqtt_client, own)

    async def nothing(_: Sequence[Incoming]) -> None:
        pass

    bus = Bus(
        door,
        Topics(),
        filters=[],
        states=[Topics().every(topics.Presence)],
        handler=nothing,
        random=Random(1),
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bus.run())

        async def known() -> bool:
            return bus.forgotten > 0

        await until(known)
        task.cancel()


async def test_what_was_said_while_no_cloud_ran_is_heard_later(
    settings: Settings, own_broker: Mosquitto
) -> None:
    async with running(settings) as database, connected(own_broker, database) as device:
        await device.present()
        await until(lambda: online(database, device.id))
    command = uuid4()
    async with connected(own_broker, None, device.id) as again:
        await answer(again, command, CommandStatus.SUCCEEDED)

    async with running(settings) as database:
        await until(lambda: command_of(database, command))


async def test_samples_are_acknowledged_when_they_are_in_the_database(
    settings: Settings, database: Database, device: Device
) -> None:
    for seq in (1, 2, 3, 2, 1):
        await device.send(seq, float(seq), oldest=1)
    await device.watermark_of(3)

    metrics = SqlMetrics.open(driver_url(settings.metrics_store))
    hour = timedelta(hours=1)
    (series,) = await metrics.query(
        Query("device", now() - hour, now() + hour, (device.id,), fields=("load_1m",))
    )
    await metrics.close()
    assert sorted({value for _, value in series.points}) == [1.0, 2.0, 3.0]


async def test_a_gap_holds_the_watermark_until_it_is_filled_or_given_up(
    database: Database, device: Device
) -> None:
    await device.send(1, oldest=1)
    await device.watermark_of(1)
    await device.send(3, oldest=1)
    assert await device.watermark() == 1
    await device.send(2, oldest=1)
    assert await device.watermark() == 3
    await device.send(9, oldest=8)
    assert await device.watermark() == 7
    await device.send(8, oldest=8)
    assert await device.watermark() == 9

    async with database.session() as session:
        row = next(each for each in await streams.listing(session, device.id) if each.stream == "main")
    assert (row.seq, row.lost) == (9, 4)


async def test_a_restarted_ingest_goes_on_where_the_database_stands(
    settings: Settings, own_broker: Mosquitto
) -> None:
    async with running(settings) as database, connected(own_broker, database) as device:
        await device.greet(database)
        await device.send(1, oldest=1)
        await device.watermark_of(1)
    async with connected(own_broker, None, device.id) as again:
        again.boot = device.boot
        await again.send(3, oldest=1)
        async with running(settings):
            assert await again.watermark() == 1
            await again.send(2, oldest=2)
            await again.watermark_of(3)


async def test_a_batch_that_cannot_be_read_is_kept_aside_and_passed_over(
    database: Database, device: Device
) -> None:
    place = {"boot": str(device.boot), "seq": 1, "oldest": 1}
    await device.say(topics.Telemetry(device.id, "main"), json.dumps({**place, "samples": "none"}).encode())
    await device.watermark_of(1)
    old = {"at": "1970-01-01T00:00:00Z", "measurement": "device", "fields": {"load_1m": 1.0}}
    young = {**old, "at": now().isoformat()}
    body = {**place, "seq": 2, "sent_at": now().isoformat(), "samples": [old, young, old]}
    await device.say(topics.Telemetry(device.id, "main"), json.dumps(body).encode())
    await device.watermark_of(2)

    async with database.session() as session:
        newest, first = await dead_letters.listing(session)
    assert first.code == "field.missing"
    assert newest.code == "telemetry.bad_time"
    assert newest.message.startswith("2 samples")


async def test_junk_is_kept_aside_and_what_follows_is_read(database: Database, device: Device) -> None:
    junk = [b"", b"\xff", b"{", b"[]", b"null", b'{"a": 1e999}', b'{"status": 1}', b"[" * 10_000]
    spoken: list[topics.UpTopic] = [
        topics.Presence(device.id),
        topics.Reported(device.id),
        topics.Result(device.id, "nonsense", uuid4()),
        topics.Event(device.id, "x"),
        topics.Chunk(device.id, uuid4()),
        topics.Telemetry(device.id, "main"),
    ]
    for topic in spoken:
        for payload in junk:
            await device.say(topic, payload)
    await device.client.publish(f"fleet/v1/{device.id}/up/no/such/thing", b"{}", qos=1)
    await device.present()
    await device.send(1)

    await device.watermark_of(1)
    await until(lambda: online(database, device.id))

    async def all_kept() -> bool:
        async with database.session() as session:
            return len(await dead_letters.listing(session, limit=1000)) == len(spoken) * len(junk)

    await until(all_kept)


async def test_a_device_nobody_enrolled_is_not_listened_to(own_broker: Mosquitto, database: Database) -> None:
    async with connected(own_broker, database) as friend:
        await friend.greet(database)
    async with connected(own_broker, None) as stranger:
        await stranger.present()
        await stranger.send(1)

        async def kept() -> bool:
            async with database.session() as session:
                codes = [row.code for row in await dead_letters.listing(session)]
            return codes == ["device.unknown"] * 2

        await until(kept)


async def test_while_the_database_is_away_nothing_is_lost(
    own_broker: Mosquitto, postgres: Postgres, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "cloud", own_broker, postgres.create_database())
    async with running(settings) as database, connected(own_broker, database) as device:
        await device.greet(database)
        await device.send(1)
        await device.watermark_of(1)
        command = uuid4()
        postgres.kill()
        try:
            await answer(device, command, CommandStatus.ACCEPTED)
            await answer(device, command, CommandStatus.SUCCEEDED)
            await device.send(2)
            await asyncio.sleep(0.5)
        finally:
            postgres.start()

        await device.watermark_of(2)

        async def succeeded() -> bool:
            row = await command_of(database, command)
            return row is not None and row.status == "succeeded"

        await until(succeeded)
