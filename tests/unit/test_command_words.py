"""The ladder of words on a command, and how a command is read."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.commands import ARGUMENTS, Command, CommandName, CommandStatus, read_command
from schemas.errors import Unreadable

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = UUID("6f9d7b1a-4f5e-4c8e-9a43-2f6f1f2f3a4b")
FINAL = [status for status in CommandStatus if status.final]
words = st.sampled_from(CommandStatus)


def told(first: CommandStatus, story: list[CommandStatus]) -> CommandStatus:
    """Return where a reader ends that takes only what may follow."""
    status = first
    for word in story:
        status = word if word.may_follow(status) else status
    return status


@pytest.mark.parametrize("status", CommandStatus)
def test_only_progress_is_news_twice(status: CommandStatus) -> None:
    assert status.may_follow(status) is (status is CommandStatus.PROGRESS)


@given(st.sampled_from(FINAL), words)
def test_nothing_follows_a_final_word(final: CommandStatus, word: CommandStatus) -> None:
    assert not word.may_follow(final)


@given(words, words)
def test_no_word_undoes_another(one: CommandStatus, other: CommandStatus) -> None:
    assert one is other or not (one.may_follow(other) and other.may_follow(one))


@given(words, words, words)
def test_the_order_of_words_is_transitive(
    first: CommandStatus, second: CommandStatus, third: CommandStatus
) -> None:
    if second.may_follow(first) and third.may_follow(second):
        assert third.may_follow(first)


@given(st.data(), st.sampled_from(FINAL))
def test_words_lost_doubled_and_shuffled_end_with_the_final_word(
    data: st.DataObject, final: CommandStatus
) -> None:
    others = [status for status in CommandStatus if not status.final]
    story = data.draw(st.permutations([final, *data.draw(st.lists(st.sampled_from([*others, final])))]))

    assert told(CommandStatus.QUEUED, story) is final


def test_the_clouds_own_words_never_come_from_a_device_that_has_answered() -> None:
    for status in CommandStatus:
        assert not CommandStatus.QUEUED.may_follow(status)
    assert CommandStatus.SUCCEEDED.may_follow(CommandStatus.UNANSWERED)
    assert not CommandStatus.STARTED.may_follow(CommandStatus.UNANSWERED)


def test_the_smallest_command_is_whole() -> None:
    command = read_command("restart", ID, b'{"service":"web"}', now=NOON)

    assert command == Command(
        id=ID,
        name=CommandName.RESTART,
        arguments={"service": "web"},
        issued_at=NOON,
        deadline=NOON + timedelta(seconds=60),
    )


@pytest.mark.parametrize("payload", [b"", b" \n", b"{}"])
def test_nothing_is_no_arguments(payload: bytes) -> None:
    assert read_command("ping", ID, payload, now=NOON).arguments == {}


@pytest.mark.parametrize(
    ("word", "payload", "code"),
    [
        ("explode", b"{}", "command.unknown"),
        ("restart", b"{}", "field.missing"),
        ("restart", b'{"servcie":"web"}', "field.unknown"),
        ("restart", b'{"service":"WEB"}', "value.bad_character"),
        ("restart", b"[]", "value.wrong_type"),
        ("restart", b'"web"', "value.wrong_type"),
        ("restart", b'{"service":"web","service":"db"}', "payload.duplicate_key"),
        ("logs", b'{"service":"web","tail":1.5}', "value.wrong_type"),
        ("logs", b'{"service":"web","tail":-1}', "value.out_of_range"),
        ("ping", b'{"deadline":"tomorrow"}', "value.wrong_type"),
        ("ping", b'{"deadline":"2026-03-01T12:00:00"}', "value.wrong_type"),
        ("ping", b"{", "payload.json_syntax"),
    ],
)
def test_what_is_wrong_with_a_command_has_its_code(word: str, payload: bytes, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_command(word, ID, payload, now=NOON)

    assert caught.value.code == code


@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"]
)
def test_a_command_from_the_end_of_time_is_read_or_unreadable(moment: str) -> None:
    try:
        command = read_command("ping", ID, b'{"issued_at":"%s"}' % moment.encode(), now=NOON)
    except Unreadable:
        return
    assert command.deadline >= command.issued_at


@given(st.sampled_from([*CommandName, "nothing"]), st.binary() | st.text().map(str.encode))
def test_any_payload_is_a_command_or_unreadable(word: str, payload: bytes) -> None:
    try:
        command = read_command(word, ID, payload, now=NOON)
    except Unreadable:
        return
    command.parsed()


@given(
    st.sampled_from(CommandName),
    st.dictionaries(
        st.sampled_from(
            ["service", "tail", "echo", "id", "follow", "since", "issued_at", "deadline", "issued_by", "x"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=10)
        | st.sampled_from(["web", str(ID), "2026-03-01T12:00:00Z"]),
    ),
)
def test_a_command_prints_a_payload_that_reads_back_as_itself(
    name: CommandName, value: dict[str, object]
) -> None:
    try:
        command = read_command(name, ID, json.dumps(value).encode(), now=NOON)
    except Unreadable:
        return

    again = read_command(name, ID, json.dumps(command.payload()).encode(), now=NOON + timedelta(days=1))

    assert again == command


def test_no_argument_bears_the_name_of_an_envelope_field() -> None:
    for model in ARGUMENTS.values():
        assert not model.model_fields.keys() & {"issued_at", "deadline", "issued_by"}
