"""Looks at the engine, and remembers what one look alone cannot tell: health, failures, what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from device.deploy.attempts import Attempts, Pauses, after_run, after_step, run_of
from device.deploy.occurrences import Glimpse, between, lost
from device.deploy.picture import Observed, Want, missing_images
from device.deploy.prober import Prober
from device.engine.protocol import Container, ContainerState, Engine
from schemas.reported import EventKind, Health

OnEvent = Callable[[EventKind, str | None, str, dict[str, Any]], None]


class Observer:
    """The eyes of the loop; tells events through *on_event* and calls *on_change* when health changes."""

    def __init__(
        self,
        engine: Engine,
        *,
        now: Callable[[], datetime],
        pauses: Pauses,
        on_change: Callable[[], None],
        on_event: OnEvent,
    ) -> None:
        self._engine = engine
        self._now = now
        self._on_event = on_event
        self._prober = Prober(engine, now=now, on_change=on_change)
        self._before: Glimpse | None = None
        self._ours: set[str] = set()
        """Runs that the agent or a command ends or may end: no failures, and no news."""
        self._want: Want | None = None
        self._fresh = Attempts(pauses=pauses)
        self._attempts: dict[str, Attempts] = {}
        self._lost: set[str] = set()

    def probe_reason(self, container: Container | None) -> str:
        """Return what the last probe of *container* met."""
        return "" if container is None else self._prober.reason(container.id)

    def will_end(self, service: str) -> None:
        """Note that what runs of *service* now is about to be ended on purpose."""
        if self._before is not None:
            self._ours |= {run_of(each) for each in self._before.containers if each.service == service}

    def step_failed(self, service: str) -> None:
        """Note that a step of *service* failed: the next one waits a while."""
        self._attempts[service] = after_step(self._attempts.get(service, self._fresh), self._now())

    async def look(self, want: Want, group: asyncio.TaskGroup) -> Observed:
        """Return what is there now. Raises what the engine raises."""
        containers = tuple(await self._engine.containers())
        images = frozenset(
            [
                image
                for image in sorted(missing_images(want, containers))
                if await self._engine.image_id(image) is not None
            ]
        )
        self._forget_failures(want)
        services = {service.name: service for service in want.services}
        self._prober.follow(services, containers, group)
        health = {
            each.id: self._prober.health(each, services[each.service])
            for each in containers
            if each.service in services and each.state is ContainerState.RUNNING
        }
        glimpse = Glimpse(containers, health)
        self._tell(want, glimpse)
        self._count_failures(want, glimpse)
        self._before = glimpse
        self._ours &= {run_of(each) for each in containers}
        return Observed(containers, images, health, dict(self._attempts))

    def _forget_failures(self, want: Want) -> None:
        """Let a new generation, or another configuration of a service, be tried without a pause."""
        former, self._want = self._want, want
        if former is None or former is want:
            return
        for name in list(self._attempts):
            same = former.generation == want.generation
            if not same or former.fingerprints.get(name) != want.fingerprints.get(name):
                del self._attempts[name]

    def _count_failures(self, want: Want, glimpse: Glimpse) -> None:
        now = self._now()
        for each in glimpse.containers:
            if run_of(each) in self._ours or want.fingerprints.get(each.service) != each.fingerprint:
                continue
            unhealthy = glimpse.health.get(each.id) is Health.UNHEALTHY
            if each.state is ContainerState.EXITED or unhealthy:
                self._attempts[each.service] = after_run(
                    self._attempts.get(each.service, self._fresh), each, now
                )

    def _tell(self, want: Want, glimpse: Glimpse) -> None:
        ours = frozenset(self._ours)
        if self._before is None:
            return
        self._lost |= lost(self._before, glimpse, ours=ours) & want.fingerprints.keys()
        for each in between(self._before, glimpse, ours=ours):
            self._on_event(each.kind, each.service, each.detail, dict(each.data))
            if each.kind is EventKind.SERVICE_STARTED and each.service in self._lost:
                self._lost.discard(each.service)
                detail = f"the container of {each.service} was gone; it runs again"
                self._on_event(EventKind.DRIFT_REPAIRED, each.service, detail, dict(each.data))
