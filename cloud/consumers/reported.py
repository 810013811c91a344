"""`up/reported`: what a device runs, and how its newest generation goes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from cloud.store import configs, deployments, devices
from cloud.store.database import Session
from cloud.store.events import Entry, Kind
from cloud.store.tables import DesiredRow
from schemas.base import jsonable
from schemas.reported import Reported


async def record(
    session: Session, device: UUID, reported: Reported, before: Reported | None, now: datetime
) -> Sequence[Entry] | None:
    """Store *reported* and what follows from it; return what the diary is to tell, None if it was no news.

    *before* is the report stored last. What followed from it is stored too, so it need not be tried again.
    """
    if not await devices.record_reported(session, device, reported):
        return None
    entries: list[Entry] = []
    if differs(before, reported):
        entries.append(Entry(Kind.REPORTED, device, told(reported), now))
        entries += await _ended(session, device, reported, now)
    if before is None or before.config_version != reported.config_version:
        entries += await _applied(session, device, reported.config_version, now)
    return entries


async def _ended(session: Session, device: UUID, reported: Reported, now: datetime) -> Sequence[Entry]:
    ended = await deployments.record_outcome(session, device, reported, now)
    return [Entry(Kind.DEPLOYMENT, device, _story(row), now, ends=row.deployment) for row in ended]


def _story(ended: DesiredRow) -> dict[str, Any]:
    return {
        "what": "ended",
        "deployment": None if ended.deployment is None else str(ended.deployment),
        "generation": ended.generation,
        "outcome": ended.outcome,
        "problems": ended.problems,
    }


async def _applied(session: Session, device: UUID, version: int, now: datetime) -> Sequence[Entry]:
    if not await configs.record_applied(session, device, version, now):
        return []
    return [Entry(Kind.CONFIG, device, {"what": "applied", "version": version}, now)]


def differs(before: Reported | None, after: Reported) -> bool:
    """Return whether somebody who watches would want to know: a phase, outcome or service changed."""
    return before is None or told(before) != told(after)


def told(reported: Reported) -> dict[str, Any]:
    """Return what the diary keeps of a report."""
    return {
        "generation": reported.generation,
        "phase": reported.phase.value,
        "outcome": None if reported.outcome is None else reported.outcome.value,
        "services": {
            service.name: {"state": service.state.value, "health": service.health.value}
            for service in reported.services
        },
        "problems": [jsonable(problem) for problem in reported.problems],
    }
