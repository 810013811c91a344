"""From one telemetry message to points, its place in the stream, and what was wrong with it (pure)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from cloud.ingest.encode import point_of
from cloud.metrics.protocol import Point
from cloud.store.streams import Stream
from schemas import topics
from schemas.base import Counter, Id, Message, jsonable
from schemas.errors import ErrorCode, Problem, Unreadable, problem, shown
from schemas.reading import fit, read_json
from schemas.telemetry import Sample, TelemetryBatch
from schemas.topics import Topics

EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""No agent ran before; a clock that says so has not been set."""
FUTURE = timedelta(days=1)


class Place(Message):
    """What of a batch is enough to tell which one it is, be the rest as it may."""

    boot: Id
    seq: Annotated[Counter, Field(ge=1)]
    oldest: Counter | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A message, or some samples of it, as they came, and why they are not stored."""

    payload: bytes
    problem: Problem


@dataclass(frozen=True, slots=True)
class Batch:
    """One message. `stream` None: it cannot be told which batch of which stream it is."""

    topic: str
    stream: Stream | None
    seq: int = 0
    oldest: int | None = None
    points: Sequence[Point] = ()
    rejects: Sequence[Reject] = field(default=())


def decode(topic: str, payload: bytes, *, known: Topics, now: datetime) -> Batch:
    """Return what *payload* holds; never raises, whatever it is.

    A sample that does not fit costs only itself. A batch that does not fit is rejected, and yet has
    its place where that can be read: its device would send it again and again otherwise.
    """
    try:
        named = _telemetry(topic, known)
        value = read_json(payload)
        place = fit(Place, value)
    except Unreadable as error:
        return Batch(topic, None, rejects=[Reject(payload, error.problem)])
    stream = Stream(named.device, named.stream, place.boot)
    try:
        batch = fit(TelemetryBatch, value)
    except Unreadable as error:
        return Batch(topic, stream, place.seq, place.oldest, rejects=[Reject(payload, error.problem)])
    points, rejects = _points(stream, batch.samples, now)
    return Batch(topic, stream, place.seq, place.oldest, points, rejects)


def _telemetry(topic: str, known: Topics) -> topics.Telemetry:
    named = known.parse(topic)
    if not isinstance(named, topics.Telemetry):
        raise Unreadable(problem(ErrorCode.TOPIC_UNKNOWN, f"topic {shown(topic)} is not one of telemetry"))
    return named


def _points(
    stream: Stream, samples: Sequence[Sample], now: datetime
) -> tuple[Sequence[Point], Sequence[Reject]]:
    points: list[Point] = []
    refused: dict[str, tuple[Problem, list[dict[str, Any]]]] = {}
    for sample in samples:
        try:
            _check_time(sample, now)
            points.append(point_of(stream.device, sample))
        except Unreadable as error:
            refused.setdefault(error.code, (error.problem, []))[1].append(jsonable(sample))
    return points, [
        Reject(json.dumps(each).encode(), _of_several(why, len(each))) for why, each in refused.values()
    ]


def _of_several(why: Problem, count: int) -> Problem:
    if count == 1:
        return why
    return why.model_copy(update={"message": f"{count} samples, the first because {why.message}"[:2000]})


def _check_time(sample: Sample, now: datetime) -> None:
    if not EARLIEST <= sample.at <= now + FUTURE:
        message = (
            f"a sample of {sample.at:%Y-%m-%d %H:%M} UTC: times lie between {EARLIEST.year} and a day from "
            "now; set the device's clock"
        )
        raise Unreadable(problem(ErrorCode.TELEMETRY_BAD_TIME, message))
