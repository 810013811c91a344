"""Desired state and configuration: stored first, then published retained, again whenever that may be lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from cloud.bus import Bus
from cloud.feed import Feed
from cloud.store import configs, deployments, devices, events
from cloud.store.database import Database
from cloud.store.tables import ConfigRow, DeploymentRow, DesiredRow
from schemas import topics
from schemas.base import to_wire
from schemas.config import Config
from schemas.desired import DeploymentConfig, Desired, Release, Target
from schemas.errors import ErrorCode, FleetError, refuse
from schemas.reading import MAX_PAYLOAD

log = logging.getLogger(__name__)

Row = TypeVar("Row", DesiredRow, ConfigRow)

UNHEARD_AFTER = timedelta(seconds=60)
"""How long an online device may be silent on an order before it is published again."""
MAX_RELEASE = MAX_PAYLOAD - 1024
"""Bytes of a release; the rest of a payload is for the order around it."""
AT_ONCE = 100
"""Orders published together; a request publishes as many at most, the sweep does the rest."""


class Deployer:
    """Gives orders to devices and keeps the broker's retained copies what they should be."""

    def __init__(self, database: Database, bus: Bus, feed: Feed, now: Callable[[], datetime]) -> None:
        self._database = database
        self._bus = bus
        self._feed = feed
        self._now = now
        self._publishing = asyncio.Lock()
        """Of two orders for one device the later must be published last: the broker keeps only one."""
        self._balked = False
        """Whether the broker did not take all of the last batch: requests do not wait for it then."""

    async def deploy(self, config: DeploymentConfig, *, by: str) -> tuple[DeploymentRow, dict[UUID, int]]:
        """Order a release; return the deployment and the generation each device got.

        What the broker does not take now, and what is more than `AT_ONCE`, is published by a later
        sweep. Raises FleetError
        `payload.too_large`, `device.unknown`, `target.empty`, `release.unknown`, `release.changed` or
        `selector.syntax`.
        """
        _check_size(config)
        now = self._now()
        async with self._database.session() as session:
            targets = await devices.resolve_target(session, config.target)
            row, generations = await deployments.create(session, config, targets, by, now)
            told = {"deployment": str(row.id), "release": str(row.release_id), "devices": len(generations)}
            await events.append(session, events.Kind.DEPLOYMENT, None, {"what": "ordered", **told}, now)
        self._feed.notify()
        await self._publish_now(self._publish_desired)
        return row, generations

    async def update_config(
        self, target: Target, *, agent: Mapping[str, Any], services: Mapping[str, Any], by: str
    ) -> dict[UUID, int]:
        """Change the configuration of the target's devices by merge patches; return each one's new version.

        Raises what `resolve_target` and `cloud.store.configs.change` raise.
        """
        now = self._now()
        async with self._database.session() as session:
            targets = await devices.resolve_target(session, target)
            versions = await configs.change(session, targets, agent=agent, services=services, by=by, now=now)
            told = {"what": "ordered", "devices": len(versions)}
            await events.append(session, events.Kind.CONFIG, None, told, now)
        self._feed.notify()
        await self._publish_now(self._publish_configs)
        return versions

    async def sweep(self) -> None:
        """Publish what the broker lacks, batch by batch; a request's batch may come between two."""
        for publish in (self._publish_desired, self._publish_configs):
            more = True
            while more:
                async with self._publishing:
                    more = await publish()

    async def republish_unheard(self) -> None:
        """Have the next sweep publish what an online device seems never to have got."""
        now = self._now()
        async with self._database.session() as session:
            await deployments.publish_unheard(session, now, patience=UNHEARD_AFTER)
            await configs.publish_unheard(session, now, patience=UNHEARD_AFTER)

    async def republish_all(self) -> None:
        """Have the next sweep publish everything that counts: the broker lost what it kept."""
        async with self._database.session() as session:
            await deployments.publish_again(session)
            await configs.publish_again(session)

    async def _publish_now(self, publish: Callable[[], Awaitable[bool]]) -> None:
        """Publish one batch for an order that is stored, so that no failure of this is one of the order."""
        async with self._publishing:
            if self._balked:
                return
            try:
                await publish()
            except FleetError as error:
                log.warning("an order is to be published later: %s", error)

    async def _publish_desired(self) -> bool:
        """Publish one batch; return whether to go on with the next."""
        if not self._bus.connected:
            return False
        async with self._database.session() as session:
            rows = await deployments.unpublished(session, AT_ONCE)
            documents = await deployments.desired_of(session, rows)
        taken = await self._taken(rows, [topics.Desired(row.device) for row in rows], documents)
        if taken:
            async with self._database.session() as session:
                await deployments.published(session, taken, self._now())
        return len(rows) == AT_ONCE and bool(taken)

    async def _publish_configs(self) -> bool:
        """Publish one batch; return whether to go on with the next."""
        if not self._bus.connected:
            return False
        async with self._database.session() as session:
            rows = await configs.unpublished(session, AT_ONCE)
        documents = [configs.config_of(row) for row in rows]
        taken = await self._taken(rows, [topics.Config(row.device) for row in rows], documents)
        if taken:
            async with self._database.session() as session:
                await configs.published(session, taken, self._now())
        return len(rows) == AT_ONCE and bool(taken)

    async def _taken(
        self,
        rows: Sequence[Row],
        where: Sequence[topics.Desired | topics.Config],
        documents: Sequence[Desired | Config],
    ) -> list[Row]:
        """Publish *documents* together, each of another device; return the rows the broker took."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._published(topic, document))
                for topic, document in zip(where, documents, strict=True)
            ]
        taken = [row for row, task in zip(rows, tasks, strict=True) if task.result()]
        self._balked = len(taken) < len(rows)
        return taken

    async def _published(self, topic: topics.Desired | topics.Config, document: Desired | Config) -> bool:
        try:
            await self._bus.publish(topic, to_wire(document))
        except FleetError as error:
            log.warning("%s is to be published later: %s", topic, error)
            return False
        return True


def _check_size(config: DeploymentConfig) -> None:
    if isinstance(config.release, Release) and (size := len(to_wire(config.release))) > MAX_RELEASE:
        message = f"the release takes {size} bytes as JSON; a device can be sent {MAX_RELEASE}"
        refuse(ErrorCode.PAYLOAD_TOO_LARGE, message, field="release")
