"""What the cloud asks of the place where samples are kept, whichever it is.

Two implementations serve it, `cloud.metrics.sql` and `cloud.metrics.influx`;
tests/influx/test_metrics_contract.py holds both to the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias
from uuid import UUID

from schemas.errors import ErrorCode, FleetError, Problem, problem

Value: TypeAlias = bool | int | float | str
Tags: TypeAlias = tuple[tuple[str, str], ...]

DEFAULT_LIMIT = 50_000
DEVICE_TAG = "device"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(2262, 1, 1, tzinfo=UTC)
"""Samples lie in [EPOCH, END_OF_TIME): what 64 bits of nanoseconds since 1970 can hold."""


class Kind(StrEnum):
    """The type of a field. The first value ever written to a measurement's field fixes it."""

    FLOAT = "float"
    INTEGER = "integer"
    TEXT = "string"
    FLAG = "boolean"


def kind_of(value: Value) -> Kind:
    """Return the type that *value* has in the database."""
    match value:
        case bool():
            return Kind.FLAG
        case int():
            return Kind.INTEGER
        case float():
            return Kind.FLOAT
        case str():
            return Kind.TEXT


class Aggregate(StrEnum):
    """How the values of a bucket become one.

    `mean` and `sum` answer floats, `count` integers, the others the field's own type. Texts and flags
    have only `count`, `first` and `last`; `none` asks for the values as they were written.
    """

    NONE = "none"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    COUNT = "count"
    FIRST = "first"
    LAST = "last"

    @property
    def needs_numbers(self) -> bool:
        """Whether it cannot be taken over texts and flags."""
        return self in {Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX, Aggregate.SUM}


@dataclass(frozen=True, slots=True)
class Point:
    """Values of one thing at one moment.

    The same device, measurement, tags and time written again is the same point: its fields are merged,
    the later value wins. `tags` are sorted and do not name the device; times are kept to the microsecond.
    """

    device: UUID
    measurement: str
    tags: Tags
    fields: Mapping[str, Value]
    at: datetime


@dataclass(frozen=True, slots=True)
class Query:
    """A question: which values of which fields in `[start, end)`.

    `devices` None means all, `fields` empty means all, `tags` must all be equal. With `every`, times
    are cut into buckets aligned to 1970-01-01 UTC, each named by its start; an aggregate without it
    makes the whole range one bucket, named by `start`.
    """

    measurement: str
    start: datetime
    end: datetime
    devices: tuple[UUID, ...] | None = None
    fields: tuple[str, ...] = ()
    every: timedelta | None = None
    aggregate: Aggregate = Aggregate.NONE
    tags: Mapping[str, str] = field(default_factory=dict)
    limit: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one field of one thing, oldest first."""

    device: UUID
    tags: Tags
    field: str
    points: list[tuple[datetime, Value]]


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest point of one thing."""

    tags: Tags
    at: datetime
    fields: dict[str, Value]


@dataclass(frozen=True, slots=True)
class MetricsHealth:
    """Which database answers, in which version; `problem` says why it cannot be used now."""

    kind: str
    version: str = ""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class RefusedPoint:
    """One point that no second try would store, and why."""

    point: Point
    reason: str


class PartialWrite(FleetError):  # noqa: N818 - says what happened
    """Some points were refused for good; every other point of the write is stored.

    Dead-letter `refused` and acknowledge the rest. To be caught before `FleetError`.
    """

    def __init__(self, refused: Sequence[RefusedPoint]) -> None:
        first = refused[0].reason
        super().__init__(
            problem(
                ErrorCode.METRICS_REFUSED, f"{len(refused)} points were refused, the first because: {first}"
            )
        )
        self.refused = tuple(refused)


class Metrics(Protocol):
    """A place where samples are kept.

    Every method raises `FleetError`: `metrics.unreachable` (try again later, nothing is decided) or
    `metrics.refused` (a person must act; the text says how).
    """

    async def prepare(self) -> None:
        """Create what is missing: database, tables, retention. Safe to repeat."""
        ...

    async def write(self, points: Sequence[Point]) -> None:
        """Store *points* durably. Raises `PartialWrite` when some were refused and all others are stored."""
        ...

    async def query(self, query: Query) -> list[Series]:
        """Return what *query* asks for, by device, tags and field; no series is empty.

        Raises also `query.too_wide`, `value.out_of_range` and `value.wrong_type`.
        """
        ...

    async def latest(self, device: UUID, measurement: str, *, since: datetime | None = None) -> list[Latest]:
        """Return the newest point of each thing *device* measured, none older than *since*."""
        ...

    async def check(self) -> MetricsHealth:
        """Say whether the database can be used now; never raises."""
        ...

    async def prune(self, now: datetime) -> int:
        """Delete what is older than the retention, where the database does not by itself; return how many."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def microseconds(moment: datetime) -> int:
    """Return *moment* as microseconds since 1970."""
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment_of(micros: int) -> datetime:
    """Return the time *micros* microseconds after 1970."""
    return EPOCH + timedelta(microseconds=micros)
