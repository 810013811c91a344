"""One round of readings: the machine, the agent, and each service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil

from device.deploy.reports import KeeperState
from device.engine.protocol import Container, ContainerStats, Engine, EngineRefused, EngineUnreachable
from device.telemetry.probes import (
    AgentReading,
    MachineReading,
    agent_sample,
    device_sample,
    read_machine,
    read_process,
)
from device.telemetry.services import read_stats, service_samples
from device.telemetry.spool import Spool
from schemas.telemetry import Sample

log = logging.getLogger(__name__)

ENGINE_WITHIN = 5.0
"""Seconds the engine gets in one round: one that hangs must not hold up the readings of the machine."""


class Sampler:
    """Takes samples; remembers the last readings, because shares are counted between two."""

    def __init__(
        self,
        *,
        engine: Engine,
        keeper: Callable[[], KeeperState],
        spool: Spool,
        reconnects: Callable[[], int],
        data_dir: Path,
        now: Callable[[], datetime],
        patience: float = ENGINE_WITHIN,
    ) -> None:
        """*keeper* and *reconnects* are asked at each round."""
        self._engine = engine
        self._keeper = keeper
        self._spool = spool
        self._reconnects = reconnects
        self._data_dir = data_dir
        self._now = now
        self._patience = patience
        self._machine: MachineReading | None = None
        self._stats: dict[str, ContainerStats] = {}

    async def prepare(self) -> None:
        """Take the readings that the first round's shares are counted from."""
        self._machine = await self._look()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                self._stats = await read_stats(self._engine, await self._containers() or [])

    async def take(self) -> list[Sample]:
        """Return a sample of everything that could be read. Raises `StorageFailed`."""
        at = self._now()
        machine = await self._look()
        samples = [] if machine is None else [device_sample(machine, self._machine, at)]
        self._machine = machine
        samples += await self._services(at)
        rss, cpu_seconds = read_process()
        level = await self._spool.level()
        agent = AgentReading(
            rss=rss,
            cpu_seconds=cpu_seconds,
            spool_batches=level.batches,
            spool_dropped=level.dropped,
            reconnects=self._reconnects(),
            engine_calls=self._engine.calls,
        )
        return [*samples, agent_sample(agent, at)]

    async def _look(self) -> MachineReading | None:
        try:
            return await asyncio.to_thread(read_machine, self._data_dir)
        except (OSError, psutil.Error) as error:
            log.warning("the machine cannot be read: %s", error)
            return None

    async def _services(self, at: datetime) -> list[Sample]:
        try:
            async with asyncio.timeout(self._patience):
                return await self._read_services(at)
        except TimeoutError:
            log.debug("no telemetry of services: no answer within %g s", self._patience)
            return []

    async def _read_services(self, at: datetime) -> list[Sample]:
        reports = self._keeper().services
        containers = await self._containers() if reports else []
        if containers is None:
            return []  # nothing is known of them now, and nothing is said
        before, self._stats = self._stats, await read_stats(self._engine, containers)
        return service_samples(containers, reports, stats=self._stats, before=before, at=at)

    async def _containers(self) -> list[Container] | None:
        try:
            return await self._engine.containers()
        except (EngineUnreachable, EngineRefused) as error:
            log.debug("no telemetry of services: %s", error)
            return None
