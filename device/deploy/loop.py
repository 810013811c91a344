"""Keeps a device's services as desired: observe, plan, carry out, observe again, until nothing is left to do.

Level-triggered: every round reads the journal and the engine anew, so a lost
or repeated signal does no harm. Rounds begin when somebody calls `wake`, when
the engine says that something happened, when something is due, and at least
every `reconcile_interval`. Each service has at most one step in hand; steps of
different services run side by side, and staging beside them all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from device.database import StorageFailed
from device.deploy.attempts import run_of
from device.deploy.course import DEFAULT_BOUNDS, Bounds, Course, Look
from device.deploy.execute import execute, step_problem
from device.deploy.hands import Hands
from device.deploy.observer import Observer, OnEvent
from device.deploy.orders import Orders, read_orders
from device.deploy.picture import Want
from device.deploy.plan import Standing, leave, survey
from device.deploy.reports import KeeperState, not_begun, not_well, report_of
from device.deploy.steps import Pull, Remove, Restart, Start, Step, Stop, describe
from device.engine.protocol import ContainerState, Engine, EngineUnreachable
from device.journal import Journal, Starts
from schemas.errors import FleetError, Problem
from schemas.reported import Phase, ServiceReport

log = logging.getLogger(__name__)

ENGINE_RETRY = 1.0
"""Seconds between tries to reach an engine that does not answer."""
LONGEST_GAP = timedelta(seconds=120)
"""Between two rounds, beyond the interval. A longer one: the agent was stopped, the device slept, or
somebody set the clock."""
BREATH = 0.005
"""Seconds that a round waits for more signals, so that a burst of them makes one round."""
AT_ONCE = 8
"""Quick steps carried out side by side; slow ones (pull, stop) do not take a place."""


class Keeper:
    """Keeps the services of one device; see the module. `run` does it, the rest may be called beside it."""

    def __init__(
        self,
        *,
        engine: Engine,
        journal: Journal,
        now: Callable[[], datetime],
        on_change: Callable[[KeeperState], None],
        on_event: OnEvent,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        """*on_change* gets each new state, *on_event* what happened; both must return at once."""
        self._engine = engine
        self._journal = journal
        self._now = now
        self._on_change = on_change
        self._woken = asyncio.Event()
        self._hands = Hands(self.wake)
        self._observer = Observer(
            engine, now=now, pauses=bounds.pauses, on_change=self.wake, on_event=on_event
        )
        self._course = Course(
            engine=engine, journal=journal, now=now, bounds=bounds, on_event=on_event, wake=self.wake
        )
        self._orders = Orders()
        self._failed: dict[str, Problem] = {}
        self._state = KeeperState()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._round_at: datetime | None = None

    def wake(self) -> None:
        """Ask for a round soon; any number of calls make one."""
        self._woken.set()

    def state(self) -> KeeperState:
        """Return what was last observed."""
        return self._state

    @asynccontextmanager
    async def reserve(self, service: str) -> AsyncIterator[None]:
        """Leave *service* alone while the block runs; entering waits until a step in hand is over."""
        async with self._hands.reserve(service):
            self._observer.will_end(service)
            yield

    async def run(self) -> None:
        """Keep the services until cancelled; containers run on after that."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="engine events")
            while True:
                self._woken.clear()
                pause = await self._round(group)
                await self._sleep(pause)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(BREATH)

    async def _listen(self) -> None:
        """Wake the loop at each event of the engine, for ever."""
        said = ""
        while True:
            try:
                async for _ in self._engine.events():
                    said = ""
                    self.wake()
            except FleetError as error:
                if str(error) != said:
                    log.info("no engine events for now: %s", error)
                said = str(error)
            await asyncio.sleep(ENGINE_RETRY)
            self.wake()

    async def _round(self, group: asyncio.TaskGroup) -> float:
        """Observe, plan, begin what can be begun, report; return after how many seconds to look again."""
        self._mind_the_gap()
        storage = await self._read(group)
        orders, grips = self._orders, self._hands.grips()
        if orders.want is None:
            self._publish(self._unborn(), storage)
            return orders.config.agent.reconcile_interval
        want = self._told(orders.want)
        try:
            seen = await self._observer.look(want, group)
        except FleetError as error:  # away, or answering nonsense: either way nothing is known
            self._course.was_away()
            self._publish(self._state.services, storage, error.problem)
            return min(ENGINE_RETRY, orders.config.agent.reconcile_interval)
        now = self._now()
        present = want.fingerprints.keys() | {each.service for each in seen.containers}
        self._failed = {name: each for name, each in self._failed.items() if name in present}
        standings = survey(want, seen, now)
        steps = [*(each.step for each in standings if each.step is not None), *leave(want, seen, now)]
        for step in steps:
            if self._hands.free_since(step.service, grips):
                self._hands.take(step.service)
                group.create_task(self._carry_out(step), name=describe(step))
        for each in standings:
            if each.service in orders.asked and self._runs_freely(each, grips):
                await self._kept("asked to start", self._journal.unask(each.service))
        reports = self._reports(want, standings)
        storage = await self._judge(want, standings, reports, steps) or storage
        self._publish(reports, storage)
        return self._pause(standings)

    def _mind_the_gap(self) -> None:
        former, self._round_at = self._round_at, self._now()
        longest = LONGEST_GAP + timedelta(seconds=self._orders.config.agent.reconcile_interval)
        if former is not None and not timedelta(0) <= self._round_at - former <= longest:
            log.info("the last look at the services was at %s: the clock jumped or the agent slept", former)
            self._course.was_away()

    async def _read(self, group: asyncio.TaskGroup) -> Problem | None:
        """Read the orders and go on towards the newest; a disk that fails must not stop the keeping."""
        try:
            self._orders = await read_orders(self._journal, self._orders)
            while await self._course.forward(self._orders, group):
                self._orders = await read_orders(self._journal, self._orders)
        except StorageFailed as error:
            return error.problem
        return None

    def _told(self, want: Want) -> Want:
        """Return *want* with what commands say."""
        return replace(want, held=self._orders.holds, asked=self._orders.asked, reserved=self._hands.reserved)

    def _runs_freely(self, standing: Standing, grips: Mapping[str, int]) -> bool:
        container = standing.container
        runs = container is not None and container.state is ContainerState.RUNNING
        return runs and self._hands.free_since(standing.service, grips)

    async def _judge(
        self,
        want: Want,
        standings: Sequence[Standing],
        reports: tuple[ServiceReport, ...],
        steps: Sequence[Step],
    ) -> Problem | None:
        trial = self._orders.trial
        if trial is None:
            return None
        containers = [each.container for each in standings if each.container is not None]
        look = Look(
            reports=reports,
            ill=not_well(reports, want.held),
            containers={each.service: each.id for each in containers},
            runs=frozenset(run_of(each) for each in containers),
            steps=len({step.service for step in steps} | self._hands.taken),
        )
        try:
            if await self._course.look(trial, look):
                self._orders = await read_orders(self._journal, self._orders)
                self.wake()
        except StorageFailed as error:
            return error.problem
        return None

    async def _carry_out(self, step: Step) -> None:
        phase = self._state.phase
        try:
            if isinstance(step, Stop | Restart | Remove):
                self._observer.will_end(step.service)
            if isinstance(step, Start | Restart):
                await self._kept("start", self._journal.note_start(step.service, self._now()))
            if isinstance(step, Restart):  # else one that ends with 0 would count as done after a kill here
                await self._kept("asked to start", self._journal.ask(step.service))
            if isinstance(step, Pull | Stop | Restart):
                await execute(step, self._engine)
            else:
                async with self._room:
                    await execute(step, self._engine)
        except EngineUnreachable as error:
            log.warning("%s: %s", describe(step), error)
        except FleetError as error:
            log.warning("%s: %s", describe(step), error)
            self._observer.step_failed(step.service)
            self._failed[step.service] = step_problem(error, step, phase)
        else:
            log.info("%s: done", describe(step))
            self._failed.pop(step.service, None)
            if isinstance(step, Start | Restart):
                await self._kept("asked to start", self._journal.unask(step.service))
        finally:
            await self._hands.let_go(step.service)

    async def _kept(self, what: str, note: Awaitable[None]) -> None:
        """Journal *note*; a disk that fails must not stop the keeping."""
        try:
            await note
        except StorageFailed as error:
            log.warning("a note (%s) is not kept: %s", what, error)

    def _reports(self, want: Want, standings: Sequence[Standing]) -> tuple[ServiceReport, ...]:
        return tuple(
            report_of(
                standing,
                service,
                restarts=_restarts(standing, self._orders.starts.get(service.name), want.generation),
                failed=self._failed.get(service.name),
                probe=self._observer.probe_reason(standing.container),
            )
            for service, standing in zip(want.services, standings, strict=True)
        )

    def _unborn(self) -> tuple[ServiceReport, ...]:
        newest, trial = self._orders.newest, self._orders.trial
        if newest is None or trial is None:
            return ()
        return not_begun(newest, next(iter(trial.problems), self._course.obstacle), trial.outcome)

    def _publish(self, services: tuple[ServiceReport, ...], *troubles: Problem | None) -> None:
        orders = self._orders
        trial = orders.trial
        known = {each.name for each in services}
        others = [problem for name, problem in self._failed.items() if name not in known]
        found = (*(() if trial is None else trial.problems), self._course.obstacle, *others, *troubles)
        state = KeeperState(
            generation=0 if trial is None else trial.generation,
            committed_generation=orders.committed_generation,
            release_id=None if orders.applied is None else orders.applied.release_id,
            phase=Phase.IDLE if trial is None else trial.phase,
            outcome=None if trial is None else trial.outcome,
            services=services,
            problems=tuple(each for each in found if each is not None),
        )
        if state != self._state:
            self._state = state
            self._on_change(state)

    def _pause(self, standings: Sequence[Standing]) -> float:
        now = self._now()
        dues = [*(each.due for each in standings), self._course.due(self._orders.trial)]
        seconds = [(due - now).total_seconds() for due in dues if due is not None]
        return max(BREATH, min([self._orders.config.agent.reconcile_interval, *seconds]))


def _restarts(standing: Standing, starts: Starts | None, generation: int) -> int:
    """Return the starts after the first; a container from before had its first under another generation."""
    first = standing.container is None or standing.container.generation == generation
    return max(0, (0 if starts is None else starts.count) - (1 if first else 0))
