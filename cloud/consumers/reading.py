"""From a message on the bus to what it says; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from cloud.bus import Incoming
from schemas import topics
from schemas.commands import CommandResult, LogChunk
from schemas.errors import ErrorCode, Problem, Unreadable, problem, shown
from schemas.presence import Presence
from schemas.reading import read, read_json
from schemas.reported import DeviceEvent, Reported
from schemas.topics import Topics

Topic: TypeAlias = (
    topics.Presence | topics.Reported | topics.Result | topics.Event | topics.Alert | topics.Chunk
)
Content: TypeAlias = Presence | Reported | CommandResult | DeviceEvent | LogChunk | dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Said:
    """A message that could be read. The content is of the kind its topic says."""

    incoming: Incoming
    topic: Topic
    content: Content


@dataclass(frozen=True, slots=True)
class Refused:
    """A message to be kept aside, and why."""

    incoming: Incoming
    why: Problem


def understand(incoming: Incoming, known: Topics) -> Said | Refused:
    """Return what *incoming* says, or why it says nothing."""
    try:
        topic = known.parse(incoming.topic)
        if not isinstance(topic, Topic):
            _nobodys(incoming.topic)
        return Said(incoming, topic, _content(topic, incoming.payload))
    except Unreadable as error:
        return Refused(incoming, error.problem)


def _content(topic: Topic, payload: bytes) -> Content:
    match topic:
        case topics.Presence():
            return read(Presence, payload)
        case topics.Reported():
            return read(Reported, payload)
        case topics.Result():
            return read(CommandResult, payload)
        case topics.Event():
            return read(DeviceEvent, payload)
        case topics.Alert():
            return _alert(payload)
        case topics.Chunk():
            return read(LogChunk, payload)


def _alert(payload: bytes) -> dict[str, Any] | None:
    alert = read_json(payload) if payload else None
    if alert is not None and not isinstance(alert, dict):
        message = f"an alert is a JSON object, or nothing when it is over; got {shown(alert)}"
        raise Unreadable(problem(ErrorCode.VALUE_WRONG_TYPE, message))
    return alert


def _nobodys(topic: str) -> NoReturn:
    message = f"topic {shown(topic)} is not one that devices speak to the cloud on"
    raise Unreadable(problem(ErrorCode.TOPIC_UNKNOWN, message))
