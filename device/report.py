"""Tells the cloud what runs here: always the newest state, whole, until the broker has it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from device.deploy.reports import KeeperState
from device.journal import Journal
from device.link import LinkDown, Outbound
from schemas import topics
from schemas.base import to_wire
from schemas.device import DeviceFacts
from schemas.errors import Problem
from schemas.reading import MAX_PAYLOAD
from schemas.reported import Reported

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds between two reports at least; what changes meanwhile makes one."""

_SHORT = 200
_MOST_PROBLEMS = 20


class Reporter:
    """Sends `up/reported` when it differs from what the broker last confirmed, and after each connection."""

    def __init__(
        self,
        device: UUID,
        *,
        link: Outbound,
        journal: Journal,
        problems: tuple[Problem, ...],
        now: Callable[[], datetime],
    ) -> None:
        """*problems* are what was wrong with the agent's own files."""
        self._device = device
        self._link = link
        self._journal = journal
        self._now = now
        self._keeper = KeeperState()
        self._facts = DeviceFacts()
        self._problems = problems
        self._changed = asyncio.Event()
        self._confirmed: Reported | None = None

    def keeper_changed(self, state: KeeperState) -> None:
        """Take the newest state of the services."""
        self._keeper = state
        self._changed.set()

    def facts_changed(self, facts: DeviceFacts) -> None:
        """Take what was found out about the machine."""
        self._facts = facts
        self._changed.set()

    def config_changed(self) -> None:
        """Note that a configuration was accepted; its version is read from the journal."""
        self._changed.set()

    async def run(self) -> None:
        """Report until cancelled. Raises `StorageFailed`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._after_each_connection())
            while True:
                await self._changed.wait()
                await self._link.connected()
                self._changed.clear()
                await self._send_newest()
                await asyncio.sleep(PAUSE)

    async def _after_each_connection(self) -> None:
        session = -1
        while True:
            session = await self._link.reconnected(session)
            self._confirmed = None
            self._changed.set()

    async def _send_newest(self) -> None:
        report = await self._report()
        if self._confirmed is not None and _same(report, self._confirmed):
            return
        report = report.model_copy(update={"revision": await self._journal.next_revision()})
        try:
            await self._link.publish(topics.Reported(self._device), _fitting(report))
        except LinkDown:
            self._changed.set()
        else:
            self._confirmed = report

    async def _report(self) -> Reported:
        state = self._keeper
        problems: list[Problem] = [*self._problems, *state.problems]
        return Reported(
            revision=0,
            generation=state.generation,
            committed_generation=state.committed_generation,
            release_id=state.release_id,
            phase=state.phase,
            outcome=state.outcome,
            config_version=(await self._journal.config()).version,
            services=list(state.services),
            problems=problems,
            facts=self._facts,
            at=self._now(),
        )


def _fitting(report: Reported) -> bytes:
    """Return *report* as it travels; where it is too long, texts of errors are cut."""
    payload = to_wire(report)
    if len(payload) <= MAX_PAYLOAD:
        return payload
    services = [
        each if each.error is None else each.model_copy(update={"error": _cut(each.error)})
        for each in report.services
    ]
    problems = [_cut(each) for each in report.problems[:_MOST_PROBLEMS]]
    return to_wire(report.model_copy(update={"services": services, "problems": problems}))


def _cut(found: Problem) -> Problem:
    return found.model_copy(update={"message": found.message[:_SHORT]})


def _same(left: Reported, right: Reported) -> bool:
    """Return whether two reports say the same, whatever their number and time."""
    blank = {"revision": 0, "at": right.at}
    return left.model_copy(update=blank) == right.model_copy(update=blank)
