"""What is done again and again, so that nothing depends on having been done once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import NoReturn

from cloud.bus import Bus
from cloud.commands import Commander
from cloud.deployments import Deployer
from cloud.metrics.protocol import Metrics
from cloud.store import commands, dead_letters, events
from cloud.store.database import Database
from schemas.errors import FleetError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing to do about every *every* seconds. Doing it twice, or at two places, does no harm."""

    name: str
    every: float
    do: Callable[[], Awaitable[object]]


def chores(
    *,
    database: Database,
    metrics: Metrics,
    bus: Bus,
    commander: Commander,
    deployer: Deployer,
    now: Callable[[], datetime],
) -> Sequence[Chore]:
    """Return everything the cloud does without being asked."""
    return (
        Chore("send commands again", 1, commander.sweep),
        Chore("publish orders", 2, Restorer(bus, deployer).sweep),
        Chore("look for unheard orders", 15, deployer.republish_unheard),
        Chore("forget old rows", 600, lambda: _prune(database, now())),
        Chore("forget old samples", 3600, lambda: metrics.prune(now())),
    )


async def keep_doing(chore: Chore, random: Random) -> NoReturn:
    """Do *chore* for ever; a database or broker that is away only delays it.

    A fault of ours in one chore costs this round of it, not the cloud: the next round begins anew.
    """
    while True:
        await asyncio.sleep(chore.every * random.uniform(0.8, 1.2))
        try:
            await chore.do()
        except FleetError as error:
            log.warning("%s: %s", chore.name, error)
        except Exception:
            log.exception("%s met a fault of ours; it is done again", chore.name)


class Restorer:
    """Publishes orders: all of them at the start and whenever the broker met the cloud as a stranger.

    At the start, because the process before may have died between meeting a broker that lost everything
    and publishing; the broker, which knows us again by then, would not tell.
    """

    def __init__(self, bus: Bus, deployer: Deployer) -> None:
        self._bus = bus
        self._deployer = deployer
        self._restored: int | None = None

    async def sweep(self) -> None:
        """Publish what the broker lacks."""
        forgotten = self._bus.forgotten
        if self._bus.connected and forgotten != self._restored:
            await self._deployer.republish_all()
            self._restored = forgotten
        await self._deployer.sweep()


async def _prune(database: Database, now: datetime) -> None:
    async with database.session() as session:
        await events.prune(session, now)
        for device, dropped in (await events.curb(session)).items():
            log.warning(
                "device %s tells more than is kept: its %d oldest events are dropped", device, dropped
            )
        await dead_letters.prune(session, now)
        await commands.prune(session, now)
