"""InfluxQL: questions printed, answers read (pure).

Values travel as bound parameters, so no text from outside is ever part of a
statement. Names cannot be bound; `quoted` is the one place that prints them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cloud.metrics.checks import as_kind
from cloud.metrics.protocol import (
    DEVICE_TAG,
    Aggregate,
    Kind,
    Latest,
    Query,
    Series,
    Tags,
    Value,
    microseconds,
    moment_of,
)

DEVICES_AT_ONCE = 200
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Statement:
    """One InfluxQL statement and the values bound to its `$names`."""

    text: str
    values: Mapping[str, str | int]

    @property
    def params(self) -> str:
        """The values as the `params` of a request."""
        return json.dumps(self.values)


def quoted(name: str) -> str:
    """Return *name* as an InfluxQL identifier. Raises `ValueError` on none, and on control characters."""
    if not name or _CONTROL.search(name):
        message = f"{name!r} has no form in InfluxQL"
        raise ValueError(message)
    return f'"{name.translate(_ESCAPES)}"'


def field_keys(measurement: str) -> Statement:
    """Return the question which fields *measurement* has."""
    return Statement(f"SHOW FIELD KEYS FROM {quoted(measurement)}", {})


def selects(query: Query, fields: Iterable[str]) -> Iterator[Statement]:
    """Return the statements that together answer *query*; each row is a time, then one value a field."""
    wanted = ", ".join(_selected(query.aggregate, name) for name in fields)
    values: dict[str, str | int] = {"start": _nanoseconds(query.start), "end": _nanoseconds(query.end)}
    conditions = ["time >= $start", "time < $end"]
    for number, (key, value) in enumerate(query.tags.items()):
        values[f"tag{number}"] = value
        conditions.append(f"{quoted(key)} = $tag{number}")
    groups = "GROUP BY *"
    if query.every is not None:
        groups = f"GROUP BY time({query.every // timedelta(microseconds=1)}u), * fill(none)"
    for devices in _batches(query.devices):
        bound = {f"device{number}": str(device) for number, device in enumerate(devices)}
        named = " OR ".join(f"{quoted(DEVICE_TAG)} = ${name}" for name in bound)
        where = " AND ".join([*conditions, f"({named})"] if named else conditions)
        yield Statement(
            f"SELECT {wanted} FROM {quoted(query.measurement)} WHERE {where} {groups}",  # noqa: S608
            {**values, **bound},
        )


def newest(device: UUID, measurement: str, since: datetime | None) -> Statement:
    """Return the question for the newest point of every series of *device*."""
    values: dict[str, str | int] = {"device": str(device)}
    where = f"{quoted(DEVICE_TAG)} = $device"
    if since is not None:
        values["since"] = _nanoseconds(since)
        where += " AND time >= $since"
    text = f"SELECT * FROM {quoted(measurement)} WHERE {where} GROUP BY * ORDER BY time DESC LIMIT 1"  # noqa: S608
    return Statement(text, values)


def _selected(aggregate: Aggregate, name: str) -> str:
    return quoted(name) if aggregate is Aggregate.NONE else f"{aggregate}({quoted(name)})"


def _batches(devices: tuple[UUID, ...] | None) -> Iterator[tuple[UUID, ...]]:
    if devices is None:
        yield ()
        return
    for start in range(0, len(devices), DEVICES_AT_ONCE):
        yield devices[start : start + DEVICES_AT_ONCE]


def _nanoseconds(moment: datetime) -> int:
    return microseconds(moment) * 1000


class Answer:
    """The series of one or more answers, put together piece by piece."""

    def __init__(self, query: Query, fields: list[str], kinds: Mapping[str, frozenset[Kind]]) -> None:
        self._query = query
        self._kinds = [_answered(query.aggregate, kinds[name]) for name in fields]
        self._fields = fields
        self._found: dict[tuple[UUID, Tags, str], list[tuple[datetime, Value]]] = {}
        self.points = 0

    def add(self, piece: Mapping[str, Any]) -> None:
        """Take in one `series` object of an answer."""
        thing = _thing(piece.get("tags", {}))
        if thing is None:
            return
        whole = self._query.every is None and self._query.aggregate is not Aggregate.NONE
        nothing = 0 if self._query.aggregate is Aggregate.COUNT else None
        for time, *values in piece["values"]:
            at = self._query.start if whole else moment_of(time // 1000)
            for name, kind, value in zip(self._fields, self._kinds, values, strict=True):
                if value is not None and value != nothing:
                    self._found.setdefault((*thing, name), []).append((at, _typed(value, kind)))
                    self.points += 1

    def series(self) -> list[Series]:
        """Return what was taken in."""
        ordered = sorted(self._found.items(), key=lambda each: (str(each[0][0]), *each[0][1:]))
        return [Series(device, tags, name, points) for (device, tags, name), points in ordered]


def read_kinds(pieces: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[Kind]]:
    """Return the types of each field, from the answer to `field_keys`."""
    kinds: dict[str, frozenset[Kind]] = {}
    for piece in pieces:
        for name, kind in piece["values"]:
            known = Kind.INTEGER if kind == "unsigned" else Kind(kind)
            kinds[name] = kinds.get(name, frozenset()) | {known}
    return kinds


def read_newest(piece: Mapping[str, Any], kinds: Mapping[str, frozenset[Kind]]) -> Latest | None:
    """Return the newest point of one series, from the answer to `newest`."""
    thing = _thing(piece.get("tags", {}))
    if thing is None:
        return None
    names, row = piece["columns"][1:], piece["values"][0]
    fields = {
        name: _typed(value, _answered(Aggregate.NONE, kinds.get(name, frozenset())))
        for name, value in zip(names, row[1:], strict=True)
        if value is not None
    }
    return Latest(thing[1], moment_of(row[0] // 1000), fields)


def _answered(aggregate: Aggregate, kinds: frozenset[Kind]) -> Kind | None:
    """Return the type of the answer, or None where the field was written with several."""
    match aggregate:
        case Aggregate.MEAN | Aggregate.SUM:
            return Kind.FLOAT
        case Aggregate.COUNT:
            return Kind.INTEGER
        case _:
            return next(iter(kinds)) if len(kinds) == 1 else None


def _typed(value: Value, kind: Kind | None) -> Value:
    return value if kind is None else as_kind(value, kind)


def _thing(tags: Mapping[str, str]) -> tuple[UUID, Tags] | None:
    """Return device and tags of a series, or None if it is not of a device (somebody else's data)."""
    try:
        device = UUID(tags.get(DEVICE_TAG, ""))
    except ValueError:
        return None
    others = ((key, value) for key, value in tags.items() if value and key != DEVICE_TAG)
    return device, tuple(sorted(others))
