"""What a service's health check says, from the answers of its probes. Pure: times come in, a value goes out.

`http` and `tcp` checks are carried out by the agent and followed by a
`Tracker`; `exec` and `docker` checks are the engine's, which reports their
result with the container.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from device.deploy.attempts import run_of
from device.engine.protocol import Container, ProbeAnswer
from schemas.desired import DockerCheck, ExecCheck, HealthCheck, HttpCheck, TcpCheck
from schemas.reported import Health

FASTEST = timedelta(milliseconds=100)
"""While a service starts it is asked more often than `interval`, so that what waits for it starts soon."""

ProbedCheck: TypeAlias = HttpCheck | TcpCheck


@dataclass(frozen=True, slots=True)
class Tracker:
    """One run of one container, as its probes found it. A new run begins a new tracker.

    `counted_at` is when a failure last counted, or when they begin to count.
    """

    run: str
    health: Health
    failures: int
    started_at: datetime
    counted_at: datetime
    due: datetime
    reason: str = ""

    def is_due(self, check: ProbedCheck, now: datetime) -> bool:
        """Return whether to probe now; also if the clock was set back and the due time is absurdly far."""
        return now >= self.due or self.due - now > _interval(check)


def begin(container: Container, check: ProbedCheck, now: datetime) -> Tracker:
    """Return the tracker of a container that has just been seen running: probe it at once."""
    started = min(container.started_at or now, now)
    return Tracker(
        run=run_of(container),
        health=Health.STARTING,
        failures=0,
        started_at=started,
        counted_at=started + timedelta(seconds=check.start_period),
        due=now,
    )


def answered(tracker: Tracker, check: ProbedCheck, answer: ProbeAnswer, now: datetime) -> Tracker:
    """Return *tracker* after a probe.

    One pass means healthy. `retries` failures in a row mean unhealthy; while the
    service is starting, failures count once per `interval` and not within
    `start_period`, however often it is asked.
    """
    if answer.passed:
        return replace(
            tracker, health=Health.HEALTHY, failures=0, due=now + _interval(check), reason=answer.reason
        )
    if tracker.health is not Health.STARTING:
        failures = tracker.failures + 1
        health = Health.UNHEALTHY if failures >= check.retries else tracker.health
        return replace(
            tracker, health=health, failures=failures, due=now + _interval(check), reason=answer.reason
        )
    since = min(
        tracker.counted_at, now + timedelta(seconds=check.start_period)
    )  # later: the clock was set back
    counts = now >= since + _interval(check)
    failures = tracker.failures + counts
    gave_up = failures >= check.retries
    return replace(
        tracker,
        health=Health.UNHEALTHY if gave_up else Health.STARTING,
        failures=failures,
        counted_at=now if counts else since,
        due=now + (_interval(check) if gave_up else _starting_pause(tracker, check, now)),
        reason=answer.reason,
    )


def health_of(container: Container, check: HealthCheck | None, tracker: Tracker | None) -> Health:
    """Return the health of a running container, whoever checks it."""
    match check:
        case None:
            return Health.NONE
        case ExecCheck() | DockerCheck():
            return container.health
        case HttpCheck() | TcpCheck():
            known = tracker is not None and tracker.run == run_of(container)
            return tracker.health if tracker is not None and known else Health.STARTING
        case _:
            assert_never(check)


def _interval(check: ProbedCheck) -> timedelta:
    return timedelta(seconds=check.interval)


def _starting_pause(tracker: Tracker, check: ProbedCheck, now: datetime) -> timedelta:
    return min(_interval(check), max(FASTEST, (now - tracker.started_at) / 4))
