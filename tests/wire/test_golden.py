"""What stands on the wire today must be read, and printed the same, by every later version.

A field that is added with a default appears in what is printed: the test then fails, and the
new line replaces the file after a look at the difference, which must only add.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from schemas import topics
from schemas.base import Document, to_wire
from schemas.commands import CommandResult, LogChunk, read_command
from schemas.config import Config
from schemas.delivery import DELIVERY
from schemas.desired import Desired
from schemas.errors import ErrorCode, Unreadable
from schemas.presence import Presence
from schemas.reading import read
from schemas.reported import DeviceEvent, Reported
from schemas.telemetry import TelemetryBatch, Watermark

GOLDEN = Path(__file__).parent / "golden"
MODELS: dict[str, type[BaseModel]] = {
    "presence-online": Presence,
    "presence-offline": Presence,
    "telemetry": TelemetryBatch,
    "event": DeviceEvent,
    "reported": Reported,
    "result": CommandResult,
    "result-rejected": CommandResult,
    "chunk": LogChunk,
    "desired": Desired,
    "config": Config,
    "ack": Watermark,
}
COMMANDS = ["command-restart", "command-logs"]
LENIENT = [name for name, model in MODELS.items() if not issubclass(model, Document)]
STRICT = [name for name, model in MODELS.items() if issubclass(model, Document)]
FREE = {"env", "depends_on"}
"""Objects whose keys are names that the writer chooses."""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = UUID("9a8b7c6d-5e4f-4a3b-9c2d-1e0f9a8b7c6d")


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")


def test_every_kind_of_message_has_a_golden_file_and_no_file_is_forgotten() -> None:
    assert {path.stem for path in GOLDEN.glob("*")} == {*MODELS, *COMMANDS}
    assert set(MODELS.values()) == {each.model for each in DELIVERY.values() if each.model is not None}


@pytest.mark.parametrize("name", MODELS)
def test_a_golden_message_is_read_and_printed_byte_by_byte(name: str) -> None:
    assert to_wire(read(MODELS[name], golden(name))) == golden(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_golden_command_is_read_and_means_the_same_when_printed(name: str) -> None:
    word = name.removeprefix("command-")
    command = read_command(word, ID, golden(name), now=NOON)

    assert read_command(word, ID, json.dumps(command.payload()).encode(), now=NOON) == command
    assert command.arguments["service"] == "web"


def test_what_devices_send_is_read_leniently_and_what_they_are_ordered_is_not() -> None:
    down = {DELIVERY[kind].model for kind in (topics.Desired, topics.Config)}

    assert {MODELS[name] for name in STRICT} == down


def with_unknown_fields(value: Any) -> list[Any]:
    """Return *value* several times, each time with an unknown field in another of its objects."""
    if isinstance(value, list):
        return [
            [*value[:i], new, *value[i + 1 :]]
            for i, each in enumerate(value)
            for new in with_unknown_fields(each)
        ]
    if not isinstance(value, dict):
        return []
    fixed = {key: each for key, each in value.items() if key not in FREE}
    inner = [{**value, key: new} for key, each in fixed.items() for new in with_unknown_fields(each)]
    return [{**value, "surprise": {"from": "the future"}}, *inner]


@pytest.mark.parametrize("name", LENIENT)
def test_a_field_from_the_future_is_ignored_on_the_way_up(name: str) -> None:
    message = read(MODELS[name], golden(name))
    whole = json.loads(golden(name))

    assert read(MODELS[name], json.dumps({**whole, "surprise": [1]}).encode()) == message


def test_a_field_from_the_future_is_ignored_inside_a_message_too() -> None:
    whole = json.loads(golden("reported"))
    changed = json.loads(golden("reported"))
    for inner in (
        changed["facts"],
        changed["services"][0],
        changed["services"][0]["ports"][0],
        changed["services"][1]["error"],
    ):
        inner["surprise"] = {"from": "the future"}

    assert changed != whole
    assert to_wire(read(Reported, json.dumps(changed).encode())) == golden("reported")


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        (name, json.dumps(changed).encode())
        for name in STRICT
        for changed in with_unknown_fields(json.loads(golden(name)))
    ],
)
def test_a_field_from_the_future_is_refused_on_the_way_down(name: str, payload: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        read(MODELS[name], payload)

    assert caught.value.code == ErrorCode.FIELD_UNKNOWN


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_field_of_a_command_is_refused(name: str) -> None:
    payload = json.dumps({**json.loads(golden(name)), "surprise": 1}).encode()

    with pytest.raises(Unreadable) as caught:
        read_command(name.removeprefix("command-"), ID, payload, now=NOON)

    assert caught.value.code == ErrorCode.FIELD_UNKNOWN
