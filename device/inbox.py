"""What has arrived and was not looked at yet: bounded, and never in the way of the link's reader.

Desired state, configuration and watermarks are whole states, so the newest of
a topic replaces the one that waits. Commands wait in order, `MOST_COMMANDS` of
them; more are dropped and counted, and whoever wants an answer sends again
with the same id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

MOST_COMMANDS = 256
MOST_STATES = 64
"""Topics that may hold a waiting state; the grammar knows three and some streams."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message as it came: nothing in it has been checked."""

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


class Inbox:
    """Where the link puts messages and the agent takes them: states before commands."""

    def __init__(self) -> None:
        self._states: dict[str, Arrival] = {}
        self._commands: deque[Arrival] = deque()
        self._filled = asyncio.Event()
        self.dropped = 0

    def put(self, arrival: Arrival) -> None:
        """Take *arrival* in, at once; see the module for what gives way when there is no room."""
        if "/down/command/" in arrival.topic:
            full = len(self._commands) >= MOST_COMMANDS
        else:
            full = arrival.topic not in self._states and len(self._states) >= MOST_STATES
        if full:
            self.dropped += 1
            return
        if "/down/command/" in arrival.topic:
            self._commands.append(arrival)
        else:
            self._states[arrival.topic] = arrival
        self._filled.set()

    def put_back(self, arrival: Arrival) -> None:
        """Let a state wait again that could not be dealt with, unless a newer one waits already."""
        self._states.setdefault(arrival.topic, arrival)
        self._filled.set()

    async def take(self) -> Arrival:
        """Wait for a message and return it."""
        while not self._states and not self._commands:
            self._filled.clear()
            await self._filled.wait()
        if self._states:
            return self._states.pop(next(iter(self._states)))
        return self._commands.popleft()
