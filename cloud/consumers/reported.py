"""`up/reported`: what a device runs, and how its newest generation goes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from cloud.store import configs, deployments, devices, events
from cloud.store.database import Session
from schemas.base import jsonable
from schemas.reported import Reported


async def record(session: Session, device: UUID, reported: Reported, now: datetime) -> bool:
    """Store *reported* and what follows from it; return whether it was news."""
    row = await devices.require(session, device)
    before = None if row.reported is None else Reported.model_validate(row.reported)
    if not await devices.record_reported(session, device, reported):
        return False
    ended = await deployments.record_outcome(session, device, reported, now)
    applied = await configs.record_applied(session, device, reported.config_version, now)
    if differs(before, reported):
        await events.append(session, events.Kind.REPORTED, device, told(reported), now)
    if ended is not None:
        story = {
            "what": "ended",
            "deployment": None if ended.deployment is None else str(ended.deployment),
            "generation": ended.generation,
            "outcome": ended.outcome,
            "problems": ended.problems,
        }
        await events.append(session, events.Kind.DEPLOYMENT, device, story, now)
    if applied:
        story = {"what": "applied", "version": reported.config_version}
        await events.append(session, events.Kind.CONFIG, device, story, now)
    return True


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
