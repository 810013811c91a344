"""Samples on their way: taken at an interval, spooled, sent, and sent again until the cloud has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from device.database import StorageFailed
from device.link import LinkDown, Outbound
from device.telemetry.batching import batches, payload
from device.telemetry.spool import Batch, Spool
from schemas import topics
from schemas.errors import FleetError
from schemas.telemetry import Sample, Watermark

log = logging.getLogger(__name__)

STREAM: Final = "main"
WINDOW: Final = 200
"""Batches that may be on their way without a watermark: far fewer than a broker queues for a slow reader."""
PATIENCE: Final = 30.0
"""Seconds without a watermark after which everything on its way is sent again; doubles each time."""
MOST_PATIENCE: Final = 480.0
_AT_ONCE: Final = 20
_FIRST_ROUND: Final = 1.0
_BREATH: Final = 0.2


class Rounds(Protocol):
    """What takes samples."""

    async def prepare(self) -> None:
        """Take the readings that the first round's shares are counted from."""

    async def take(self) -> list[Sample]:
        """Return one round of samples. Raises `StorageFailed`."""


class Telemetry:
    """Takes samples and sees them to the cloud. `run` does it; the other methods only tell it something."""

    def __init__(
        self,
        device: UUID,
        *,
        spool: Spool,
        link: Outbound,
        rounds: Rounds,
        interval: Callable[[], Awaitable[float]],
        now: Callable[[], datetime],
        patience: float = PATIENCE,
    ) -> None:
        """*interval* returns the seconds between rounds as they are configured now."""
        self._topic = topics.Telemetry(device, STREAM)
        self._spool = spool
        self._link = link
        self._rounds = rounds
        self._interval = interval
        self._now = now
        self._patience = patience
        self._sent = 0
        self._waits = patience
        self._waits_since: float | None = None
        self._news = asyncio.Event()
        self._reset = asyncio.Event()

    def config_changed(self) -> None:
        """Let a new interval count from the last round on."""
        self._reset.set()

    async def on_watermark(self, stream: str, watermark: Watermark) -> None:
        """Forget what the cloud has stored."""
        try:
            forgotten = stream == STREAM and await self._spool.acknowledge(watermark)
        except StorageFailed as error:
            log.warning("a watermark was not noted; it will come again: %s", error)
            return
        if forgotten:
            self._waits, self._waits_since = self._patience, None
            self._news.set()

    async def run(self) -> None:
        """Take and send until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(), name="telemetry readings")
            group.create_task(self._send(), name="telemetry sending")
            group.create_task(self._watch_sessions(), name="telemetry sessions")

    async def _take(self) -> None:
        """Spool a round of samples at each interval; a round that is late is not made up for."""
        clock = asyncio.get_running_loop().time
        await self._rounds.prepare()
        interval = await self._interval()
        last = clock() - interval + min(interval, _FIRST_ROUND)
        while True:
            self._reset.clear()
            try:
                async with asyncio.timeout_at(last + await self._interval()):
                    await self._reset.wait()
            except TimeoutError:
                last = clock()
                await self._spool_round()

    async def _spool_round(self) -> None:
        try:
            await self._spool.append(batches(await self._rounds.take()))
        except StorageFailed as error:
            log.warning("samples are lost: %s", error)
        else:
            self._news.set()

    async def _watch_sessions(self) -> None:
        """At each new connection begin again with the oldest batch."""
        session = -1
        while True:
            session = await self._link.reconnected(session)
            self._sent, self._waits, self._waits_since = 0, self._patience, None
            self._news.set()

    async def _send(self) -> None:
        while True:
            await self._link.connected()
            self._news.clear()
            try:
                await self._send_pending()
                await self._await_news()
            except LinkDown:
                await asyncio.sleep(_BREATH)
            except FleetError as error:
                log.warning("telemetry waits: %s", error)
                await asyncio.sleep(self._patience)

    async def _send_pending(self) -> None:
        """Send what is in the window and was not sent since it was last begun with the oldest."""
        while found := await self._spool.pending(after=self._sent, window=WINDOW, limit=_AT_ONCE):
            level = await self._spool.level()
            for batch in found:
                await self._publish(batch, level.oldest or batch.seq)

    async def _publish(self, batch: Batch, oldest: int) -> None:
        raw = payload(
            self._spool.boot, batch.seq, batch.samples, oldest=min(oldest, batch.seq), sent_at=self._now()
        )
        before = self._sent
        await self._link.publish(self._topic, raw)
        if self._sent == before:  # else a new session has begun meanwhile
            self._sent = batch.seq

    async def _await_news(self) -> None:
        """Return when there may be more to send, or when a watermark is overdue and all has to go again."""
        clock = asyncio.get_running_loop().time
        if not (await self._spool.level()).batches:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = clock()
        try:
            async with asyncio.timeout_at(self._waits_since and self._waits_since + self._waits):
                await self._news.wait()
        except TimeoutError:
            self._sent, self._waits_since = 0, None
            self._waits = min(2 * self._waits, MOST_PATIENCE)
