"""What the REST door keeps: keys, enrolment tokens, the diary."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from cloud.store import enrolment, events, keys
from cloud.store.database import Database
from cloud.store.events import Kind
from schemas.errors import ErrorCode, FleetError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def claim(database: Database, token: str, device: UUID, now: datetime = NOON) -> str:
    """Return `in`, or the code of the refusal."""
    try:
        async with database.session() as session:
            await enrolment.claim(session, token, device, now)
    except FleetError as error:
        return error.code
    return "in"


async def test_a_token_lets_in_as_many_as_it_says_however_many_come_at_once(database: Database) -> None:
    async with database.session() as session:
        _, token = await enrolment.create_token(session, labels={}, ttl=HOUR, uses=3, now=NOON)

    found = await asyncio.gather(*(claim(database, token, uuid4()) for _ in range(8)))

    assert sorted(found) == sorted(["in"] * 3 + [ErrorCode.CLAIM_USED] * 5)


async def test_a_device_that_repeats_its_claim_takes_no_second_use(database: Database) -> None:
    async with database.session() as session:
        _, token = await enrolment.create_token(session, labels={}, ttl=HOUR, uses=2, now=NOON)
    device = uuid4()

    assert [await claim(database, token, device) for _ in range(3)] == ["in"] * 3
    assert await claim(database, token, uuid4()) == "in"
    assert await claim(database, token, uuid4()) == ErrorCode.CLAIM_USED
    assert await claim(database, token, device, NOON + HOUR) == ErrorCode.CLAIM_EXPIRED


async def test_the_use_of_a_key_is_noted_once_a_minute(database: Database) -> None:
    async with database.session() as session:
        _, key = await keys.create(session, "board", ["*"], None, NOON)
    for seconds in (0, 30, 59, 61):
        async with database.session() as session:
            await keys.verify(session, key, NOON + timedelta(seconds=seconds))

    async with database.session() as session:
        (row,) = await keys.listing(session)

    assert row.used_at == NOON + timedelta(seconds=61)
    assert key.split("_", 2)[2] not in row.hash


async def test_a_revoked_key_is_refused_and_may_be_revoked_again(database: Database) -> None:
    async with database.session() as session:
        row, key = await keys.create(session, "board", ["*"], None, NOON)
        await keys.revoke(session, row.id, NOON)
        again = await keys.revoke(session, row.id, NOON + HOUR)
        assert again.revoked_at == NOON
    with pytest.raises(FleetError) as caught:
        async with database.session() as session:
            await keys.verify(session, key, NOON)

    assert caught.value.code == ErrorCode.AUTH_INVALID


async def test_a_reader_that_goes_by_ids_misses_no_event_of_many_writers(database: Database) -> None:
    async def write(number: int) -> None:
        for turn in range(10):
            async with database.session() as session:
                await events.append(session, Kind.EVENT, None, {"by": number, "turn": turn}, NOON)
                await asyncio.sleep(0.001)

    async def read() -> list[int]:
        last = 0
        found: list[int] = []
        while len(found) < 50:
            async with database.session() as session:
                rows = await events.after(session, last)
            found += [row.id for row in rows]
            last = found[-1] if found else 0
        return found

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(write(number))
        reading = tasks.create_task(read())

    assert len(set(reading.result())) == 50


async def test_old_events_are_forgotten_and_chunks_sooner(database: Database, device: UUID) -> None:
    async with database.session() as session:
        await events.append(session, Kind.EVENT, device, {}, NOON - timedelta(days=8))
        await events.append(session, Kind.CHUNK, device, {}, NOON - timedelta(hours=2))
        await events.append(session, Kind.EVENT, device, {}, NOON - timedelta(hours=2))
    async with database.session() as session:
        assert await events.prune(session, NOON) == 2
        assert [row.kind for row in await events.after(session, 0, device=device)] == ["event"]
        assert await events.after(session, 0, kinds=[Kind.CHUNK]) == []
