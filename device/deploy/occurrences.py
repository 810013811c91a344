"""What happened between two observations, for the event stream. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from device.deploy.attempts import run_of
from device.engine.protocol import Container, ContainerState
from schemas.reported import EventKind, Health


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One look at the containers, and the health of those that run, by id."""

    containers: tuple[Container, ...]
    health: Mapping[str, Health]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One event to tell."""

    kind: EventKind
    service: str
    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)


def between(before: Glimpse, after: Glimpse, *, ours: frozenset[str]) -> list[Occurrence]:
    """Return what happened; the ending of a run in *ours* was our own doing and is no event."""
    former = {each.id: each for each in before.containers}
    return [
        occurrence
        for container in after.containers
        for occurrence in (
            _started(former.get(container.id), container),
            None if run_of(container) in ours else _died(former.get(container.id), container),
            _sickened(before, after, container),
        )
        if occurrence is not None
    ]


def lost(before: Glimpse, after: Glimpse, *, ours: frozenset[str]) -> frozenset[str]:
    """Return the services whose container was removed behind our back, not at the end of a run in *ours*."""
    remaining = {each.id for each in after.containers}
    return frozenset(
        each.service for each in before.containers if each.id not in remaining and run_of(each) not in ours
    )


def _started(before: Container | None, after: Container) -> Occurrence | None:
    if after.state is not ContainerState.RUNNING:
        return None
    if before is not None and before.started_at == after.started_at and before.state is after.state:
        return None
    data = {"container": after.id[:12], "image": after.image, "generation": after.generation}
    return Occurrence(EventKind.SERVICE_STARTED, after.service, f"{after.service} started", data)


def _died(before: Container | None, after: Container) -> Occurrence | None:
    if after.state is not ContainerState.EXITED or before is None:
        return None
    if before.state is not ContainerState.RUNNING and run_of(before) == run_of(after):
        return None
    killed = ", out of memory" if after.oom_killed else ""
    detail = f"{after.service} ended with exit code {after.exit_code}{killed}"
    data = {"container": after.id[:12], "exit_code": after.exit_code, "oom_killed": after.oom_killed}
    return Occurrence(EventKind.SERVICE_DIED, after.service, detail, data)


def _sickened(before: Glimpse, after: Glimpse, container: Container) -> Occurrence | None:
    was, is_now = before.health.get(container.id), after.health.get(container.id)
    if is_now is not Health.UNHEALTHY or was is Health.UNHEALTHY:
        return None
    data = {"container": container.id[:12]}
    return Occurrence(
        EventKind.SERVICE_UNHEALTHY, container.service, f"{container.service} is unhealthy", data
    )
