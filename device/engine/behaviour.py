"""How an image behaves on the memory engine: plain values, and pure functions of the time that passed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.desired import DockerCheck, ExecCheck, HealthCheck
from schemas.errors import ErrorCode
from schemas.reported import Health


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What an image's containers do; times are seconds. The default starts at once and is healthy at once.

    `lines` are printed at each start; `{visits}` in them becomes the number of
    starts that the container's first volume has seen. `crashes` limits how many
    starts end after `exits_after`; later ones stay up.
    """

    present: bool = False
    """Already on the device, so that it need not be pulled."""
    pull_takes: float = 0
    pull_fails: ErrorCode | None = None
    create_fails: ErrorCode | None = None
    start_takes: float = 0
    start_fails: ErrorCode | None = None
    stop_takes: float = 0
    """Longer than the grace: it is killed."""
    healthy_after: float | None = 0
    """None: never."""
    unhealthy_after: float | None = None
    exits_after: float | None = None
    exit_code: int = 0
    crashes: int | None = None
    lines: tuple[str, ...] = ()
    line_every: float | None = None
    http_status: int = 200
    """What an HTTP probe meets while the service is well."""
    cpu_share: float = 0.01
    memory_bytes: int = 8 * 2**20


DEFAULT = Behaviour()
BY_NAME: dict[str, Behaviour] = {
    "never-healthy": Behaviour(healthy_after=None),
    "slow-healthy": Behaviour(healthy_after=5),
    "turns-unhealthy": Behaviour(unhealthy_after=10),
    "crash-loop": Behaviour(exits_after=1, exit_code=1),
    "crashes-twice": Behaviour(exits_after=1, exit_code=1, crashes=2),
    "completes": Behaviour(exits_after=1, exit_code=0),
    "chatty": Behaviour(line_every=1),
    "slow-pull": Behaviour(pull_takes=10),
    "slow-start": Behaviour(start_takes=5),
    "slow-stop": Behaviour(stop_takes=60),
    "not-found": Behaviour(pull_fails=ErrorCode.IMAGE_NOT_FOUND),
    "wrong-platform": Behaviour(start_fails=ErrorCode.IMAGE_WRONG_PLATFORM),
}
"""Behaviours that the last word of an image's name asks for: `any/crash-loop:1`."""


def named_behaviour(image: str) -> Behaviour:
    """Return the behaviour that the name of *image* asks for."""
    word = image.rsplit("/", 1)[-1].split("@", 1)[0].split(":", 1)[0]
    return BY_NAME.get(word, DEFAULT)


@dataclass(frozen=True, slots=True)
class Run:
    """One start of one container; everything about it follows from the time."""

    behaviour: Behaviour
    check: HealthCheck | None
    started_at: datetime
    number: int
    """1 for the first start of the container."""

    def health(self, now: datetime) -> Health:
        """Return what the engine's own check says; `none` where the engine does not check."""
        if not isinstance(self.check, ExecCheck | DockerCheck):
            return Health.NONE
        if self.well(now):
            return Health.HEALTHY
        broke = self.behaviour.unhealthy_after
        if broke is not None and self._age(now) >= broke:
            return Health.UNHEALTHY
        patience = self.check.start_period + self.check.interval * self.check.retries
        return Health.UNHEALTHY if self._age(now) >= patience else Health.STARTING

    def well(self, now: datetime) -> bool:
        """Return whether the service inside would pass a check."""
        from_, until = self.behaviour.healthy_after, self.behaviour.unhealthy_after
        age = self._age(now)
        return from_ is not None and age >= from_ and (until is None or age < until)

    def ends_at(self) -> datetime | None:
        """Return when this run ends by itself, or None."""
        after, crashes = self.behaviour.exits_after, self.behaviour.crashes
        if after is None or (crashes is not None and self.number > crashes):
            return None
        return self.started_at + timedelta(seconds=after)

    def lines_printed(self, now: datetime) -> int:
        """Return how many of the regular lines have been printed by *now*."""
        every = self.behaviour.line_every
        return int(self._age(now) / every) if every else 0

    def next_change(self, now: datetime) -> float | None:
        """Return in how many seconds this run will look different, or None."""
        behaviour = self.behaviour
        moments = [behaviour.healthy_after, behaviour.unhealthy_after]
        if (ends_at := self.ends_at()) is not None:
            moments.append((ends_at - self.started_at).total_seconds())
        if behaviour.line_every:
            moments.append((self.lines_printed(now) + 1) * behaviour.line_every)
        if isinstance(self.check, ExecCheck | DockerCheck):
            moments.append(self.check.start_period + self.check.interval * self.check.retries)
        age = self._age(now)
        return min((moment - age for moment in moments if moment is not None and moment > age), default=None)

    def _age(self, now: datetime) -> float:
        return (now - self.started_at).total_seconds()
