"""The topic grammar: one place that prints topics and parses them back.

Every topic is `{root}/{device}/{up|down}/...`; the device's id in it is guarded
by the broker, so it is the identity a receiver may trust. `Topics(root)` is the
only maker and reader of topic strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias
from uuid import UUID

from schemas.errors import ErrorCode, Unreadable, problem, shown

BROKER_UPTIME = "$SYS/broker/uptime"
"""Where Mosquitto tells how long it has been running, as in `42 seconds`."""
DEFAULT_ROOT = "fleet/v1"
MAX_TOPIC = 512

_ROOT = re.compile(r"^[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\Z")
_SLUG = re.compile(r"^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")
_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Presence:
    """`up/presence`: the device is online, or (as its last will) offline. Retained."""

    device: UUID


@dataclass(frozen=True, slots=True)
class Telemetry:
    """`up/telemetry/{stream}`: a batch of samples."""

    device: UUID
    stream: str


@dataclass(frozen=True, slots=True)
class Event:
    """`up/event/{kind}`: something happened on the device."""

    device: UUID
    kind: str


@dataclass(frozen=True, slots=True)
class Alert:
    """`up/alert/{rule}`: an alert the device raised itself. Retained; an empty payload clears it."""

    device: UUID
    rule: str


@dataclass(frozen=True, slots=True)
class Reported:
    """`up/reported`: what the device runs. Retained."""

    device: UUID


@dataclass(frozen=True, slots=True)
class Result:
    """`up/result/{command}/{id}`: one word on one command."""

    device: UUID
    command: str
    id: UUID


@dataclass(frozen=True, slots=True)
class Chunk:
    """`up/chunk/{transfer}`: a piece of a stream, such as followed logs."""

    device: UUID
    transfer: UUID


@dataclass(frozen=True, slots=True)
class Desired:
    """`down/desired`: what the device shall run. Retained."""

    device: UUID


@dataclass(frozen=True, slots=True)
class Config:
    """`down/config`: the device's configuration document. Retained."""

    device: UUID


@dataclass(frozen=True, slots=True)
class Command:
    """`down/command/{command}/{id}`: one command. Never retained."""

    device: UUID
    command: str
    id: UUID


@dataclass(frozen=True, slots=True)
class Ack:
    """`down/ack/{stream}`: every sample up to here is in the database."""

    device: UUID
    stream: str


UpTopic: TypeAlias = Presence | Telemetry | Event | Alert | Reported | Result | Chunk
DownTopic: TypeAlias = Desired | Config | Command | Ack
Topic: TypeAlias = UpTopic | DownTopic


class Topics:
    """Prints and parses topics under one *root*, such as `fleet/v1`."""

    __slots__ = ("_prefix", "root")

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        """Take the root; raise `ValueError` where it is not plain segments joined by slashes."""
        if not _ROOT.match(root) or len(root) > 100:  # noqa: PLR2004 - leaves room for the rest of a topic
            msg = (
                f"topic root {root!r}: use segments of A-Z a-z 0-9 _ . - joined by /, 100 characters at most"
            )
            raise ValueError(msg)
        self.root = root
        self._prefix = f"{root}/"

    def print(self, topic: Topic) -> str:
        """Return *topic* as the broker knows it. Raises `ValueError` on a word that `parse` would refuse."""
        text = f"{self._prefix}{topic.device}/{_tail(topic)}"
        if self.parse(text) != topic:
            msg = f"{topic} has no topic of its own"
            raise ValueError(msg)
        return text

    def parse(self, text: str) -> Topic:  # noqa: C901, PLR0911, PLR0912, RET503 - one line per kind
        """Return the topic that *text* names. Raises `Unreadable` (`topic.unknown`, `device.bad_id`)."""
        if len(text) > MAX_TOPIC or not text.startswith(self._prefix):
            _unknown(text, f"it does not start with {self._prefix}")
        device_text, _, rest = text[len(self._prefix) :].partition("/")
        device = _uuid(device_text, text, ErrorCode.DEVICE_BAD_ID)
        match rest.split("/"):
            case ["up", "presence"]:
                return Presence(device)
            case ["up", "telemetry", stream]:
                return Telemetry(device, _slug(stream, text))
            case ["up", "event", kind]:
                return Event(device, _slug(kind, text))
            case ["up", "alert", rule]:
                return Alert(device, _slug(rule, text))
            case ["up", "reported"]:
                return Reported(device)
            case ["up", "result", command, command_id]:
                return Result(device, _slug(command, text), _uuid(command_id, text))
            case ["up", "chunk", transfer]:
                return Chunk(device, _uuid(transfer, text))
            case ["down", "desired"]:
                return Desired(device)
            case ["down", "config"]:
                return Config(device)
            case ["down", "command", command, command_id]:
                return Command(device, _slug(command, text), _uuid(command_id, text))
            case ["down", "ack", stream]:
                return Ack(device, _slug(stream, text))
            case _:
                _unknown(text, "no topic has this form")

    def down(self, device: UUID) -> str:
        """Return the filter for everything sent to *device*."""
        return f"{self._prefix}{device}/down/#"

    def in_up_tree(self, text: str, device: UUID) -> bool:
        """Return whether *text* is a topic, known or not, that *device* itself may publish to."""
        return text.startswith(f"{self._prefix}{device}/up/") and not set(text) & {"+", "#", "\x00"}

    def every(self, kind: type[UpTopic]) -> str:
        """Return the filter for one kind of upward topic from every device."""
        return f"{self._prefix}+/up/{_FILTER[kind]}"

    def shared(self, group: str, kind: type[UpTopic]) -> str:
        """Return `every(kind)` as an MQTT 5 shared subscription of *group*."""
        return f"$share/{group}/{self.every(kind)}"


_FILTER: dict[type[UpTopic], str] = {
    Presence: "presence",
    Telemetry: "telemetry/+",
    Event: "event/+",
    Alert: "alert/+",
    Reported: "reported",
    Result: "result/+/+",
    Chunk: "chunk/+",
}


def _tail(topic: Topic) -> str:  # noqa: C901, PLR0911 - one line per kind
    match topic:
        case Presence():
            return "up/presence"
        case Telemetry(stream=stream):
            return f"up/telemetry/{stream}"
        case Event(kind=kind):
            return f"up/event/{kind}"
        case Alert(rule=rule):
            return f"up/alert/{rule}"
        case Reported():
            return "up/reported"
        case Result(command=command, id=id_):
            return f"up/result/{command}/{id_}"
        case Chunk(transfer=transfer):
            return f"up/chunk/{transfer}"
        case Desired():
            return "down/desired"
        case Config():
            return "down/config"
        case Command(command=command, id=id_):
            return f"down/command/{command}/{id_}"
        case Ack(stream=stream):
            return f"down/ack/{stream}"


def _slug(word: str, topic: str) -> str:
    if not _SLUG.match(word):
        _unknown(topic, f"{shown(word)} is not a word of a-z, 0-9, _ and -, at most 63 long")
    return word


def _uuid(word: str, topic: str, code: ErrorCode = ErrorCode.TOPIC_UNKNOWN) -> UUID:
    if not _UUID.match(word):
        message = f"{shown(word)} in topic {shown(topic)} is not a lower-case UUID4, such as uuidgen prints"
        raise Unreadable(problem(code, message))
    return UUID(word)


def _unknown(topic: str, why: str) -> NoReturn:
    message = f"topic {shown(topic)}: {why}; see docs/api/asyncapi.json"
    raise Unreadable(problem(ErrorCode.TOPIC_UNKNOWN, message))
