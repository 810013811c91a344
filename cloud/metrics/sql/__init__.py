"""Samples in SQL: the embedded default, on SQLite or PostgreSQL.

One row is one point: a reference to its series, microseconds since 1970, and its
fields as JSON. `(series, at)` is the primary key and the only index, so a repeated
write is an upsert that merges fields, and a read is one range per series.

Decision: these tables are made by `prepare()` from this package's own `METADATA`, not
by the store's migrations. Samples may live in another database than the rest, or in
none (InfluxDB), and can be measured again; their schema is three tables that never change.
"""

from cloud.metrics.sql.metrics import SqlMetrics
from cloud.metrics.sql.tables import METADATA

__all__ = ["METADATA", "SqlMetrics"]
