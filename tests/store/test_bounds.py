"""No device fills the tables, or takes the room of others."""

from uuid import UUID

from cloud.store import dead_letters, events
from cloud.store.database import Database
from schemas.errors import ErrorCode, problem
from tests.store.conftest import NOON, enrol

WHY = problem(ErrorCode.PAYLOAD_EMPTY, "nothing was sent")


async def test_the_diary_keeps_the_newest_events_of_each_device(database: Database, device: UUID) -> None:
    quiet = await enrol(database)
    told = [events.Entry(events.Kind.EVENT, device, {"n": number}, NOON) for number in range(9)]
    told.insert(0, events.Entry(events.Kind.EVENT, quiet, {"n": 0}, NOON))
    told.insert(0, events.Entry(events.Kind.DEPLOYMENT, None, {"n": 0}, NOON))
    async with database.session() as session:
        await events.append_all(session, told)

    async with database.session() as session:
        assert await events.curb(session, keep=4) == {device: 5}

    async with database.session() as session:
        kept = [(row.device, row.data["n"]) for row in await events.after(session, 0)]
        assert await events.curb(session, keep=4) == {}
    assert kept == [(None, 0), (quiet, 0), *((device, number) for number in range(5, 9))]


async def test_one_noisy_device_leaves_the_dead_letters_of_others(database: Database, device: UUID) -> None:
    quiet = await enrol(database)
    async with database.session() as session:
        await dead_letters.add(session, f"fleet/v1/{quiet}/up/reported", b"first", WHY, NOON)
    noise = dead_letters.Letter(f"fleet/v1/{device}/up/reported", b"noise", WHY)
    for _ in range(5):
        async with database.session() as session:
            await dead_letters.add_all(session, [noise] * 100, NOON)

    async with database.session() as session:
        rows = await dead_letters.listing(session, limit=1000)
    assert len(rows) == dead_letters.MAX_OF_DEVICE + 1
    assert rows[-1].payload == b"first"
