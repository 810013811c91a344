"""How long a failing service pauses before it is tried again: 1 s, 2 s, 4 s ... 60 s. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from device.engine.protocol import Container, ContainerState

STEADY = timedelta(minutes=5)
"""A run that lasted this long wipes out the failures before it."""
_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Pauses:
    """The pause after the first failure, doubled with each further one up to the longest."""

    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=60)

    def after(self, failures: int) -> timedelta:
        """Return how long to wait after so many failures in a row; nothing before the first."""
        if failures == 0:
            return timedelta(0)
        return min(self.longest, self.first * (1 << min(failures - 1, _DOUBLINGS)))


PAUSES = Pauses()


@dataclass(frozen=True, slots=True)
class Attempts:
    """The failures in a row of one service, when the last one was, and which run of a container it ended."""

    failures: int = 0
    failed_at: datetime | None = None
    run: str = ""
    pauses: Pauses = PAUSES

    def next_start(self, now: datetime) -> datetime | None:
        """Return when the service may be tried again, or None if it may be now.

        A failure that lies in the future shows that the clock was set back: it delays nothing.
        """
        if self.failed_at is None or self.failed_at > now:
            return None
        due = self.failed_at + self.pauses.after(self.failures)
        return due if due > now else None


FRESH = Attempts()


def run_of(container: Container) -> str:
    """Return what tells one run of a container from the next."""
    return f"{container.id}@{container.started_at}"


def after_run(attempts: Attempts, container: Container, now: datetime) -> Attempts:
    """Return *attempts* after *container* exited or became unhealthy; a run counts once."""
    exited = container.finished_at if container.state is ContainerState.EXITED else None
    ended = now if exited is None else min(exited, now)
    run = run_of(container)
    if attempts.run == run:
        known = attempts.failed_at or ended
        return attempts if exited is None else replace(attempts, failed_at=max(known, ended))
    steady = container.started_at is not None and ended - container.started_at >= STEADY
    return replace(attempts, failures=1 if steady else attempts.failures + 1, failed_at=ended, run=run)


def after_step(attempts: Attempts, now: datetime) -> Attempts:
    """Return *attempts* after a step of the service failed."""
    return replace(attempts, failures=attempts.failures + 1, failed_at=now)
