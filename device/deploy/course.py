"""Takes the newest generation through its phases, each journalled before anything is done in it.

idle -> staging -> switching <-> soaking -> done. Nothing that runs is touched
before `switching`; if the images cannot be had, the generation before it stays
in effect. After a kill -9 the journal says where to go on, and since when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from device.deploy.attempts import PAUSES, Pauses
from device.deploy.observer import OnEvent
from device.deploy.orders import Orders
from device.deploy.reports import give_up_problem, unsettled
from device.deploy.staging import Staged, Staging
from device.deploy.trial import PATIENCE, SOAK, Verdict, Watch, deadline, judge, looked
from device.engine.protocol import Engine
from device.journal import Journal, Trial
from schemas.desired import Desired
from schemas.errors import FleetError, Problem
from schemas.reported import EventKind, Outcome, Phase, ServiceReport

LAST_LINES = 10
_WATCHED = frozenset({Phase.SWITCHING, Phase.SOAKING})


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a generation must stay well, how long it may take, and the pauses between attempts."""

    soak: timedelta = SOAK
    patience: timedelta = PATIENCE
    pauses: Pauses = PAUSES


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Look:
    """One look at everything a generation asks for: who is ill, which containers there are, their runs."""

    reports: tuple[ServiceReport, ...]
    containers: Mapping[str, str]
    ill: frozenset[str]
    runs: frozenset[str]
    steps: int
    """Steps in the plan or in hand."""

    @property
    def well(self) -> frozenset[str] | None:
        """The runs, if nothing is left to do and every service is well."""
        return None if self.ill or self.steps else self.runs


