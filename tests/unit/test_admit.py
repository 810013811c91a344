"""Whether a command is carried out: tables for the rules, properties for what must always hold."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.commands.admit import InHand, Refuse, Repeat, Run, Stored, admit, digest
from schemas.commands import (
    MAX_CLOCK_SKEW,
    MAX_TIMEOUT,
    Command,
    CommandName,
    CommandResult,
    CommandStatus,
)
from schemas.errors import ErrorCode, problem

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
JUNK = problem(ErrorCode.PAYLOAD_JSON_SYNTAX, "line 1, column 1: no")
DONE = CommandResult(status=CommandStatus.SUCCEEDED, at=NOON, detail="web restarted")
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def restart(
    service: str = "web", *, issued_at: datetime = NOON, deadline: datetime = NOON + MINUTE
) -> Command:
    return Command(
        id=ID,
        name=CommandName.RESTART,
        arguments={"service": service},
        issued_at=issued_at,
        deadline=deadline,
    )


def stored(command: Command, answer: CommandResult | None = None) -> Stored:
    status = CommandStatus.STARTED if answer is None else answer.status
    return Stored(command, digest(command), status, NOON, answer=answer)


@pytest.mark.parametrize(
    ("command", "now"),
    [
        pytest.param(restart(), NOON, id="on time"),
        pytest.param(restart(), NOON + MINUTE - TICK, id="at the last moment"),
        pytest.param(
            restart(issued_at=NOON + MAX_CLOCK_SKEW), NOON, id="from a clock that is a little ahead"
        ),
        pytest.param(restart(deadline=NOON + MAX_TIMEOUT), NOON, id="with the longest deadline"),
    ],
)
def test_a_new_command_in_time_is_run(command: Command, now: datetime) -> None:
    assert admit(command, None, now) == Run(command)


@pytest.mark.parametrize(
    ("command", "now", "status", "code"),
    [
        (restart(), NOON + MINUTE, CommandStatus.EXPIRED, ErrorCode.COMMAND_EXPIRED),
        (restart(), NOON + timedelta(days=400), CommandStatus.EXPIRED, ErrorCode.COMMAND_EXPIRED),
        (
            restart(issued_at=NOON + MAX_CLOCK_SKEW + TICK, deadline=NOON + 10 * MINUTE),
            NOON,
            CommandStatus.REJECTED,
            ErrorCode.COMMAND_FROM_FUTURE,
        ),
        (
            restart(deadline=NOON + MAX_TIMEOUT + TICK),
            NOON,
            CommandStatus.REJECTED,
            ErrorCode.VALUE_OUT_OF_RANGE,
        ),
    ],
)
def test_a_new_command_out_of_time_is_refused(
    command: Command, now: datetime, status: CommandStatus, code: ErrorCode
) -> None:
    verdict = admit(command, None, now)

    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.problem.code) == (status, code)


def test_what_cannot_be_read_is_rejected_with_its_problem() -> None:
    assert admit(JUNK, None, NOON) == Refuse(CommandStatus.REJECTED, JUNK)


def test_an_answered_command_gets_its_answer_again_however_late() -> None:
    again = restart(issued_at=NOON + 90 * MINUTE, deadline=NOON + 91 * MINUTE)

    assert admit(again, stored(restart(), DONE), NOON + timedelta(days=6)) == Repeat(DONE)


def test_a_command_in_hand_is_not_run_a_second_time() -> None:
    assert admit(restart(), stored(restart()), NOON) == InHand(CommandStatus.STARTED)


@pytest.mark.parametrize("answer", [None, DONE])
@pytest.mark.parametrize("other", [restart("store"), JUNK])
def test_other_content_under_a_known_id_is_a_conflict(other: Command, answer: CommandResult | None) -> None:
    verdict = admit(other, stored(restart(), answer), NOON)

    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.problem.code) == (CommandStatus.REJECTED, ErrorCode.COMMAND_ID_CONFLICT)


@given(st.permutations(["service", "tail", "follow"]))
def test_the_order_of_arguments_is_no_other_content(names: list[str]) -> None:
    values = {"service": "web", "tail": 3, "follow": False}
    command = Command(
        id=ID,
        name=CommandName.LOGS,
        arguments={name: values[name] for name in names},
        issued_at=NOON,
        deadline=NOON + MINUTE,
    )

    assert digest(command) == digest(command.model_copy(update={"arguments": values}))


@given(issued_at=TIMES, deadline=TIMES, now=TIMES)
def test_nothing_runs_after_its_deadline_or_from_the_future(
    issued_at: datetime, deadline: datetime, now: datetime
) -> None:
    verdict = admit(restart(issued_at=issued_at, deadline=deadline), None, now)

    if isinstance(verdict, Run):
        assert now < deadline
        assert issued_at <= now + MAX_CLOCK_SKEW
        assert deadline <= issued_at + MAX_TIMEOUT


@given(
    issued_at=TIMES,
    deadline=TIMES,
    now=TIMES,
    answer=st.sampled_from([None, DONE]),
    service=st.sampled_from(["web", "store"]),
)
def test_a_known_id_never_runs(
    issued_at: datetime, deadline: datetime, now: datetime, answer: CommandResult | None, service: str
) -> None:
    known = stored(restart(), answer)

    verdict = admit(restart(service, issued_at=issued_at, deadline=deadline), known, now)

    assert not isinstance(verdict, Run)


def test_another_id_is_another_command() -> None:
    assert isinstance(admit(restart().model_copy(update={"id": uuid4()}), None, NOON), Run)
