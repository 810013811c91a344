"""The configuration of a local InfluxDB 1.x: everything in one directory, loopback only."""

from __future__ import annotations

import json
from pathlib import Path

_TEMPLATE = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"

[meta]
  dir = {meta}

[data]
  dir = {data}
  wal-dir = {wal}
  index-version = "tsi1"
  query-log-enabled = false

[monitor]
  store-enabled = false

[subscriber]
  enabled = false

[continuous_queries]
  enabled = false

[http]
  bind-address = "127.0.0.1:{http_port}"
  log-enabled = false
  pprof-enabled = false

[logging]
  level = "warn"
  suppress-logo = true
"""


def influx_config(directory: Path, *, http_port: int, rpc_port: int) -> str:
    """Return a configuration for `influxd -config FILE`; its data lies below *directory*."""
    folders = {name: json.dumps(str(directory / name)) for name in ("meta", "data", "wal")}
    return _TEMPLATE.format(http_port=http_port, rpc_port=rpc_port, **folders)
