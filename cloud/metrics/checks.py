"""What no database may be asked: points that cannot be kept, questions that cannot be answered (pure).

The rules are the stricter of both databases', so that a point or a question that
one of them takes is taken by the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

from cloud.metrics.protocol import DEVICE_TAG, END_OF_TIME, EPOCH, Aggregate, Kind, Point, Query, Tags, Value
from schemas.errors import ErrorCode, refuse, shown

MAX_TEXT = 32_768
RESERVED = frozenset({"time", "_field", "_measurement"})
NUMBERS = frozenset({Kind.FLOAT, Kind.INTEGER})

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_TAG_VALUE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}\Z")
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


def flaw(point: Point) -> str | None:
    """Return why no database here can keep *point*, or None if it can."""
    if not EPOCH <= point.at < END_OF_TIME:
        return f"time {point.at.isoformat()} is not between {EPOCH.year} and {END_OF_TIME.year}"
    if not point.fields:
        return "there is no field"
    if found := _series_flaw(point.measurement, point.tags):
        return found
    for key, value in point.fields.items():
        if found := _field_name_flaw(key) or _value_flaw(key, value):
            return found
    if point.tags and (twice := point.fields.keys() & dict(point.tags).keys()):
        return f"{shown(min(twice))} is both a tag and a field"
    return None


@lru_cache(maxsize=16_384)
def _series_flaw(measurement: str, tags: Tags) -> str | None:
    if not _NAME.match(measurement):
        return f"{shown(measurement)} is no name for a measurement"
    if list(tags) != sorted(dict(tags).items()):
        return "tags are not sorted, or one is given twice"
    return next(filter(None, (_tag_flaw(key, value) for key, value in tags)), None)


def _tag_flaw(key: str, value: str) -> str | None:
    if not _NAME.match(key) or key in RESERVED or key == DEVICE_TAG:
        return f"{shown(key)} is no name for a tag"
    if not _TAG_VALUE.match(value):
        return f"tag {key}: {shown(value)} is empty, too long or holds control characters"
    if value.endswith("\\"):
        return f"tag {key}: {shown(value)} ends with a backslash, which line protocol cannot say"
    return None


@lru_cache(maxsize=4_096)
def _field_name_flaw(key: str) -> str | None:
    if not _NAME.match(key) or key in RESERVED or key == DEVICE_TAG:
        return f"{shown(key)} is no name for a field"
    return None


def _value_flaw(key: str, value: Value) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else f"field {key} is {value}, which is not a number"
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else f"field {key} does not fit 64 bits"
    if len(value) > MAX_TEXT or _NO_TEXT.search(value):
        return f"field {key}: the text is too long, or holds NUL or half a surrogate pair"
    return None


def check_name(name: str) -> None:
    """Refuse what no measurement, tag or field can be called."""
    if not _NAME.match(name):
        message = f"{shown(name)} is no name for a measurement, tag or field; use A-Z a-z 0-9 _ . -"
        refuse(ErrorCode.VALUE_BAD_CHARACTER, message)


def check_query(query: Query) -> Query:
    """Return *query* with its range cut to times that can hold samples. Raises `FleetError`."""
    start, end = max(query.start, EPOCH), min(query.end, END_OF_TIME)
    if query.start >= query.end:
        message = f"start {query.start.isoformat()} is not before end {query.end.isoformat()}; swap them"
        refuse(ErrorCode.VALUE_OUT_OF_RANGE, message, field="start")
    if query.limit < 1:
        refuse(ErrorCode.VALUE_OUT_OF_RANGE, f"a limit of {query.limit} points; use 1 or more", field="limit")
    for name in (query.measurement, *query.fields, *query.tags):
        check_name(name)
    for key, value in query.tags.items():
        if not _TAG_VALUE.match(value):
            refuse(ErrorCode.VALUE_BAD_CHARACTER, f"{shown(value)} is no value for tag {key}", field="tags")
    if query.every is not None:
        _check_buckets(query, query.every, start, end)
    return Query(
        measurement=query.measurement,
        start=start,
        end=max(start, end),
        devices=query.devices,
        fields=tuple(dict.fromkeys(query.fields)),
        every=query.every,
        aggregate=query.aggregate,
        tags=query.tags,
        limit=query.limit,
    )


def _check_buckets(query: Query, every: timedelta, start: datetime, end: datetime) -> None:
    if every < timedelta(milliseconds=1):
        refuse(ErrorCode.VALUE_OUT_OF_RANGE, "every is shorter than a millisecond; use 1s", field="every")
    if query.aggregate is Aggregate.NONE:
        known = ", ".join(each for each in Aggregate if each is not Aggregate.NONE)
        refuse(ErrorCode.FIELD_MISSING, f"every needs an aggregate: one of {known}", field="aggregate")
    buckets = max(end - start, timedelta()) / every
    if buckets > query.limit:
        fitting = math.ceil((end - start).total_seconds() / query.limit)
        message = (
            f"{buckets:.0f} buckets for one series, of {query.limit} points that an answer may have;"
            f" use every={fitting}s or longer, or a shorter time from start to end"
        )
        refuse(ErrorCode.QUERY_TOO_WIDE, message, field="every")


def too_wide(query: Query) -> None:
    """Refuse *query* because its answer has more points than its limit."""
    coarser = "a longer every" if query.every else "an aggregate with every"
    message = (
        f"the answer has more than {query.limit} points;"
        f" ask for a shorter time from start to end, {coarser}, fewer devices or named fields"
    )
    refuse(ErrorCode.QUERY_TOO_WIDE, message)


def fields_asked(query: Query, kinds: Mapping[str, frozenset[Kind]]) -> list[str]:
    """Return which of the known fields *query* asks for, in order.

    *kinds* is what each field of the measurement was written as. Asked for by name, a field that the
    aggregate cannot be taken of is refused (`value.wrong_type`); asked for by "all", it is left out.
    """
    if not query.fields:
        return [name for name in sorted(kinds) if _fits(query.aggregate, kinds[name])]
    known = [name for name in query.fields if name in kinds]
    for name in known:
        if not _fits(query.aggregate, kinds[name]):
            is_now = " and ".join(sorted(kinds[name]))
            message = f"{query.aggregate} of {name!r}, which is {is_now}; use count, first or last"
            refuse(ErrorCode.VALUE_WRONG_TYPE, message, field="aggregate")
    return known


def _fits(aggregate: Aggregate, kinds: frozenset[Kind]) -> bool:
    return not aggregate.needs_numbers or kinds <= NUMBERS


def as_kind(value: Value, kind: Kind) -> Value:
    """Return *value*, as a database or JSON gave it, in the type its field has."""
    match kind:
        case Kind.FLOAT:
            return float(value)
        case Kind.INTEGER:
            return int(value)
        case Kind.FLAG:
            return bool(value)
        case Kind.TEXT:
            return str(value)