class Course:
    """The way of one generation after the other; `wake` is called when there is something to go on with."""

    def __init__(
        self,
        *,
        engine: Engine,
        journal: Journal,
        now: Callable[[], datetime],
        bounds: Bounds,
        on_event: OnEvent,
        wake: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._now = now
        self._bounds = bounds
        self._on_event = on_event
        self._wake = wake
        self._resumed_at = now()
        self._staging = Staging(engine, now=now, pauses=bounds.pauses, on_change=wake)
        self._task: asyncio.Task[None] | None = None
        self._task_generation = 0
        self._staged: Staged | None = None
        self._watch: Watch | None = None
        self._watched = 0
        self._ill: dict[str, ServiceReport] = {}
        """The last report of each service while it was ill in the watched generation."""
        self._untouched = 0
        """The generation that this agent switched to and that needed no step so far."""

    @property
    def obstacle(self) -> Problem | None:
        """What staging struggles with now."""
        return self._staging.obstacle

    def was_away(self) -> None:
        """Note that nobody could watch until now: the time off does not speak against a generation."""
        self._resumed_at = self._now()
        self._watch = None

    async def forward(self, orders: Orders, group: asyncio.TaskGroup) -> bool:
        """Take the steps towards the switch that can be taken now; return whether the journal changed."""
        trial, newest = orders.trial, orders.newest
        if trial is None or newest is None:
            return False
        match trial.phase:
            case Phase.IDLE:
                self._tell_accepted(newest)
                await self._journal.record_phase(trial.generation, Phase.STAGING, self._now())
                return True
            case Phase.STAGING:
                return await self._stage(trial, newest, group)
            case Phase.SWITCHING | Phase.SOAKING | Phase.DONE:
                self._end_staging()
                return False

    async def look(self, trial: Trial, look: Look) -> bool:
        """Judge a generation that is in effect; return whether the journal changed."""
        if trial.phase not in _WATCHED:
            return False
        now = self._now()
        if look.steps:
            self._untouched = 0
        if self._untouched == trial.generation and look.well is not None:
            return await self._end(trial, Outcome.NO_CHANGE)
        if self._watch is None or self._watched != trial.generation:
            self._watch, self._watched, self._ill = self._watch_over(trial, now), trial.generation, {}
        self._ill |= {report.name: report for report in look.reports if report.name in look.ill}
        self._watch = looked(self._watch, well=look.well, now=now)
        match judge(self._watch, now):
            case Verdict.COMMIT:
                untouched = self._untouched == trial.generation
                return await self._end(trial, Outcome.NO_CHANGE if untouched else Outcome.COMMITTED)
            case Verdict.GIVE_UP:
                return await self._end(trial, Outcome.NOT_ROLLED_BACK, await self._reasons(trial, look))
            case Verdict.WAIT:
                phase = Phase.SWITCHING if self._watch.well_since is None else Phase.SOAKING
                await self._journal.record_phase(trial.generation, phase, now)
                return phase is not trial.phase

    def due(self, trial: Trial | None) -> datetime | None:
        """Return when the verdict may change though nothing else happens."""
        if self._watch is None or trial is None or trial.phase not in _WATCHED:
            return None
        since = self._watch.well_since
        return self._watch.deadline if since is None else since + self._watch.soak

    async def _stage(self, trial: Trial, newest: Desired, group: asyncio.TaskGroup) -> bool:
        lost = self._staged_of(trial) is None and (self._task is None or self._task.done())
        if self._task_generation != trial.generation or lost:
            self._end_staging()
            until = self._deadline(trial.since, self._now())
            self._task = group.create_task(self._fetch(newest, until), name="staging")
            self._task_generation = trial.generation
        staged = self._staged_of(trial)
        if staged is None:
            return False
        if staged.problem is not None:
            return await self._end(trial, Outcome.FAILED_NO_STATE_CHANGE, (staged.problem,))
        await self._journal.record_phase(trial.generation, Phase.SWITCHING, self._now())
        self._untouched = trial.generation
        return True

    def _staged_of(self, trial: Trial) -> Staged | None:
        staged = self._staged
        return staged if staged is not None and staged.generation == trial.generation else None

    async def _fetch(self, newest: Desired, until: datetime) -> None:
        self._staged = await self._staging.run(newest, until)
        self._wake()

    def _end_staging(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task, self._task_generation, self._staging.obstacle = None, 0, None

    async def _end(self, trial: Trial, outcome: Outcome, problems: tuple[Problem, ...] = ()) -> bool:
        self._watch = None
        await self._journal.record_outcome(trial.generation, outcome, problems, self._now())
        detail = f"generation {trial.generation}: {outcome.value}"
        data = {"generation": trial.generation, "outcome": outcome.value}
        self._on_event(EventKind.GENERATION_ENDED, None, detail, data)
        return True

    async def _reasons(self, trial: Trial, look: Look) -> tuple[Problem, ...]:
        """Return why the generation failed: one problem for each service that is not well.

        One that ends again and again may be up at this moment: then it counts as it was when it was down.
        """
        ill = [report for report in look.reports if report.name in look.ill] or [
            self._ill[report.name] for report in look.reports if report.restarts and report.name in self._ill
        ]
        return tuple(
            [
                give_up_problem(each, trial.phase, await self._last_lines(look.containers.get(each.name)))
                for each in ill
            ]
            or [unsettled(trial.phase, look.steps)]
        )

    async def _last_lines(self, container: str | None) -> list[str]:
        if container is None:
            return []
        try:
            return await self._engine.logs(container, tail=LAST_LINES)
        except FleetError:
            return []  # the verdict does not depend on them

    def _tell_accepted(self, newest: Desired) -> None:
        release = newest.release
        detail = f"generation {newest.generation}: {release.name} {release.version}"
        data = {"generation": newest.generation, "release": str(newest.release_id)}
        self._on_event(EventKind.GENERATION_ACCEPTED, None, detail, data)

    def _watch_over(self, trial: Trial, now: datetime) -> Watch:
        return Watch(self._deadline(trial.switched_at or trial.since, now), self._bounds.soak)

    def _deadline(self, began: datetime, now: datetime) -> datetime:
        return deadline(began=began, resumed_at=self._resumed_at, patience=self._bounds.patience, now=now)
