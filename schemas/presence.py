"""Whether a device is connected, by its own word or by its last will."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schemas.base import Counter, Id, Message, UtcDatetime


class Online(StrEnum):
    """The two words of presence."""

    ONLINE = "online"
    OFFLINE = "offline"


class Presence(Message):
    """`up/presence`. The will carries the session it was given with: an older session's will is no news."""

    status: Online
    session: Annotated[Counter, Field(description="Grows with every connection of this device.")]
    boot: Annotated[Id, Field(description="Made at each start of the agent.")]
    agent_version: Annotated[str, Field(max_length=100)] = ""
    at: UtcDatetime

    def is_news(self, earlier: Presence | None) -> bool:
        """Return whether this word replaces *earlier*: a newer session, or another word on the same one."""
        if earlier is None or self.session > earlier.session:
            return True
        ends = earlier.status is Online.ONLINE and self.status is Online.OFFLINE
        return self.session == earlier.session and ends
