import asyncio
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.store import devices
from cloud.store.database import Database
from schemas.base import MAX_COUNTER
from schemas.desired import Target
from schemas.device import DeviceFacts
from schemas.errors import FleetError
from schemas.presence import Online, Presence
from schemas.reported import Reported
from schemas.selector import parse_selector
from tests.store.conftest import NOON, enrol


def word(status: Online, session: int) -> Presence:
    return Presence(status=status, session=session, boot=uuid4(), at=NOON)


async def say(database: Database, device: UUID, presence: Presence) -> bool:
    async with database.session() as session:
        return await devices.record_presence(session, device, presence)


async def report(database: Database, device: UUID, **fields: object) -> bool:
    async with database.session() as session:
        return await devices.record_reported(session, device, Reported(at=NOON, **fields))


async def test_the_will_of_an_older_connection_does_not_turn_a_device_off(
    database: Database, device: UUID
) -> None:
    assert await say(database, device, word(Online.ONLINE, 7))
    assert not await say(database, device, word(Online.OFFLINE, 6))
    assert not await say(database, device, word(Online.ONLINE, 7))

    async with database.session() as session:
        assert (await devices.require(session, device)).online
    assert await say(database, device, word(Online.OFFLINE, 7))
    assert not await say(database, device, word(Online.OFFLINE, 7))
    async with database.session() as session:
        assert not (await devices.require(session, device)).online


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.tuples(st.sampled_from(Online), st.integers(0, 3)), max_size=8))
async def test_the_database_holds_to_the_rule_of_the_schema(
    database: Database, words: list[tuple[Online, int]]
) -> None:
    device = await enrol(database)
    kept: Presence | None = None
    for status, session in words:
        presence = word(status, session)
        assert await say(database, device, presence) == presence.is_news(kept)
        kept = presence if presence.is_news(kept) else kept


async def test_an_older_report_is_no_news(database: Database, device: UUID) -> None:
    assert await report(database, device, revision=2, generation=1)
    assert not await report(database, device, revision=2, generation=9)
    assert not await report(database, device, revision=1, generation=9)
    assert await report(database, device, revision=3, generation=1)


async def test_what_a_device_knows_lifts_the_counts_of_a_restored_cloud(
    database: Database, device: UUID
) -> None:
    await report(database, device, revision=1, generation=41, config_version=6)
    await report(database, device, revision=2, generation=40, config_version=5)
    await report(database, device, revision=3, generation=MAX_COUNTER, config_version=MAX_COUNTER)

    async with database.session() as session:
        row = await devices.require(session, device)
    assert (row.generation, row.config_version) == (41, 6)


async def test_a_selector_sees_labels_facts_name_and_id(database: Database) -> None:
    device = await enrol(database, "north gate", site="lab", model="mine")
    await enrol(database, "south gate", site="field")
    facts = DeviceFacts(model="Board", architecture="aarch64", os="Debian GNU/Linux 12 (bookworm)")
    await report(database, device, revision=1, facts=facts)

    for text in (
        "site=lab",
        "model=mine",
        "arch=aarch64",
        "os=Debian GNU/Linux 12 -bookworm",
        f"device={device}",
        "name=north gate,site!=field",
    ):
        async with database.session() as session:
            page = await devices.listing(session, selector=parse_selector(text))
        assert [row.id for row in page.rows] == [device], text


async def test_changes_of_labels_at_once_are_all_kept(database: Database, device: UUID) -> None:
    async def label(key: str) -> None:
        async with database.session() as session:
            row = await devices.hold(session, device)
            row.labels = {**row.labels, key: "1"}

    await asyncio.gather(*(label(f"k{number}") for number in range(8)))

    async with database.session() as session:
        assert len((await devices.require(session, device)).labels) == 8


async def test_pages_hold_every_device_once(database: Database) -> None:
    enrolled = {await enrol(database) for _ in range(7)}

    found: list[UUID] = []
    after = None
    while True:
        async with database.session() as session:
            page = await devices.listing(session, after=after, limit=3)
        found += [row.id for row in page.rows]
        after = page.next
        if after is None:
            break

    assert found == sorted(enrolled)


async def test_a_target_is_resolved_or_refused_by_name(database: Database, device: UUID) -> None:
    missing = uuid4()
    async with database.session() as session:
        assert await devices.resolve_target(session, Target(devices=[device, device])) == [device]
        assert await devices.resolve_target(session, Target(selector="")) == [device]
        for target, code in (
            (Target(devices=[device, missing]), "device.unknown"),
            (Target(selector="site=moon"), "target.empty"),
            (Target(selector="site=("), "selector.syntax"),
        ):
            with pytest.raises(FleetError) as caught:
                await devices.resolve_target(session, target)
            assert caught.value.code == code
        with pytest.raises(FleetError, match=str(missing)):
            await devices.resolve_target(session, Target(devices=[missing]))
