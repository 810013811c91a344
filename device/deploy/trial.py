"""Whether a new generation is good: well without a break for the soak, within its patience. Pure."""

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


def deadline(*, began: datetime, resumed_at: datetime, patience: timedelta, now: datetime) -> datetime:
    """Return until when something that *began* may take, watched without a break since *resumed_at*.

    A time in the future shows that the clock was set back; it then counts as now.
    """
    began, resumed_at = min(began, now), min(resumed_at, now)
    if resumed_at <= began:
        return began + patience
    return max(began + patience, resumed_at + min(patience, SECOND_CHANCE))


def looked(watch: Watch, *, well: frozenset[str] | None, now: datetime) -> Watch:
    """Return *watch* after a look; *well*: the runs of its containers, None unless every service is well."""
    if well is None:
        return replace(watch, well_since=None)
    unbroken = watch.well_since is not None and watch.runs == well and watch.well_since <= now
    return watch if unbroken else replace(watch, well_since=now, runs=well)


def judge(watch: Watch, now: datetime) -> Verdict:
    """Say whether to keep the candidate, go on watching it, or say that it failed.

    It passes once every service has been well for the soak without a break,
    and fails if it has not managed that by the deadline.
    """
    if watch.well_since is not None and now - watch.well_since >= watch.soak:
        return Verdict.COMMIT
    return Verdict.WAIT if now < watch.deadline else Verdict.GIVE_UP
