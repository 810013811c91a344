"""The statements that merge points into the table and take values out of it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cloud.metrics.protocol import Aggregate, Kind, Query, microseconds
from cloud.metrics.sql.tables import SAMPLE


def alone(dialect: str) -> sa.Executable:
    """Return what makes this transaction wait for others that create the same tables."""
    return sa.text("BEGIN IMMEDIATE" if dialect == "sqlite" else "SELECT pg_advisory_xact_lock(7308900)")


def insert(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that knows ON CONFLICT."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def upsert(dialect: str) -> sa.Executable:
    """Return the statement that stores points; where one is there already, fields are merged."""
    statement = insert(dialect, SAMPLE)
    old, new = SAMPLE.c.fields, statement.excluded.fields
    merged = sa.func.json_patch(old, new) if dialect == "sqlite" else old.op("||")(new)
    return statement.on_conflict_do_update(
        index_elements=[SAMPLE.c.series, SAMPLE.c.at], set_={"fields": merged}
    )


def values_of(query: Query, name: str, kind: Kind, ids: Sequence[int]) -> sa.Select[Any]:
    """Return the statement for one field of some series: rows of (series, time, value)."""
    value = _value(name, kind)
    start, end = microseconds(query.start), microseconds(query.end)
    bucket: sa.ColumnElement[int] = sa.literal(start, sa.BigInteger())
    if query.every is not None:
        bucket = SAMPLE.c.at - SAMPLE.c.at % sa.literal(
            query.every // timedelta(microseconds=1), sa.BigInteger()
        )
    inner = (
        sa.select(SAMPLE.c.series, SAMPLE.c.at, bucket.label("bucket"), value.label("value"))
        .where(SAMPLE.c.series.in_(ids), SAMPLE.c.at >= start, SAMPLE.c.at < end, value.is_not(None))
        .subquery()
    )
    at = inner.c.at if query.aggregate is Aggregate.NONE else inner.c.bucket
    outer = sa.select(inner.c.series, at, _taken(query.aggregate, inner)).order_by(inner.c.series, at)
    match query.aggregate:
        case Aggregate.NONE:
            return outer
        case Aggregate.FIRST | Aggregate.LAST:
            return _edge(inner, query.aggregate)
        case _:
            return outer.group_by(inner.c.series, at)


def _value(name: str, kind: Kind) -> sa.ColumnElement[Any]:
    """Return the field's value; never by way of a text where digits could be lost (SQLite prints 15)."""
    found = SAMPLE.c.fields[name]
    value: sa.ColumnElement[Any]
    match kind:
        case Kind.FLOAT:
            value = found.as_float()
        case Kind.INTEGER:
            value = sa.cast(found.as_string(), sa.BigInteger())
        case Kind.FLAG:
            value = found.as_boolean()
        case Kind.TEXT:
            value = found.as_string()
    return value


def _taken(aggregate: Aggregate, inner: sa.Subquery) -> sa.ColumnElement[Any]:
    match aggregate:
        case Aggregate.MEAN | Aggregate.SUM:
            function = sa.func.avg if aggregate is Aggregate.MEAN else sa.func.sum
            return function(sa.cast(inner.c.value, sa.Double()))
        case Aggregate.MIN:
            return sa.func.min(inner.c.value)
        case Aggregate.MAX:
            return sa.func.max(inner.c.value)
        case Aggregate.COUNT:
            return sa.func.count(inner.c.value)
        case Aggregate.NONE | Aggregate.FIRST | Aggregate.LAST:
            return inner.c.value


def _edge(inner: sa.Subquery, aggregate: Aggregate) -> sa.Select[Any]:
    """Return the statement for the first or last row of each bucket."""
    order = inner.c.at if aggregate is Aggregate.FIRST else inner.c.at.desc()
    place = sa.func.row_number().over(partition_by=(inner.c.series, inner.c.bucket), order_by=order)
    ranked = sa.select(inner, place.label("place")).subquery()
    chosen = sa.select(ranked.c.series, ranked.c.bucket, ranked.c.value).where(ranked.c.place == 1)
    return chosen.order_by(ranked.c.series, ranked.c.bucket)
