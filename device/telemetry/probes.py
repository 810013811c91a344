"""Readings of the machine and of the agent itself, and the samples made of them.

`read_machine` and `read_process` look (and may block); the rest is pure.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from schemas import catalogue
from schemas.telemetry import FieldValue, Sample

_PROCESSOR_SENSORS = frozenset(
    {
        "coretemp",
        "k10temp",
        "zenpower",
        "cpu_thermal",
        "cpu-thermal",
        "cpu",
        "soc_thermal",
        "soc-thermal",
        "x86_pkg_temp",
    }
)
_PLAUSIBLE_CELSIUS = (-60.0, 150.0)
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class MachineReading:
    """The machine at one moment. Processor times are seconds over all cores since boot."""

    cpu_busy: float
    cpu_total: float
    load_1m: float
    load_5m: float
    memory_used: int
    memory_total: int
    disk_used: int
    disk_total: int
    disk_percent: float
    net_received: int
    net_sent: int
    uptime: float
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class AgentReading:
    """The agent at one moment."""

    rss: int
    cpu_seconds: float
    spool_batches: int
    spool_dropped: int
    reconnects: int
    engine_calls: int


def device_sample(reading: MachineReading, before: MachineReading | None, at: datetime) -> Sample:
    """Return the `device` sample; the processor's share needs an earlier reading of the same boot."""
    fields: dict[str, FieldValue] = {
        "load_1m": reading.load_1m,
        "load_5m": reading.load_5m,
        "memory_used_bytes": reading.memory_used,
        "memory_total_bytes": reading.memory_total,
        "memory_percent": _percent(reading.memory_used, reading.memory_total),
        "disk_used_bytes": reading.disk_used,
        "disk_total_bytes": reading.disk_total,
        "disk_percent": reading.disk_percent,
        "net_received_bytes": reading.net_received,
        "net_sent_bytes": reading.net_sent,
        "uptime_seconds": reading.uptime,
    }
    if before is not None and reading.cpu_total > before.cpu_total:
        busy = max(0.0, reading.cpu_busy - before.cpu_busy)
        fields["cpu_percent"] = min(100.0, _percent(busy, reading.cpu_total - before.cpu_total))
    if reading.temperature is not None:
        fields["temperature_celsius"] = reading.temperature
    return Sample(at=at, measurement=catalogue.DEVICE.name, fields=fields)


def agent_sample(reading: AgentReading, at: datetime) -> Sample:
    """Return the `agent` sample."""
    return Sample(
        at=at,
        measurement=catalogue.AGENT.name,
        fields={
            "rss_bytes": reading.rss,
            "cpu_seconds": reading.cpu_seconds,
            "spool_batches": reading.spool_batches,
            "spool_dropped": reading.spool_dropped,
            "reconnects": reading.reconnects,
            "engine_calls": reading.engine_calls,
        },
    )


def hottest(sensors: dict[str, list[float]]) -> float | None:
    """Return the highest plausible temperature of the processor's own sensors; None without one."""
    low, high = _PLAUSIBLE_CELSIUS
    found = [each for name, all_ in sensors.items() if name in _PROCESSOR_SENSORS for each in all_]
    return max((each for each in found if low < each < high), default=None)


def read_machine(data_dir: Path) -> MachineReading:
    """Look at the machine; disk is the file system of *data_dir*. Raises `OSError`, `psutil.Error`."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Guests' time is within user and nice already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(data_dir))
    load_1m, load_5m, _ = os.getloadavg()
    network = [each for name, each in psutil.net_io_counters(pernic=True).items() if name != _LOOPBACK]
    return MachineReading(
        cpu_busy=total - idle,
        cpu_total=total,
        load_1m=load_1m,
        load_5m=load_5m,
        memory_used=memory.total - memory.available,
        memory_total=memory.total,
        disk_used=disk.used,
        disk_total=disk.total,
        disk_percent=disk.percent,
        net_received=sum(each.bytes_recv for each in network),
        net_sent=sum(each.bytes_sent for each in network),
        uptime=time.clock_gettime(time.CLOCK_BOOTTIME),
        temperature=hottest(
            {name: [each.current for each in all_] for name, all_ in psutil.sensors_temperatures().items()}
        ),
    )


def read_process() -> tuple[int, float]:
    """Return this process's resident memory in bytes and its processor time in seconds."""
    return psutil.Process().memory_info().rss, time.process_time()


def _percent(part: float, whole: float) -> float:
    return round(100.0 * part / whole, 2) if whole else 0.0
