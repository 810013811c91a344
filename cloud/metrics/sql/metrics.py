"""The door to the SQL database that keeps samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from asyncpg import PostgresError  # type: ignore[import-untyped]
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from cloud.metrics.checks import as_kind, check_name, check_query, fields_asked, flaw, too_wide
from cloud.metrics.protocol import (
    Aggregate,
    Kind,
    Latest,
    MetricsHealth,
    PartialWrite,
    Point,
    Query,
    RefusedPoint,
    Series,
    Tags,
    Value,
    kind_of,
    microseconds,
    moment_of,
)
from cloud.metrics.sql.statements import alone, insert, upsert, values_of
from cloud.metrics.sql.tables import FIELD, METADATA, SAMPLE, SERIES
from cloud.store import sqlite_connection
from schemas.errors import ErrorCode, FleetError, refuse

_T = TypeVar("_T")
_CHUNK = 500
_REMEMBERED = 100_000
_NO_TABLE = "42P01"
_PASSING = {"08", "40", "53", "55", "57"}
"""PostgreSQL's classes of errors that pass: connection, rollback, resources, locks, operator."""


@dataclass(frozen=True, slots=True)
class _Thing:
    """What a series is of."""

    device: UUID
    measurement: str
    tags: Tags

    @property
    def key(self) -> str:
        """The same 32 hexadecimal digits for the same series, on every machine."""
        words = json.dumps([str(self.device), self.measurement, self.tags])
        return blake2b(words.encode(), digest_size=16).hexdigest()


