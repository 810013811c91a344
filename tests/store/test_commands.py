from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.store import commands
from cloud.store.database import Database
from cloud.store.tables import CommandRow
from schemas.commands import Command, CommandName, CommandResult, CommandStatus
from schemas.errors import FleetError
from tests.store.conftest import NOON, enrol

MINUTE = timedelta(minutes=1)


def a_command(**changes: object) -> Command:
    fields = {
        "id": uuid4(),
        "name": CommandName.RESTART,
        "arguments": {"service": "web"},
        "issued_at": NOON,
        "deadline": NOON + MINUTE,
        "issued_by": "test",
    }
    return Command(**{**fields, **changes})


async def ordered(database: Database, device: UUID, command: Command | None = None) -> CommandRow:
    async with database.session() as session:
        return await commands.create(session, command or a_command(), device, NOON)


async def answer(
    database: Database, row: CommandRow, status: CommandStatus, device: UUID | None = None
) -> bool:
    async with database.session() as session:
        result = CommandResult(status=status, at=NOON)
        return await commands.record(session, device or row.device, row.id, result, NOON) is not None


async def status_of(database: Database, row: CommandRow) -> str:
    async with database.session() as session:
        return (await commands.require(session, row.id)).status


async def test_the_same_order_twice_is_one_command(database: Database, device: UUID) -> None:
    command = a_command()

    first, second = await ordered(database, device, command), await ordered(database, device, command)

    assert first.id == second.id
    async with database.session() as session:
        assert len(await commands.listing(session, device)) == 1


async def test_an_id_is_not_used_for_another_command(database: Database, device: UUID) -> None:
    command = a_command()
    await ordered(database, device, command)

    for other, where in (
        (a_command(id=command.id, arguments={"service": "db"}), device),
        (command, await enrol(database)),
    ):
        with pytest.raises(FleetError) as caught:
            await ordered(database, where, other)
        assert caught.value.code == "command.id_conflict"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(CommandStatus), max_size=8))
async def test_only_words_that_may_follow_are_news(database: Database, words: list[CommandStatus]) -> None:
    row = await ordered(database, await enrol(database))
    current = CommandStatus.QUEUED
    for status in words:
        assert await answer(database, row, status) == status.may_follow(current)
        current = status if status.may_follow(current) else current
        assert await status_of(database, row) == current


async def test_another_devices_word_counts_for_nothing(database: Database, device: UUID) -> None:
    row = await ordered(database, device)

    assert not await answer(database, row, CommandStatus.SUCCEEDED, device=await enrol(database))
    assert await status_of(database, row) == "queued"


async def test_a_command_is_due_again_until_its_last_word(database: Database, device: UUID) -> None:
    row = await ordered(database, device)

    async with database.session() as session:
        assert await commands.due(session, NOON + timedelta(seconds=1), 10) == []
        (due,) = await commands.due(session, NOON + timedelta(seconds=2), 10)
        assert await commands.sent(session, due, NOON + timedelta(seconds=2))
        assert not await commands.sent(session, due, NOON + timedelta(seconds=2)), "claimed twice"
    async with database.session() as session:
        assert await commands.due(session, NOON + timedelta(seconds=5), 10) == []
        assert len(await commands.due(session, NOON + timedelta(seconds=6), 10)) == 1
        assert await commands.due(session, NOON + MINUTE, 10) == [], "the deadline is over"
    await answer(database, row, CommandStatus.SUCCEEDED)
    async with database.session() as session:
        assert await commands.due(session, NOON + timedelta(seconds=50), 10) == []


async def test_silence_past_the_deadline_is_said_and_a_late_word_still_counts(
    database: Database, device: UUID
) -> None:
    row = await ordered(database, device)

    async with database.session() as session:
        assert await commands.expire(session, NOON + MINUTE + commands.GRACE) == []
        (given_up,) = await commands.expire(session, NOON + MINUTE + 2 * commands.GRACE)
        assert await commands.expire(session, NOON + MINUTE + 2 * commands.GRACE) == []

    assert (given_up.id, given_up.status) == (row.id, "unanswered")
    assert await answer(database, row, CommandStatus.SUCCEEDED)
    assert await status_of(database, row) == "succeeded"


async def test_old_commands_are_forgotten(database: Database, device: UUID) -> None:
    await ordered(database, device)

    async with database.session() as session:
        assert await commands.prune(session, NOON + commands.KEPT - MINUTE) == 0
        assert await commands.prune(session, NOON + commands.KEPT + MINUTE) == 1
