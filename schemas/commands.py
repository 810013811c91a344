"""Commands to a device and the ladder of words it answers with.

On a topic, a command's payload is its arguments and, if the sender likes, the
envelope fields (`issued_at`, `deadline`, `issued_by`) beside them; the id and
the name stand in the topic. So `{"service": "web"}` is a whole restart command.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from schemas.base import Document, Id, Message, Name, Text, UtcDatetime
from schemas.errors import ErrorCode, Problem, Unreadable, problem, shown
from schemas.reading import fit, read_json

DEFAULT_TIMEOUT = timedelta(seconds=60)
MAX_TIMEOUT = timedelta(days=1)
MAX_CLOCK_SKEW = timedelta(minutes=5)
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)
MAX_LOG_LINES = 10_000
MAX_INLINE = 128 * 1024
"""Bytes of log text or diagnostics that fit into one result; the rest is cut, and the cut is said."""


class CommandName(StrEnum):
    """What a device can be told to do."""

    PING = "ping"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    LOGS = "logs"
    INSPECT = "inspect"
    DIAGNOSTICS = "diagnostics"
    CANCEL = "cancel"


class Ping(Document):
    """Answer with the agent's version and times; `echo` comes back unchanged."""

    echo: Annotated[str, Field(max_length=1000)] = ""


class Start(Document):
    """Start a service that a `stop` command holds."""

    service: Name


class Stop(Document):
    """Stop a service and hold it stopped until `start` or a new generation."""

    service: Name


class Restart(Document):
    """Stop and start a service, once."""

    service: Name


class Logs(Document):
    """The last `tail` lines of a service; with `follow` also the new ones, in chunks, until the deadline."""

    service: Name
    tail: Annotated[int, Field(ge=0, le=MAX_LOG_LINES, strict=True)] = 100
    follow: bool = False
    since: UtcDatetime | None = None


class Inspect(Document):
    """What the engine knows of one service, or of all."""

    service: Name | None = None


class Diagnostics(Document):
    """A bundle for support: agent, host, engine, journal, queues."""


class Cancel(Document):
    """End a running command, such as followed logs."""

    id: Id


Arguments = Ping | Start | Stop | Restart | Logs | Inspect | Diagnostics | Cancel

ARGUMENTS: dict[CommandName, type[Arguments]] = {
    CommandName.PING: Ping,
    CommandName.START: Start,
    CommandName.STOP: Stop,
    CommandName.RESTART: Restart,
    CommandName.LOGS: Logs,
    CommandName.INSPECT: Inspect,
    CommandName.DIAGNOSTICS: Diagnostics,
    CommandName.CANCEL: Cancel,
}


class Envelope(Document):
    """The fields that may stand beside a command's arguments; no argument bears their names."""

    issued_at: Annotated[
        UtcDatetime | None, Field(description="When it was ordered; default: on arrival.")
    ] = None
    deadline: Annotated[
        UtcDatetime | None, Field(description="Not begun after this; default: 60 s after it was issued.")
    ] = None
    issued_by: Annotated[str, Field(max_length=200, description="Who ordered it, for the record.")] = ""


ENVELOPE_FIELDS = frozenset(Envelope.model_fields)


class Command(Document):
    """One command, whole: what the topic said and what the payload said."""

    id: Id
    name: CommandName
    arguments: Annotated[dict[str, Any], Field(description="Fits the model of `name`.")] = {}
    issued_at: UtcDatetime
    deadline: UtcDatetime
    issued_by: Annotated[str, Field(max_length=200)] = ""

    def parsed(self) -> Arguments:
        """Return the arguments as their own model. Raises `Unreadable`."""
        return fit(ARGUMENTS[self.name], self.arguments)

    def payload(self) -> dict[str, Any]:
        """Return what is published on the command's topic."""
        envelope = Envelope(issued_at=self.issued_at, deadline=self.deadline, issued_by=self.issued_by)
        return {**self.arguments, **envelope.model_dump(mode="json", exclude_defaults=True)}


def command_name(word: str) -> CommandName:
    """Return the command called *word*. Raises `Unreadable` (`command.unknown`)."""
    try:
        return CommandName(word)
    except ValueError:
        known = ", ".join(CommandName)
        message = f"there is no command {shown(word)}; known commands are {known}"
        raise Unreadable(problem(ErrorCode.COMMAND_UNKNOWN, message)) from None


def read_command(word: str, command_id: UUID, payload: bytes, *, now: datetime) -> Command:
    """Return the command that arrived on a topic with *word* and *command_id*.

    An empty payload means no arguments. Raises `Unreadable`.
    """
    name = command_name(word)
    value = read_json(payload) if payload.strip() else {}
    if not isinstance(value, dict):
        message = f"a command's payload is a JSON object with its arguments; got {shown(value)}"
        raise Unreadable(problem(ErrorCode.VALUE_WRONG_TYPE, message))
    envelope = fit(Envelope, {key: value[key] for key in value if key in ENVELOPE_FIELDS})
    arguments = {key: value[key] for key in value if key not in ENVELOPE_FIELDS}
    fit(ARGUMENTS[name], arguments)
    issued_at = envelope.issued_at or now
    return Command(
        id=command_id,
        name=name,
        arguments=arguments,
        issued_at=issued_at,
        deadline=envelope.deadline or issued_at + min(DEFAULT_TIMEOUT, _END_OF_TIME - issued_at),
        issued_by=envelope.issued_by,
    )


class CommandStatus(StrEnum):
    """The rungs of the ladder, as the device reports them, and two only the cloud uses.

    `queued`: stored by the cloud, no word from the device yet. `unanswered`: the
    deadline and some grace have passed without a final word, so the outcome is
    unknown; a late word from the device still replaces it.
    """

    QUEUED = "queued"
    ACCEPTED = "accepted"
    STARTED = "started"
    PROGRESS = "progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    REJECTED = "rejected"
    UNANSWERED = "unanswered"

    @property
    def final(self) -> bool:
        """Whether the device's story of this command ends here."""
        return self in _FINAL

    def may_follow(self, earlier: CommandStatus) -> bool:
        """Return whether this status is news after *earlier*: repeated and late words are not."""
        return self in _NEXT[earlier]


_FINAL = frozenset(
    {CommandStatus.SUCCEEDED, CommandStatus.FAILED, CommandStatus.EXPIRED, CommandStatus.REJECTED}
)
_RUNNING = {CommandStatus.PROGRESS} | _FINAL
_NEXT: dict[CommandStatus, frozenset[CommandStatus]] = {
    CommandStatus.QUEUED: frozenset(CommandStatus) - {CommandStatus.QUEUED},
    CommandStatus.ACCEPTED: frozenset({CommandStatus.STARTED, CommandStatus.UNANSWERED} | _RUNNING),
    CommandStatus.STARTED: frozenset({CommandStatus.UNANSWERED} | _RUNNING),
    CommandStatus.PROGRESS: frozenset({CommandStatus.UNANSWERED} | _RUNNING),
    CommandStatus.UNANSWERED: _FINAL,
    **{status: frozenset() for status in _FINAL},
}


class CommandResult(Message):
    """One word of a device on a command: `up/result/{command}/{id}`."""

    status: CommandStatus
    at: UtcDatetime
    detail: Text = ""
    data: Annotated[
        dict[str, Any] | None, Field(description="What was asked for: log lines, inspection.")
    ] = None
    error: Problem | None = None


class LogChunk(Message):
    """A piece of followed logs: `up/chunk/{command id}`. `seq` grows by one from 0."""

    seq: Annotated[int, Field(ge=0)]
    lines: list[str]
    last: bool = False