class SqlMetrics:
    """`Metrics` over SQLAlchemy. Any number of processes may share one database."""

    def __init__(self, engine: AsyncEngine, *, retention: timedelta | None = None) -> None:
        """Take an engine to own; *retention* None keeps samples for ever."""
        self._engine = engine
        self._retention = retention
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._ids: dict[_Thing, int] = {}

    @classmethod
    def open(cls, url: str, *, retention: timedelta | None = None) -> SqlMetrics:
        """Return the samples at *url*: `sqlite+aiosqlite:///...` or `postgresql+asyncpg://...`."""
        if sa.make_url(url).get_backend_name() != "sqlite":
            engine = create_async_engine(url, json_serializer=_compact, pool_pre_ping=True)
            return cls(engine, retention=retention)
        # The store's connection: with aiosqlite's own, a cancelled write could hold the lock for seconds.
        own = {"async_creator_fn": sqlite_connection.connect}
        engine = create_async_engine(url, json_serializer=_compact, connect_args=own)
        sa.event.listen(engine.sync_engine, "connect", _share_file)
        return cls(engine, retention=retention)

    async def prepare(self) -> None:
        """Create the tables that are missing."""
        with _told():
            async with self._engine.begin() as connection:
                await connection.execute(alone(self._engine.dialect.name))
                await connection.run_sync(METADATA.create_all)

    async def write(self, points: Sequence[Point]) -> None:
        """Store *points* in one transaction, but for those that can never be."""
        reasons = {index: reason for index, point in enumerate(points) if (reason := flaw(point))}
        sound = [(index, point) for index, point in enumerate(points) if index not in reasons]
        with _told():
            async with self._engine.begin() as connection:
                kinds = await self._agree_on_kinds(connection, [point for _, point in sound])
                reasons |= {index: reason for index, point in sound if (reason := _conflict(point, kinds))}
                stored = [point for index, point in sound if index not in reasons]
                ids = await self._ids_of(connection, {_thing(point) for point in stored})
                if stored:
                    await connection.execute(upsert(self._engine.dialect.name), _rows(stored, ids))
        self._remember(kinds, ids)
        if reasons:
            raise PartialWrite([RefusedPoint(points[index], why) for index, why in sorted(reasons.items())])

    async def query(self, query: Query) -> list[Series]:
        """Return what *query* asks for; buckets are made by the database."""
        asked = check_query(query)
        found: list[Series] = []
        left = asked.limit
        with _told():
            async with self._engine.connect() as connection:
                kinds = await _kinds_in(connection, asked.measurement)
                things = await _things_asked(connection, asked)
                for name in fields_asked(asked, {key: frozenset({kind}) for key, kind in kinds.items()}):
                    for ids in _chunks(sorted(things)):
                        statement = values_of(asked, name, kinds[name], ids).limit(left + 1)
                        rows = (await connection.execute(statement)).all()
                        left -= len(rows)
                        if left < 0:
                            too_wide(asked)
                        found.extend(_series(rows, name, _answer_kind(asked, kinds[name]), things))
        return sorted(found, key=lambda each: (str(each.device), each.tags, each.field))

    async def latest(self, device: UUID, measurement: str, *, since: datetime | None = None) -> list[Latest]:
        """Return the newest point of each series of *device*, found by one look into the index each."""
        check_name(measurement)
        each = SAMPLE.alias()
        own = each.c.series == SERIES.c.id
        newest = sa.select(sa.func.max(each.c.at)).where(own).correlate(SERIES).scalar_subquery()
        statement = (
            sa.select(SERIES.c.tags, SAMPLE.c.at, SAMPLE.c.fields)
            .select_from(SERIES)
            .join(SAMPLE, sa.and_(SAMPLE.c.series == SERIES.c.id, SAMPLE.c.at == newest))
            .where(SERIES.c.device == device, SERIES.c.measurement == measurement)
        )
        if since is not None:
            statement = statement.where(SAMPLE.c.at >= microseconds(since))
        with _told():
            async with self._engine.connect() as connection:
                kinds = await _kinds_in(connection, measurement)
                rows = (await connection.execute(statement)).all()
        return sorted(
            (
                Latest(
                    _tags(tags), moment_of(at), {name: as_kind(fields[name], kinds[name]) for name in fields}
                )
                for tags, at, fields in rows
            ),
            key=lambda each: each.tags,
        )

    async def check(self) -> MetricsHealth:
        """Ask the database for its version and our tables."""
        kind = self._engine.dialect.name
        version = "sqlite_version()" if kind == "sqlite" else "current_setting('server_version')"
        try:
            with _told():
                async with self._engine.connect() as connection:
                    answer = await connection.scalar(sa.select(sa.literal_column(version)))
                    await connection.execute(sa.select(FIELD.c.kind).limit(1))
        except FleetError as error:
            return MetricsHealth(kind, problem=error.problem)
        return MetricsHealth(kind, str(answer))

    async def prune(self, now: datetime) -> int:
        """Delete points older than the retention, a few series at a time, so that writers get their turn."""
        if self._retention is None:
            return 0
        deleted = 0
        before = SAMPLE.c.at < microseconds(now - self._retention)
        with _told():
            async with self._engine.connect() as connection:
                every = (await connection.scalars(sa.select(SERIES.c.id))).all()
            for ids in _chunks(every):
                async with self._engine.begin() as connection:
                    done = await connection.execute(sa.delete(SAMPLE).where(SAMPLE.c.series.in_(ids), before))
                    deleted += done.rowcount
        return deleted

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def _agree_on_kinds(
        self, connection: AsyncConnection, points: Sequence[Point]
    ) -> dict[tuple[str, str], Kind]:
        """Return the type of every field in *points*; of a new one, its first value's."""
        wanted: dict[tuple[str, str], Kind] = {}
        for point in points:
            for name, value in point.fields.items():
                wanted.setdefault((point.measurement, name), kind_of(value))
        unknown = {key: kind for key, kind in wanted.items() if key not in self._kinds}
        if not unknown:
            return {key: self._kinds[key] for key in wanted}
        rows = [
            {"measurement": key[0], "name": key[1], "kind": kind} for key, kind in sorted(unknown.items())
        ]
        await connection.execute(insert(self._engine.dialect.name, FIELD).on_conflict_do_nothing(), rows)
        known = {key: self._kinds[key] for key in wanted if key in self._kinds}
        for measurement in {key[0] for key in unknown}:
            stored = await _kinds_in(connection, measurement)
            known |= {(measurement, name): kind for name, kind in stored.items()}
        return known

    async def _ids_of(self, connection: AsyncConnection, things: set[_Thing]) -> dict[_Thing, int]:
        """Return the row of every series, made where it is new."""
        known = {thing: self._ids[thing] for thing in things if thing in self._ids}
        unknown = {thing.key: thing for thing in things - known.keys()}
        for keys in _chunks(sorted(unknown)):
            rows = [
                {
                    "key": key,
                    "device": thing.device,
                    "measurement": thing.measurement,
                    "tags": _compact(thing.tags),
                }
                for key in keys
                if (thing := unknown[key])
            ]
            await connection.execute(insert(self._engine.dialect.name, SERIES).on_conflict_do_nothing(), rows)
            found = await connection.execute(
                sa.select(SERIES.c.key, SERIES.c.id).where(SERIES.c.key.in_(keys))
            )
            known |= {unknown[key]: row for key, row in found}
        return known

    def _remember(self, kinds: Mapping[tuple[str, str], Kind], ids: Mapping[_Thing, int]) -> None:
        """Keep what is committed by now, and never changes, for the next write."""
        if len(self._ids) > _REMEMBERED or len(self._kinds) > _REMEMBERED:
            self._ids.clear()
            self._kinds.clear()
        self._kinds.update(kinds)
        self._ids.update(ids)


