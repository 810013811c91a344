"""Commands on the memory engine: what each answers, once, whatever is repeated, late or interrupted."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from device.commands import serve
from device.commands.handlers import logs
from device.commands.ledger import MOST, Ledger
from device.engine.behaviour import Behaviour
from schemas.base import print_time
from schemas.commands import CommandStatus
from schemas.errors import ErrorCode
from tests.agent.bench import Bench, bench, now, order, rungs

UNREADABLE = UUID("5d1b4a8e-3c1f-4f7e-9a51-2f4f7f1f6a10")

ACCEPTED, STARTED, SUCCEEDED = CommandStatus.ACCEPTED, CommandStatus.STARTED, CommandStatus.SUCCEEDED
FAILED, REJECTED, EXPIRED = CommandStatus.FAILED, CommandStatus.REJECTED, CommandStatus.EXPIRED


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as ready:
        yield ready


async def test_ping_climbs_the_ladder_and_brings_the_echo_back(device: Bench) -> None:
    async with device.serving() as server:
        command = await order(server, "ping", b'{"echo": "hi"}')
        answer = await device.line.answer(command)

    assert rungs(device.line.words(command)) == [ACCEPTED, STARTED, SUCCEEDED]
    assert answer.data is not None
    assert answer.data["echo"] == "hi"


async def test_restart_stops_and_starts_once(device: Bench) -> None:
    await device.run_service()
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, "restart", b'{"service": "web"}'))

    assert (answer.status, answer.detail) == (SUCCEEDED, "web restarted")
    assert (device.stops(), device.starts()) == (1, 2)
    assert (await device.journal.starts("web")).count == 1


async def test_a_command_said_five_times_has_one_effect_and_one_story(device: Bench) -> None:
    await device.run_service()
    command = uuid4()
    async with device.serving() as server:
        for _ in range(5):
            await order(server, "restart", b'{"service": "web"}', command=command)
        first = await device.line.answer(command)
        await order(server, "restart", b'{"service": "web"}', command=command)
        await device.line.until(lambda: rungs(device.line.words(command)).count(SUCCEEDED) >= 2)

    assert device.starts() == 2
    assert all(word == first for word in device.line.words(command) if word.status.final)


async def test_the_same_id_for_something_else_is_a_conflict(device: Bench) -> None:
    async with device.serving() as server:
        command = await order(server, "ping", b"")
        await device.line.answer(command)
        await order(server, "ping", b'{"echo": "other"}', command=command)
        await device.line.until(lambda: REJECTED in rungs(device.line.words(command)))

    error = device.line.words(command)[-1].error
    assert error is not None
    assert error.code == ErrorCode.COMMAND_ID_CONFLICT


@pytest.mark.parametrize(
    ("name", "payload", "status", "code"),
    [
        ("restart", b'{"service": "nope"}', FAILED, ErrorCode.SERVICE_UNKNOWN),
        ("start", b'{"service": "nope"}', FAILED, ErrorCode.SERVICE_UNKNOWN),
        ("stop", b'{"service": "nope"}', FAILED, ErrorCode.SERVICE_UNKNOWN),
        ("logs", b'{"service": "nope"}', FAILED, ErrorCode.SERVICE_UNKNOWN),
        ("inspect", b'{"service": "nope"}', FAILED, ErrorCode.SERVICE_UNKNOWN),
        ("restart", b'{"servce": "web"}', REJECTED, ErrorCode.FIELD_UNKNOWN),
        ("restart", b"", REJECTED, ErrorCode.FIELD_MISSING),
        ("restart", b"{", REJECTED, ErrorCode.PAYLOAD_JSON_SYNTAX),
        ("restart", b"\xff", REJECTED, ErrorCode.PAYLOAD_NOT_UTF8),
        ("fly", b"{}", REJECTED, ErrorCode.COMMAND_UNKNOWN),
        ("ping", b'{"deadline": "2020-01-01T00:00:00Z"}', EXPIRED, ErrorCode.COMMAND_EXPIRED),
        ("ping", b'{"issued_at": "2100-01-01T00:00:00Z"}', REJECTED, ErrorCode.COMMAND_FROM_FUTURE),
        ("ping", b'{"deadline": "2100-01-01T00:00:00Z"}', REJECTED, ErrorCode.VALUE_OUT_OF_RANGE),
        ("cancel", b'{"id": "0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11"}', FAILED, ErrorCode.COMMAND_REFUSED),
    ],
)
async def test_what_cannot_be_done_gets_one_clear_answer(
    device: Bench, name: str, payload: bytes, status: CommandStatus, code: ErrorCode
) -> None:
    await device.run_service()
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, name, payload))

    assert answer.error is not None
    assert (answer.status, answer.error.code) == (status, code)


async def test_an_unknown_service_is_answered_with_those_there_are(device: Bench) -> None:
    await device.run_service("web")
    await device.run_service("store")
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, "restart", b'{"service": "wbe"}'))

    assert "store, web" in answer.detail


async def test_stop_holds_the_service_and_start_lets_it_go(device: Bench) -> None:
    await device.run_service()
    async with device.serving() as server:
        await device.line.answer(await order(server, "stop", b'{"service": "web"}'))
        held = await device.journal.holds()
        await device.line.answer(await order(server, "start", b'{"service": "web"}'))

    assert held == {"web"}
    assert await device.journal.holds() == frozenset()
    assert (device.stops(), device.starts()) == (1, 2)


async def test_a_service_without_a_container_can_be_held(device: Bench) -> None:
    await device.desire("web")
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, "stop", b'{"service": "web"}'))

    assert answer.status is SUCCEEDED
    assert await device.journal.holds() == {"web"}


async def test_an_engine_that_is_down_fails_the_command_and_says_so(device: Bench) -> None:
    await device.run_service()
    device.memory.world.go_down()
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, "restart", b'{"service": "web"}'))

    assert answer.error is not None
    assert answer.error.code == ErrorCode.ENGINE_UNREACHABLE


async def test_retained_commands_are_ignored(device: Bench) -> None:
    async with device.serving() as server:
        replayed = await order(server, "ping", b"", retained=True)
        await device.line.answer(await order(server, "ping", b""))

    assert device.line.words(replayed) == []


async def test_the_answer_also_goes_to_the_response_topic(device: Bench) -> None:
    async with device.serving() as server:
        command = await order(server, "ping", b"", response_topic="somewhere", correlation=b"42")
        await device.line.answer(command)
        await device.line.until(lambda: bool(device.line.replies))

    topic, payload, correlation = device.line.replies[0]
    assert (topic, correlation) == ("somewhere", b"42")
    assert b"succeeded" in payload


async def answered(device: Bench) -> None:
    """Wait until an answer is in the journal; with the line cut nothing else tells."""
    async with asyncio.timeout(5):
        while not await Ledger(device.journal.database).undelivered():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)


async def test_an_answer_given_without_a_connection_is_sent_with_the_next(device: Bench) -> None:
    await device.run_service()
    async with device.serving() as server:
        await device.line.cut()
        command = await order(server, "restart", b'{"service": "web"}')
        await answered(device)
        assert device.line.words(command) == []

        await device.line.join()
        await device.line.answer(command)

    assert device.starts() == 2


async def test_an_answer_the_broker_never_confirmed_is_sent_by_the_next_agent(device: Bench) -> None:
    async with device.serving() as server:
        await device.line.cut()
        command = await order(server, "ping", b"")
        await answered(device)
    await device.line.join()
    async with device.serving():
        answer = await device.line.answer(command)

    assert answer.status is SUCCEEDED
    assert rungs(device.line.words(command)) == [SUCCEEDED]


async def test_a_command_whose_service_is_busy_past_its_deadline_expires_untouched(device: Bench) -> None:
    await device.run_service()
    deadline = print_time(now() + timedelta(seconds=0.2))
    payload = f'{{"service": "web", "deadline": "{deadline}"}}'.encode()
    async with device.serving() as server, device.keeper.reserve("web"):
        command = await order(server, "restart", payload)
        answer = await device.line.answer(command)

    assert answer.status is EXPIRED
    assert device.starts() == 1


async def test_commands_on_one_service_follow_each_other(device: Bench) -> None:
    device.memory.world.behave("shop/web:1", Behaviour(stop_takes=0.1))
    await device.run_service()
    async with device.serving() as server:
        commands = [await order(server, "restart", b'{"service": "web"}') for _ in range(3)]
        for command in commands:
            await device.line.answer(command)

    acted = [action for action, _ in device.memory.world.actions if action in {"stop", "start"}]
    assert acted == ["start", "stop", "start", "stop", "start", "stop", "start"]


async def test_too_many_commands_are_refused_as_busy_and_the_rest_are_done(device: Bench) -> None:
    await device.run_service()
    most = serve.RUNNING + serve.WAITING
    async with device.serving() as server:
        async with device.keeper.reserve("web"):
            taken = [await order(server, "stop", b'{"service": "web"}') for _ in range(most)]
            refused = await order(server, "ping", b"")
            answer = await device.line.answer(refused)
        for command in taken:
            assert (await device.line.answer(command)).status is SUCCEEDED

    assert answer.error is not None
    assert (answer.status, answer.error.code) == (REJECTED, ErrorCode.COMMAND_BUSY)


async def test_the_last_lines_of_a_log_come_in_the_answer(device: Bench) -> None:
    device.memory.world.behave("shop/web:1", Behaviour(lines=tuple(f"line {n}" for n in range(9))))
    await device.run_service()
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, "logs", b'{"service": "web", "tail": 2}'))

    assert answer.data == {"lines": ["line 7", "line 8"], "truncated": False}


async def test_a_followed_log_comes_in_chunks_until_it_is_cancelled(device: Bench) -> None:
    device.memory.world.behave("shop/web:1", Behaviour(lines=("hello",), line_every=0.05))
    await device.run_service()
    async with device.serving() as server:
        followed = await order(server, "logs", b'{"service": "web", "follow": true}')
        await device.line.until(lambda: sum(len(c.lines) for c in device.line.chunks(followed)) >= 5)
        await order(server, "cancel", f'{{"id": "{followed}"}}'.encode())
        answer = await device.line.answer(followed)

    pieces = device.line.chunks(followed)
    assert [piece.seq for piece in pieces] == list(range(len(pieces)))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert answer.data is not None
    assert answer.data["lines"] == sum(len(piece.lines) for piece in pieces)
    assert pieces[0].lines[0] == "hello"


async def test_a_followed_log_ends_with_its_container(device: Bench) -> None:
    device.memory.world.behave("shop/web:1", Behaviour(lines=("bye",), exits_after=0.3))
    await device.run_service()
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, "logs", b'{"service": "web", "follow": true}'))

    assert answer.detail == "1 lines sent; the container ended"


async def test_a_followed_log_ends_at_its_deadline(device: Bench) -> None:
    await device.run_service()
    deadline = print_time(now() + timedelta(seconds=0.4))
    payload = f'{{"service": "web", "follow": true, "deadline": "{deadline}"}}'.encode()
    async with device.serving() as server:
        answer = await device.line.answer(await order(server, "logs", payload))

    assert answer.status is SUCCEEDED


async def test_a_followed_log_interrupted_by_the_agents_end_is_answered_by_the_next(device: Bench) -> None:
    device.memory.world.behave("shop/web:1", Behaviour(lines=("hello",)))
    await device.run_service()
    async with device.serving() as server:
        followed = await order(server, "logs", b'{"service": "web", "follow": true}')
        await device.line.until(lambda: bool(device.line.chunks(followed)))
    async with device.serving():
        answer = await device.line.answer(followed)

    assert answer.error is not None
    assert answer.error.code == ErrorCode.COMMAND_INTERRUPTED


async def test_inspect_and_diagnostics_say_what_there_is(device: Bench) -> None:
    await device.run_service()
    async with device.serving() as server:
        inspected = await device.line.answer(await order(server, "inspect", b""))
        diagnosed = await device.line.answer(await order(server, "diagnostics", b""))

    assert inspected.data is not None
    assert inspected.data["services"]["web"]["state"] == "running"
    assert diagnosed.data is not None
    assert diagnosed.data["engine"]["containers"] == {"web": "running"}
    assert diagnosed.data["log"] == ["a line"]


async def test_the_ledger_forgets_the_oldest_answers_but_never_an_open_command(device: Bench) -> None:
    ledger = Ledger(device.journal.database)
    async with device.serving() as server:
        done = await order(server, "ping", b"")
        await device.line.answer(done)
        async with device.keeper.reserve("web"):
            opened = await order(server, "stop", b'{"service": "web"}')
            await device.journal.database.run(_fill)
            await order(server, "ping", b"")

            assert sum((await ledger.counts()).values()) <= MOST
            assert await ledger.find(opened) is not None


def _fill(db: object) -> None:
    db.executemany(  # type: ignore[attr-defined]
        "INSERT INTO commands (id, command, digest, received, deadline, status, answer, answered, delivered) "
        "SELECT ?, command, digest, received, deadline, 'succeeded', x'7b7d', '2020-01-01T00:00:00Z', 1 "
        "FROM commands LIMIT 1",
        ((str(UUID(int=number)),) for number in range(MOST + 200)),
    )


def test_the_newest_lines_that_fit_are_kept() -> None:
    assert logs.newest(["aaaa", "bb", "cc"], limit=10) == ["bb", "cc"]
    assert logs.newest([], limit=10) == []


def test_chunks_hold_what_fits_and_lose_nothing() -> None:
    lines = [f"{n:05}" for n in range(100)]
    pieces = list(logs.chunks(lines, limit=100))

    assert [line for piece in pieces for line in piece] == lines
    assert max(len(piece) for piece in pieces) == 12


def test_an_endless_line_is_cut_and_says_so() -> None:
    assert logs.cut("x" * 50_000).endswith("... (50000 characters)")


async def test_a_row_that_cannot_be_read_stops_neither_the_agent_nor_other_commands(device: Bench) -> None:
    await device.journal.database.run(
        lambda db: db.execute(
            "INSERT INTO commands (id, command, digest, received, deadline, status) "
            "VALUES (?, ?, '', ?, ?, ?)",
            (str(UNREADABLE), b'{"name": "of-a-later-version"}', "2026", "2026", "accepted"),
        )
    )

    async with device.serving() as server:
        again = await order(server, "ping", b"{}", command=UNREADABLE)
        refused = await device.line.answer(again)
        answered = await device.line.answer(await order(server, "ping", b"{}"))

    assert (refused.status, refused.error and refused.error.code) == (CommandStatus.FAILED, "internal")
    assert answered.status is CommandStatus.SUCCEEDED
