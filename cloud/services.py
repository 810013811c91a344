"""What the REST door needs of the rest of the cloud, wired once in `cloud.app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cloud.commands import Commander
from cloud.deployments import Deployer
from cloud.feed import Feed
from cloud.metrics.protocol import Metrics
from cloud.pki.authority import Authority
from cloud.settings import Settings
from cloud.store.database import Database


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a request may use.

    `bus_connected` says whether the cloud's own broker link is up, `broker_uptime` how long the broker has
    been running (None: not known).
    """

    database: Database
    metrics: Metrics
    commander: Commander
    deployer: Deployer
    feed: Feed
    authority: Authority
    settings: Settings
    bus_connected: Callable[[], bool]
    broker_uptime: Callable[[], timedelta | None]
    now: Callable[[], datetime]