def _thing(point: Point) -> _Thing:
    return _Thing(point.device, point.measurement, point.tags)


def _conflict(point: Point, kinds: Mapping[tuple[str, str], Kind]) -> str | None:
    for name, value in point.fields.items():
        fixed = kinds[point.measurement, name]
        if kind_of(value) is not fixed:
            return f"field {name} of {point.measurement} is of type {fixed}; this value is {kind_of(value)}"
    return None


def _rows(points: Sequence[Point], ids: Mapping[_Thing, int]) -> list[dict[str, Any]]:
    """Return one row a point, what is written twice merged, in the order of the primary key."""
    merged: dict[tuple[int, int], dict[str, Value]] = {}
    for point in points:
        merged.setdefault((ids[_thing(point)], microseconds(point.at)), {}).update(point.fields)
    return [{"series": key[0], "at": key[1], "fields": merged[key]} for key in sorted(merged)]


async def _kinds_in(connection: AsyncConnection, measurement: str) -> dict[str, Kind]:
    rows = await connection.execute(
        sa.select(FIELD.c.name, FIELD.c.kind).where(FIELD.c.measurement == measurement)
    )
    return {name: Kind(kind) for name, kind in rows}


async def _things_asked(connection: AsyncConnection, query: Query) -> dict[int, _Thing]:
    statement = sa.select(SERIES.c.id, SERIES.c.device, SERIES.c.tags).where(
        SERIES.c.measurement == query.measurement
    )
    some = [statement]
    if query.devices is not None:
        some = [statement.where(SERIES.c.device.in_(devices)) for devices in _chunks(query.devices)]
    return {
        row: _Thing(device, query.measurement, _tags(tags))
        for each in some
        for row, device, tags in await connection.execute(each)
        if query.tags.items() <= dict(_tags(tags)).items()
    }


def _answer_kind(query: Query, kind: Kind) -> Kind:
    match query.aggregate:
        case Aggregate.MEAN | Aggregate.SUM:
            return Kind.FLOAT
        case Aggregate.COUNT:
            return Kind.INTEGER
        case _:
            return kind


def _series(
    rows: Iterable[sa.Row[Any]], name: str, kind: Kind, things: Mapping[int, _Thing]
) -> Iterator[Series]:
    points: dict[int, list[tuple[datetime, Value]]] = {}
    for series, at, value in map(tuple, rows):
        points.setdefault(series, []).append((moment_of(at), as_kind(value, kind)))
    for series, found in points.items():
        yield Series(things[series].device, things[series].tags, name, found)


def _tags(text: str) -> Tags:
    return tuple((key, value) for key, value in json.loads(text))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Cut *items* into pieces that fit a statement's parameters."""
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _share_file(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Let readers go on while one writes, and writers wait for each other."""
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def _told() -> Iterator[None]:
    """Turn the database's errors into ours."""
    try:
        yield
    except (OSError, DBAPIError, PoolTimeout, PostgresError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        if "no such table" in said or _state(error) == _NO_TABLE:
            message = "the tables of the metrics database are missing; prepare it first"
            refuse(ErrorCode.METRICS_REFUSED, message)
        if _passes(error):
            refuse(ErrorCode.METRICS_UNREACHABLE, f"the metrics database does not answer: {said}")
        refuse(ErrorCode.METRICS_REFUSED, f"the metrics database refused: {said}")


def _passes(error: OSError | DBAPIError | PoolTimeout | PostgresError) -> bool:
    """Return whether the same may succeed later."""
    if isinstance(error, OSError | InterfaceError | OperationalError | PoolTimeout):
        return True
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or _state(error)[:2] in _PASSING


def _state(error: BaseException) -> str:
    """Return PostgreSQL's five letters for *error*, if it came from there."""
    return str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")
