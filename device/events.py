"""What happened on the device, on its way up: sent in order, kept while there is no connection, bounded."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from device.link import LinkDown, Outbound
from schemas import topics
from schemas.base import to_wire
from schemas.errors import FleetError
from schemas.reported import DeviceEvent, EventKind

log = logging.getLogger(__name__)

MOST = 500
"""Events kept without a connection; the oldest give way and are counted."""
_BREATH = 0.2
"""Seconds before another try: a broken connection is known to a publish before the link has noticed."""


class Events:
    """Publishes `up/event/{kind}`. What was not sent when the agent ends is lost: reports tell the state."""

    def __init__(self, device: UUID, *, link: Outbound, now: Callable[[], datetime]) -> None:
        self._device = device
        self._link = link
        self._now = now
        self._waiting: deque[tuple[EventKind, DeviceEvent]] = deque(maxlen=MOST)
        self._filled = asyncio.Event()
        self.dropped = 0

    def tell(self, kind: EventKind, service: str | None, detail: str, data: dict[str, Any]) -> None:
        """Tell that something happened; returns at once."""
        self.dropped += len(self._waiting) == MOST
        event = DeviceEvent(at=self._now(), service=service, detail=detail[:2000], data=data)
        self._waiting.append((kind, event))
        self._filled.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            await self._link.connected()
            kind, event = self._waiting.popleft()
            try:
                await self._link.publish(topics.Event(self._device, kind.value), to_wire(event))
            except LinkDown:
                if len(self._waiting) < MOST:
                    self._waiting.appendleft((kind, event))
                await asyncio.sleep(_BREATH)
            except FleetError as error:
                log.warning("an event was not sent: %s", error)
