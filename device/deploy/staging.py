"""Fetching every image of a release before anything that runs is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from device.deploy.attempts import Pauses
from device.deploy.execute import in_phase
from device.engine.protocol import Engine
from schemas.desired import Desired
from schemas.errors import FleetError, Problem
from schemas.reported import Phase


@dataclass(frozen=True, slots=True)
class Staged:
    """What came of staging one generation: a problem where an image cannot be had."""

    generation: int
    problem: Problem | None = None


class Staging:
    """Fetches the images of one generation; `obstacle` is what it is struggling with now."""

    def __init__(
        self, engine: Engine, *, now: Callable[[], datetime], pauses: Pauses, on_change: Callable[[], None]
    ) -> None:
        self.obstacle: Problem | None = None
        self._engine = engine
        self._now = now
        self._pauses = pauses
        self._on_change = on_change

    async def run(self, desired: Desired, deadline: datetime) -> Staged:
        """Return when every image is here, or one cannot be had.

        A failure that a retry can help is retried, with growing pauses, until *deadline*.
        """
        for image in sorted({service.image for service in desired.release.services}):
            if (problem := await self._fetch(image, deadline)) is not None:
                return Staged(desired.generation, problem)
        return Staged(desired.generation)

    async def _fetch(self, image: str, deadline: datetime) -> Problem | None:
        failures = 0
        while True:
            try:
                if await self._engine.image_id(image) is None:
                    await self._engine.pull(image)
            except FleetError as error:
                failures += 1
                problem = in_phase(error.problem, Phase.STAGING, element=image)
            else:
                self._met(None)
                return None
            wait = self._pauses.after(failures)
            if not problem.retryable or self._now() + wait >= deadline:
                return problem
            self._met(problem)
            await asyncio.sleep(wait.total_seconds())

    def _met(self, problem: Problem | None) -> None:
        if problem != self.obstacle:
            self.obstacle = problem
            self._on_change()
