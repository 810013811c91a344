"""Samples of services: their state as the agent knows it, their counters as the engine has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime

from device.engine.protocol import (
    Container,
    ContainerState,
    ContainerStats,
    Engine,
    EngineRefused,
    EngineUnreachable,
    NoSuchContainer,
)
from schemas import catalogue
from schemas.reported import Health, ServiceReport
from schemas.telemetry import FieldValue, Sample


async def read_stats(engine: Engine, containers: Iterable[Container]) -> dict[str, ContainerStats]:
    """Return the counters of each running container, by its id; what cannot be had is left out.

    All are asked for at once: an engine may take a second over each.
    """
    running = [each.id for each in containers if each.state is ContainerState.RUNNING]
    found = await asyncio.gather(*(_stats(engine, each) for each in running))
    return {container: stats for container, stats in zip(running, found, strict=True) if stats is not None}


def service_samples(
    containers: Iterable[Container],
    reports: Iterable[ServiceReport],
    *,
    stats: Mapping[str, ContainerStats],
    before: Mapping[str, ContainerStats],
    at: datetime,
) -> list[Sample]:
    """Return one `service` sample for each service reported; *before* holds the stats of the last round."""
    by_service = {each.service: each for each in containers}
    return [_sample(report, by_service.get(report.name), stats, before, at) for report in reports]


def cpu_percent(now: ContainerStats, before: ContainerStats | None) -> float | None:
    """Return the share of one core between two readings; None where there is no telling."""
    if before is None:
        return None
    seconds = (now.at - before.at).total_seconds()
    used = now.cpu_seconds - before.cpu_seconds
    if seconds <= 0 or used < 0:
        return None  # started anew, or the clock was set
    return round(100.0 * used / seconds, 2)


async def _stats(engine: Engine, container: str) -> ContainerStats | None:
    try:
        return await engine.stats(container)
    except (NoSuchContainer, EngineRefused, EngineUnreachable):
        return None


def _sample(
    report: ServiceReport,
    container: Container | None,
    stats: Mapping[str, ContainerStats],
    before: Mapping[str, ContainerStats],
    at: datetime,
) -> Sample:
    running = container is not None and container.state is ContainerState.RUNNING
    fields: dict[str, FieldValue] = {
        "running": running,
        "health": report.health.value if running else Health.NONE.value,
        "restarts": report.restarts,
    }
    if container is not None and (now := stats.get(container.id)) is not None:
        fields |= _counters(now, before.get(container.id))
    return Sample(at=at, measurement=catalogue.SERVICE.name, tags={"service": report.name}, fields=fields)


def _counters(now: ContainerStats, before: ContainerStats | None) -> dict[str, FieldValue]:
    fields: dict[str, FieldValue] = {
        "memory_used_bytes": now.memory_used_bytes,
        "net_received_bytes": now.net_received_bytes,
        "net_sent_bytes": now.net_sent_bytes,
        "block_read_bytes": now.block_read_bytes,
        "block_written_bytes": now.block_written_bytes,
        "pids": now.pids,
    }
    if now.memory_limit_bytes is not None:
        fields["memory_limit_bytes"] = now.memory_limit_bytes
    if (share := cpu_percent(now, before)) is not None:
        fields["cpu_percent"] = share
    return fields
