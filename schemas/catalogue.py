"""Every measurement the agent takes, with unit and type of each field.

The Influx schema, dashboards, rule type-checks and docs are made from this.
Services add measurements of their own under `app`, which has free fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """What a number counts."""

    PERCENT = "percent"
    BYTES = "bytes"
    SECONDS = "seconds"
    CELSIUS = "celsius"
    COUNT = "count"
    BYTES_PER_SECOND = "bytes/s"
    LOAD = "load"
    TEXT = "text"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field: its type on the wire (`float`, `int`, `str`, `bool`), unit and meaning."""

    name: str
    type: type[float | int | str | bool]
    unit: Unit
    text: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement: its tags beside `device`, and its fields (none named: any field may come)."""

    name: str
    text: str
    tags: tuple[str, ...]
    fields: tuple[FieldSpec, ...]

    def field(self, name: str) -> FieldSpec | None:
        """Return the field called *name*, or None."""
        return next((field for field in self.fields if field.name == name), None)


DEVICE = Measurement(
    "device",
    "The machine as a whole.",
    (),
    (
        FieldSpec("cpu_percent", float, Unit.PERCENT, "Use of all cores together, 0 to 100."),
        FieldSpec("load_1m", float, Unit.LOAD, "Load average of one minute."),
        FieldSpec("load_5m", float, Unit.LOAD, "Load average of five minutes."),
        FieldSpec("memory_used_bytes", int, Unit.BYTES, "Memory in use, without what can be reclaimed."),
        FieldSpec("memory_total_bytes", int, Unit.BYTES, "Memory of the machine."),
        FieldSpec("memory_percent", float, Unit.PERCENT, "Used share of memory."),
        FieldSpec("disk_used_bytes", int, Unit.BYTES, "Used on the file system of the agent's data."),
        FieldSpec("disk_total_bytes", int, Unit.BYTES, "Size of that file system."),
        FieldSpec("disk_percent", float, Unit.PERCENT, "Used share of it."),
        FieldSpec(
            "net_received_bytes", int, Unit.BYTES, "Received on all interfaces but loopback, since boot."
        ),
        FieldSpec("net_sent_bytes", int, Unit.BYTES, "Sent on all interfaces but loopback, since boot."),
        FieldSpec(
            "temperature_celsius", float, Unit.CELSIUS, "Hottest processor sensor; absent without one."
        ),
        FieldSpec("uptime_seconds", float, Unit.SECONDS, "Since the machine booted."),
    ),
)
SERVICE = Measurement(
    "service",
    "One service's container.",
    ("service",),
    (
        FieldSpec("running", bool, Unit.FLAG, "Whether the container runs."),
        FieldSpec("health", str, Unit.TEXT, "`none`, `starting`, `healthy` or `unhealthy`."),
        FieldSpec("cpu_percent", float, Unit.PERCENT, "Of one core; 200 is two cores."),
        FieldSpec("memory_used_bytes", int, Unit.BYTES, "Memory without page cache."),
        FieldSpec("memory_limit_bytes", int, Unit.BYTES, "The container's limit; absent without one."),
        FieldSpec("net_received_bytes", int, Unit.BYTES, "Since the container started."),
        FieldSpec("net_sent_bytes", int, Unit.BYTES, "Since the container started."),
        FieldSpec("block_read_bytes", int, Unit.BYTES, "Since the container started."),
        FieldSpec("block_written_bytes", int, Unit.BYTES, "Since the container started."),
        FieldSpec("pids", int, Unit.COUNT, "Processes and threads."),
        FieldSpec("restarts", int, Unit.COUNT, "Starts after the first since this generation was applied."),
    ),
)
AGENT = Measurement(
    "agent",
    "The agent itself.",
    (),
    (
        FieldSpec("rss_bytes", int, Unit.BYTES, "Resident memory of the agent."),
        FieldSpec("cpu_seconds", float, Unit.SECONDS, "Processor time since it started."),
        FieldSpec("spool_batches", int, Unit.COUNT, "Batches not yet confirmed by the cloud."),
        FieldSpec("spool_dropped", int, Unit.COUNT, "Batches dropped because the spool was full, ever."),
        FieldSpec("reconnects", int, Unit.COUNT, "Connections to the broker since the agent started."),
        FieldSpec("engine_calls", int, Unit.COUNT, "Calls to the container engine since the agent started."),
    ),
)
APP = Measurement("app", "What services publish of themselves.", ("service",), ())

CATALOGUE: dict[str, Measurement] = {each.name: each for each in (DEVICE, SERVICE, AGENT, APP)}
