"""Whether a command is carried out, answered from memory, or refused. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from schemas.base import print_time
from schemas.commands import MAX_CLOCK_SKEW, MAX_TIMEOUT, Command, CommandResult, CommandStatus
from schemas.errors import ErrorCode, Problem, problem


@dataclass(frozen=True, slots=True)
class Stored:
    """A command the device has taken on before. `answer` is its final word, if it has one."""

    command: Command
    digest: str
    status: CommandStatus
    received: datetime
    before: dict[str, str | None] | None = None
    answer: CommandResult | None = None
    response_topic: str | None = None
    correlation: bytes | None = None

    @property
    def id(self) -> UUID:
        """The command's id."""
        return self.command.id


@dataclass(frozen=True, slots=True)
class Run:
    """Take it on."""

    command: Command


@dataclass(frozen=True, slots=True)
class Repeat:
    """It was answered before: say so again."""

    answer: CommandResult


@dataclass(frozen=True, slots=True)
class InHand:
    """It is being carried out: say how far it is."""

    status: CommandStatus


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not carry it out; answer with *status* (`rejected` or `expired`) and the problem."""

    status: CommandStatus
    problem: Problem


Verdict: TypeAlias = Run | Repeat | InHand | Refuse


def digest(command: Command) -> str:
    """Return a hash of what is ordered: name and arguments, not when and by whom."""
    content = json.dumps([command.name.value, command.arguments], sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def admit(asked: Command | Problem, stored: Stored | None, now: datetime) -> Verdict:
    """Say what to do with a command, or with what could not be read as one, given what its id stands for.

    An id stands for one command for ever, so whatever else comes under a known
    id is refused, and the same again is answered as before, however late.
    """
    if stored is not None:
        return _again(asked, stored)
    if isinstance(asked, Problem):
        return Refuse(CommandStatus.REJECTED, asked)
    found = _bad_time(asked, now)
    if found is not None:
        return Refuse(CommandStatus.REJECTED, found)
    if expired(asked, now):
        return Refuse(CommandStatus.EXPIRED, late(asked, now))
    return Run(asked)


def expired(command: Command, now: datetime) -> bool:
    """Return whether *command* may no longer begin."""
    return now >= command.deadline


def late(command: Command, now: datetime) -> Problem:
    """Return why an expired command is not carried out."""
    text = (
        f"the deadline was {print_time(command.deadline)}, the device's clock says {print_time(now)}; "
        "nothing was done. Send it again under a new id"
    )
    return problem(ErrorCode.COMMAND_EXPIRED, text)


def _again(asked: Command | Problem, stored: Stored) -> Verdict:
    if isinstance(asked, Problem) or digest(asked) != stored.digest:
        text = (
            f"the id {stored.id} was used for a {stored.command.name.value} command with other content; "
            "choose a new one"
        )
        return Refuse(CommandStatus.REJECTED, problem(ErrorCode.COMMAND_ID_CONFLICT, text))
    return InHand(stored.status) if stored.answer is None else Repeat(stored.answer)


def _bad_time(command: Command, now: datetime) -> Problem | None:
    ahead = command.issued_at - now
    if ahead > MAX_CLOCK_SKEW:
        text = (
            f"issued_at lies {ahead.total_seconds():.0f} s ahead of the device's clock ({print_time(now)}); "
            f"{MAX_CLOCK_SKEW.total_seconds():.0f} s are tolerated. Set the clocks right"
        )
        return problem(ErrorCode.COMMAND_FROM_FUTURE, text, field="issued_at")
    span = command.deadline - command.issued_at
    if span > MAX_TIMEOUT:
        text = f"deadline: {span} after issued_at; at most {MAX_TIMEOUT.total_seconds():.0f} s are allowed"
        return problem(ErrorCode.VALUE_OUT_OF_RANGE, text, field="deadline")
    return None
