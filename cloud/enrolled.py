"""Which devices may be heard, without asking the database for each message."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from cloud.store import devices
from cloud.store.database import Session

_REMEMBERED = 200_000


class Enrolled:
    """Remembers who is enrolled. Who is not is asked for each time: a device may be enrolled any moment.

    Nothing is ever un-enrolled; a device deleted by hand fails at its row's key instead.
    """

    def __init__(self) -> None:
        self._known: set[UUID] = set()

    async def among(self, session: Session, asked: Collection[UUID]) -> set[UUID]:
        """Return those of *asked* that are enrolled."""
        if unknown := set(asked) - self._known:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
                unknown = set(asked)
            self._known |= await devices.enrolled(session, unknown)
        return self._known.intersection(asked)

    async def require(self, session: Session, device: UUID) -> None:
        """Return if *device* is enrolled. Raises FleetError `device.unknown`."""
        if device not in await self.among(session, [device]):
            await devices.require(session, device)
