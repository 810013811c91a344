from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.commands import Commander
from cloud.consumers import results
from cloud.enrolled import Enrolled
from cloud.feed import Feed
from cloud.store import commands
from cloud.store.database import Database
from cloud.store.tables import CommandRow
from schemas import topics
from schemas.commands import Command, CommandName, CommandResult, CommandStatus
from schemas.errors import ErrorCode, FleetError, problem
from tests.store.conftest import NOON, enrol
from tests.store.publishing import Taker

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
        topic = topics.Result(device or row.device, row.name, row.id)
        return await commands.record(session, topic, result, NOON) is not None


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


async def said(database: Database, topic: topics.Result, result: CommandResult) -> None:
    async with database.session() as session:
        await results.record(session, topic, result, NOON)


def a_word(status: CommandStatus, **more: Any) -> CommandResult:
    return CommandResult(status=status, at=NOON, **more)


@pytest.mark.parametrize("name", ["restart", "reboot"])
async def test_a_command_born_on_a_topic_is_never_sent_and_waited_for_long(
    database: Database, device: UUID, name: str
) -> None:
    topic, bus = topics.Result(device, name, uuid4()), Taker()
    await said(database, topic, a_word(CommandStatus.STARTED))

    await Commander(database, bus, Feed(), Enrolled(), lambda: NOON + timedelta(seconds=45)).sweep()
    await Commander(database, bus, Feed(), Enrolled(), lambda: NOON + MINUTE * 60).sweep()

    assert bus.asked == []
    async with database.session() as session:
        row = await commands.require(session, topic.id)
    assert (row.status, row.sends, row.next_send_at) == ("started", 0, None)


@pytest.mark.parametrize("status", ["queued", "accepted", "started", "unanswered"])
async def test_a_conflict_about_an_id_rejects_only_a_command_the_device_has_not(
    database: Database, device: UUID, status: str
) -> None:
    row = await ordered(database, device)
    if status != "queued":
        await answer(database, row, CommandStatus(status))
    conflict = a_word(CommandStatus.REJECTED, error=problem(ErrorCode.COMMAND_ID_CONFLICT, "another"))

    await said(database, topics.Result(device, "restart", row.id), conflict)

    assert await status_of(database, row) == ("rejected" if status == "queued" else status)


async def test_a_word_on_another_command_of_the_same_id_counts_for_nothing(
    database: Database, device: UUID
) -> None:
    row = await ordered(database, device)

    await said(database, topics.Result(device, "stop", row.id), a_word(CommandStatus.SUCCEEDED))

    assert await status_of(database, row) == "queued"


async def test_only_what_the_broker_took_counts_as_sent(database: Database, device: UUID) -> None:
    bus, now = Taker(), datetime.now(UTC)
    commander = Commander(database, bus, Feed(), Enrolled(), lambda: now)
    bus.hangs = True
    row = await commander.order(device, "restart", {"service": "web"}, by="test")
    assert row.sends == 0

    async def swept() -> int:
        nonlocal now
        now += timedelta(seconds=10)
        await commander.sweep()
        async with database.session() as session:
            return (await commands.require(session, row.id)).sends

    assert await swept() == 0
    bus.hangs = False
    assert [await swept(), await swept()] == [1, 2]
    assert bus.asked == [device] * 4
