"""Whether a new generation is good: healthy without a break for the soak, within its patience. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum, auto

SOAK = timedelta(seconds=2)
PATIENCE = timedelta(seconds=300)
SECOND_CHANCE = timedelta(seconds=60)
"""What is left at least after the agent or the engine was away: time off does not speak against a release."""


class Verdict(StrEnum):
    """What to do about a trial."""

    WAIT = auto()
    COMMIT = auto()
    GIVE_UP = auto()


@dataclass(frozen=True, slots=True)
class Watch:
    """A trial under observation.

    `runs` are the runs of its containers: a restart between two observations
    breaks the soak although every service is well at both.
    """

    deadline: datetime
    soak: timedelta
    well_since: datetime | None = None
    runs: frozenset[str] = frozenset()


def watch(*, switched_at: datetime, resumed_at: datetime, soak: timedelta, patience: timedelta) -> Watch:
    """Return the watch over a trial whose switch began at *switched_at* and is seen from *resumed_at* on.

    A switch that lies in the future shows that the clock was set back; it then counts from now.
    """
    began = min(switched_at, resumed_at)
    least = min(patience, SECOND_CHANCE) if resumed_at > began else patience
    return Watch(deadline=max(began + patience, resumed_at + least), soak=soak)


def looked(watch: Watch, *, ill: frozenset[str], runs: frozenset[str], now: datetime) -> Watch:
    """Return *watch* after a look at every service: *ill* are those that are not well."""
    if ill:
        return replace(watch, well_since=None, runs=runs)
    unbroken = watch.well_since is not None and watch.runs == runs and watch.well_since <= now
    return watch if unbroken else replace(watch, well_since=now, runs=runs)


def judge(watch: Watch, now: datetime) -> Verdict:
    """Say whether to keep the candidate, go on watching it, or say that it failed.

    It passes once every service has been well for the soak without a break,
    and fails if it has not managed that by the deadline.
    """
    if watch.well_since is not None and now - watch.well_since >= watch.soak:
        return Verdict.COMMIT
    return Verdict.WAIT if now < watch.deadline else Verdict.GIVE_UP
