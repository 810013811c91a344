import asyncio
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from cloud.store import dead_letters
from cloud.store.database import Database, driver_url
from cloud.store.tables import Base, DeviceRow
from schemas.errors import ErrorCode, FleetError, problem
from tests.servers.postgres import Postgres
from tests.store.conftest import NOON, enrol

WHY = problem(ErrorCode.PAYLOAD_EMPTY, "nothing was sent")


async def test_the_migrations_make_exactly_the_tables_that_the_code_names(
    database: Database, database_url: str
) -> None:
    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)

    engine = create_async_engine(driver_url(database_url))
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()

    assert found == []


async def test_several_processes_may_upgrade_at_once_and_again(database_url: str) -> None:
    databases = [await Database.open(database_url) for _ in range(4)]

    await asyncio.gather(*(each.upgrade() for each in databases))
    await databases[0].upgrade()

    await databases[0].check()
    for each in databases:
        await each.close()


async def test_a_session_that_fails_leaves_nothing_behind(database: Database) -> None:
    async def fail_half_way() -> None:
        async with database.session() as session:
            await dead_letters.add(session, "topic", b"", WHY, NOON)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_half_way()

    async with database.session() as session:
        assert await dead_letters.listing(session) == []


async def test_many_writers_at_once_all_get_their_turn(database: Database) -> None:
    async def write(number: int) -> None:
        async with database.session() as session:
            before = await dead_letters.listing(session, limit=1)
            await dead_letters.add(session, f"topic/{number}/{len(before)}", b"", WHY, NOON)

    await asyncio.gather(*(write(number) for number in range(40)))

    async with database.session() as session:
        assert len(await dead_letters.listing(session)) == 40


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/nothing", "sqlite:////nowhere/at/all.db"])
async def test_a_database_that_is_away_is_one_clear_error(url: str) -> None:
    database = await Database.open(url)

    for attempt in (database.check, database.upgrade):
        with pytest.raises(FleetError) as caught:
            await attempt()
        assert caught.value.code == "store.unreachable"
    await database.close()


async def test_a_server_that_dies_is_the_same_error_and_is_found_again(postgres: Postgres) -> None:
    database = await Database.open(postgres.create_database())
    await database.upgrade()
    postgres.kill()
    try:
        for _ in range(3):
            with pytest.raises(FleetError) as caught:
                await database.check()
            assert caught.value.code == "store.unreachable"
    finally:
        postgres.start()

    await database.check()
    await database.close()


async def test_a_server_that_dies_in_the_middle_of_a_transaction_is_the_same_error(
    postgres: Postgres,
) -> None:
    database = await Database.open(postgres.create_database())
    await database.upgrade()

    async def lose_the_server_half_way() -> None:
        async with database.session() as session:
            await dead_letters.add(session, "topic", b"", WHY, NOON)
            postgres.kill()
            await dead_letters.add(session, "topic", b"", WHY, NOON)

    try:
        with pytest.raises(FleetError) as caught:
            await lose_the_server_half_way()
    finally:
        postgres.start()

    assert caught.value.code == "store.unreachable"
    await database.close()


async def test_two_transactions_that_lock_each_other_out_may_be_tried_again(database: Database) -> None:
    first, second = [await enrol(database), await enrol(database)]
    both = asyncio.Barrier(2)

    async def touch(*devices: UUID) -> None:
        async with database.session() as session:
            for device in devices:
                await session.execute(update(DeviceRow).where(DeviceRow.id == device).values(seen_at=NOON))
                if session.get_bind().dialect.name == "postgresql" and device == devices[0]:
                    await both.wait()

    done = await asyncio.gather(touch(first, second), touch(second, first), return_exceptions=True)

    refused = [each for each in done if each is not None]
    assert all(isinstance(each, FleetError) and each.code == "store.unreachable" for each in refused), done
    assert len(refused) < 2


async def test_a_statement_that_no_second_try_would_mend_is_no_outage(database: Database) -> None:
    with pytest.raises(DBAPIError):
        async with database.session() as session:
            await session.execute(text("SELECT nothing FROM nowhere"))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hunter2@host/fleet",
        "postgresql:user:hunter2@host/fleet",
        "user:hunter2@host/fleet",
        "postgresql://user:hunter2@host:port/fleet",
    ],
)
async def test_a_url_of_another_kind_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(FleetError, match="use sqlite") as caught:
        await Database.open(url)

    assert "hunter2" not in str(caught.value)


async def test_dead_letters_are_bounded_and_hold_any_topic(database: Database) -> None:
    async with database.session() as session:
        for number in range(9):
            await dead_letters.add(session, f"\x00\ud800{number}", b"x" * 300_000, WHY, NOON, keep=5)

    async with database.session() as session:
        rows = await dead_letters.listing(session)
    assert [row.topic[-1] for row in rows] == ["8", "7", "6", "5", "4"]
    assert {len(row.payload) for row in rows} == {256 * 1024}
