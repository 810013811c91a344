"""Wakes those who wait for a change, inside one process.

A wake-up carries nothing: whoever is woken reads the database again. Changes
made by another process are not seen here, so every wait is short and followed
by another look.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Feed:
    """A broadcast of "something was committed", and of "the server stops"."""

    def __init__(self) -> None:
        self._version = 0
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def version(self) -> int:
        """How often something was committed; take it *before* the look that precedes a wait."""
        return self._version

    @property
    def closed(self) -> bool:
        """Whether the server stops: end every wait and stream."""
        return self._closed

    def notify(self) -> None:
        """Wake everyone who waits; call it after the commit."""
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close(self) -> None:
        """Wake everyone for the last time; later waits return at once."""
        self._closed = True
        self.notify()

    async def wait(self, timeout: float, *, since: int | None = None) -> None:  # noqa: ASYNC109 - both ends are fine
        """Return after the next `notify`, or after *timeout* seconds.

        Returns at once if something was committed after version *since* was read.
        """
        if self._closed or (since is not None and since != self._version):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
