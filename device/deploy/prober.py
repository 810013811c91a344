"""Carries out the `http` and `tcp` checks: one task per running container, a few probes at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from device.deploy.attempts import run_of
from device.deploy.health import ProbedCheck, Tracker, answered, begin, health_of
from device.engine.protocol import Container, ContainerState, Engine, EngineUnreachable, ProbeAnswer
from schemas.desired import HttpCheck, ServiceManifest, TcpCheck
from schemas.errors import FleetError
from schemas.reported import Health

AT_ONCE = 8


@dataclass(slots=True)
class _Followed:
    check: ProbedCheck
    tracker: Tracker
    task: asyncio.Task[None]


class Prober:
    """Follows the health of running containers; calls *on_change* when one's health changes."""

    def __init__(self, engine: Engine, *, now: Callable[[], datetime], on_change: Callable[[], None]) -> None:
        self._engine = engine
        self._now = now
        self._on_change = on_change
        self._followed: dict[str, _Followed] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def follow(
        self,
        services: Mapping[str, ServiceManifest],
        containers: tuple[Container, ...],
        group: asyncio.TaskGroup,
    ) -> None:
        """Begin to probe what newly runs, in *group*; stop probing what does not run any more."""
        wanted = {
            each.id: (each, check)
            for each in containers
            if each.state is ContainerState.RUNNING
            and (service := services.get(each.service)) is not None
            and isinstance(check := service.health, HttpCheck | TcpCheck)
        }
        for container_id, known in list(self._followed.items()):
            container, check = wanted.get(container_id, (None, None))
            over = container is None or known.tracker.run != run_of(container) or known.check != check
            if over or known.task.done():  # done: it ended with a loop that failed and runs anew
                known.task.cancel()
                del self._followed[container_id]
        for container_id, (container, check) in wanted.items():
            if container_id not in self._followed:
                task = group.create_task(self._watch(container), name=f"probe {container.service}")
                self._followed[container_id] = _Followed(check, begin(container, check, self._now()), task)

    def health(self, container: Container, service: ServiceManifest) -> Health:
        """Return the health of *container*, whoever checks it; `none` if it does not run."""
        if container.state is not ContainerState.RUNNING:
            return Health.NONE
        followed = self._followed.get(container.id)
        return health_of(container, service.health, followed.tracker if followed else None)

    def reason(self, container_id: str) -> str:
        """Return what the last probe of a container met, for people."""
        followed = self._followed.get(container_id)
        return "" if followed is None else followed.tracker.reason

    async def _watch(self, container: Container) -> None:
        while (followed := self._followed.get(container.id)) is not None:
            tracker, check, now = followed.tracker, followed.check, self._now()
            if not tracker.is_due(check, now):
                await asyncio.sleep((tracker.due - now).total_seconds())
                continue
            answer = await self._ask(container.id, check)
            if answer is None:
                await asyncio.sleep(check.interval)
                continue
            followed.tracker = answered(tracker, check, answer, self._now())
            if followed.tracker.health is not tracker.health:
                self._on_change()

    async def _ask(self, container: str, check: ProbedCheck) -> ProbeAnswer | None:
        """Return what a probe met; None if the engine is away, so that nothing was learnt."""
        async with self._room:
            try:
                return await self._engine.probe(container, check)
            except EngineUnreachable:
                return None
            except FleetError as error:
                return ProbeAnswer(passed=False, reason=error.problem.message)
