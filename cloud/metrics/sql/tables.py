"""The three tables that samples are kept in."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

METADATA = sa.MetaData()

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SERIES = sa.Table(
    "metrics_series",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("key", sa.String(32), nullable=False, unique=True),
    sa.Column("device", sa.Uuid(), nullable=False),
    sa.Column("measurement", sa.String(64), nullable=False),
    sa.Column("tags", sa.Text(), nullable=False),
    sa.Index("metrics_series_by_measurement", "measurement", "device"),
)
FIELD = sa.Table(
    "metrics_field",
    METADATA,
    sa.Column("measurement", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(10), nullable=False),
)
SAMPLE = sa.Table(
    "metrics_sample",
    METADATA,
    sa.Column("series", sa.BigInteger(), sa.ForeignKey(SERIES.c.id), primary_key=True),
    sa.Column("at", sa.BigInteger(), primary_key=True),
    sa.Column("fields", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
    sqlite_with_rowid=False,
)
