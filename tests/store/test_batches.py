"""Many messages at once, straight at the dispatcher, on a real database."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from cloud.bus import Incoming
from cloud.consumers.dispatch import Dispatcher
from cloud.enrolled import Enrolled
from cloud.feed import Ended, Feed, Told, Watch
from cloud.store import commands, dead_letters, devices, events
from cloud.store.database import Database
from schemas import topics
from schemas.base import to_wire
from schemas.commands import CommandResult, CommandStatus
from schemas.presence import Online, Presence
from schemas.reported import Phase, Reported
from schemas.topics import Topics, UpTopic
from tests.store.conftest import NOON, enrol

TOPICS = Topics()
SUCCEEDED, ACCEPTED = CommandStatus.SUCCEEDED, CommandStatus.ACCEPTED


class Post:
    """Makes messages and counts their acknowledgements."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []

    def message(self, topic: UpTopic, payload: bytes) -> Incoming:
        name = TOPICS.print(topic)
        return Incoming(name, payload, retained=False, ack=lambda: self.acknowledged.append(name))

    def result(self, device: UUID, command: UUID, status: CommandStatus) -> Incoming:
        payload = to_wire(CommandResult(status=status, at=NOON))
        return self.message(topics.Result(device, "ping", command), payload)

    def report(self, device: UUID, revision: int, phase: Phase = Phase.IDLE) -> Incoming:
        payload = to_wire(Reported(revision=revision, phase=phase, at=NOON))
        return self.message(topics.Reported(device), payload)


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def dispatcher(database: Database, feed: Feed) -> Dispatcher:
    return a_dispatcher(database, feed)


def a_dispatcher(database: Database, feed: Feed | None = None) -> Dispatcher:
    return Dispatcher(database, TOPICS, feed or Feed(), Enrolled(), lambda: NOON, Random(1))


async def diary(database: Database) -> Sequence[tuple[str, str]]:
    """Return kind and word of each event."""
    async with database.session() as session:
        rows = await events.after(session, 0)
    return [(row.kind, row.data.get("status") or row.data.get("phase") or "") for row in rows]


async def letters(database: Database) -> Sequence[str]:
    """Return the codes of the dead letters, oldest first."""
    async with database.session() as session:
        return [row.code for row in await dead_letters.listing(session)][::-1]


async def test_what_cannot_be_read_is_put_aside_and_the_rest_of_its_batch_is_recorded(
    database: Database, device: UUID, dispatcher: Dispatcher, post: Post
) -> None:
    command = uuid4()
    batch = [
        post.result(device, command, ACCEPTED),
        post.message(topics.Reported(device), b"{"),
        post.report(uuid4(), 1),
        post.result(device, command, SUCCEEDED),
    ]

    await dispatcher.handle(batch)

    assert await diary(database) == [("result", "accepted"), ("result", "succeeded")]
    assert await letters(database) == ["payload.json_syntax", "device.unknown"]
    assert post.acknowledged == [each.topic for each in batch]


async def test_a_message_that_no_transaction_takes_is_put_aside_alone(
    database: Database, device: UUID, dispatcher: Dispatcher, post: Post
) -> None:
    await refuse_alerts(database)
    command = uuid4()
    batch = [
        post.result(device, command, ACCEPTED),
        post.message(topics.Alert(device, "hot"), b"{}"),
        post.result(device, command, SUCCEEDED),
        post.report(device, 1),
    ]

    await dispatcher.handle(batch)

    assert await diary(database) == [("result", "accepted"), ("result", "succeeded"), ("reported", "idle")]
    assert await letters(database) == ["internal"]
    assert post.acknowledged == [each.topic for each in batch]


async def refuse_alerts(database: Database) -> None:
    """Have the database itself refuse a kind of row."""
    async with database.session() as session:
        if session.get_bind().dialect.name == "postgresql":
            await session.execute(text("ALTER TABLE events ADD CONSTRAINT calm CHECK (kind <> 'alert')"))
        else:
            refusing = "BEGIN SELECT RAISE(ABORT, 'calm'); END"
            when = "BEFORE INSERT ON events WHEN NEW.kind = 'alert'"
            await session.execute(text(f"CREATE TRIGGER calm {when} {refusing}"))


async def test_a_batch_that_comes_again_after_its_commit_changes_nothing(
    database: Database, device: UUID, post: Post
) -> None:
    command = uuid4()
    batch = [
        post.message(
            topics.Presence(device),
            to_wire(Presence(status=Online.ONLINE, session=3, boot=device, at=NOON)),
        ),
        post.result(device, command, ACCEPTED),
        post.report(device, 1),
        post.report(device, 2, Phase.STAGING),
        post.result(device, command, SUCCEEDED),
    ]
    await a_dispatcher(database).handle(batch)
    before = await diary(database)

    await a_dispatcher(database).handle(batch)

    told = ["online", "accepted", "idle", "staging", "succeeded"]
    assert [word for _, word in before] == told
    assert await diary(database) == before
    assert await letters(database) == []


async def test_reports_of_one_batch_are_told_in_their_order_and_old_ones_not_at_all(
    database: Database, device: UUID, dispatcher: Dispatcher, post: Post
) -> None:
    other = await enrol(database)
    phases = [Phase.STAGING, Phase.SWITCHING, Phase.SWITCHING, Phase.SOAKING]
    reports = [post.report(device, number + 1, phase) for number, phase in enumerate(phases)]

    await dispatcher.handle([*reports, post.report(device, 2), post.report(other, 1)])

    words = [word for _, word in await diary(database)]
    assert words == ["staging", "switching", "soaking", "idle"]
    async with database.session() as session:
        row = await devices.require(session, device)
    assert (row.revision, row.seen_at) == (4, NOON)


async def test_a_device_that_comes_back_at_once_is_seen_at_once(
    database: Database, device: UUID, post: Post
) -> None:
    times = [NOON]
    dispatcher = Dispatcher(database, TOPICS, Feed(), Enrolled(), lambda: times[-1], Random(1))

    for session in (1, 2):
        word = Presence(status=Online.ONLINE, session=session, boot=device, at=NOON)
        await dispatcher.handle([post.message(topics.Presence(device), to_wire(word))])
        times.append(NOON + timedelta(milliseconds=300))

    async with database.session() as opened:
        assert (await devices.require(opened, device)).seen_at == NOON + timedelta(milliseconds=300)


async def test_who_waits_for_a_command_is_woken_by_its_end_and_by_nothing_else(
    database: Database, device: UUID, dispatcher: Dispatcher, feed: Feed, post: Post
) -> None:
    command = uuid4()
    with feed.watch(Ended(command)) as waiter, feed.watch(Told(device)) as follower:
        await dispatcher.handle([post.result(device, command, ACCEPTED)])
        assert await woken(follower)
        assert not await woken(waiter, within=0.05)

        await dispatcher.handle([post.result(device, uuid4(), SUCCEEDED)])
        assert not await woken(waiter, within=0.05)

        await dispatcher.handle([post.result(device, command, SUCCEEDED)])
        assert await woken(waiter)
    async with database.session() as session:
        assert (await commands.require(session, command)).status == "succeeded"


async def woken(watch: Watch, within: float = 5) -> bool:
    try:
        await asyncio.wait_for(watch.wait(60), within)
    except TimeoutError:
        return False
    return True
