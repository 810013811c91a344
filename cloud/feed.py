"""Wakes those who wait for a change, inside one process.

A wake-up carries nothing: whoever is woken reads the database again. Changes
made by another process are not seen here, so every wait is short and followed
by another look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Ended:
    """A command or deployment came to its end."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Told:
    """The diary tells something new of *device*; None: of any device, or of none."""

    device: UUID | None = None


News: TypeAlias = Ended | Told
"""What may be waited for."""


class Watch:
    """One waiter's place; what happens between two waits is not missed."""

    def __init__(self) -> None:
        self._happened = asyncio.Event()

    def wake(self) -> None:
        """End the wait, or the next one."""
        self._happened.set()

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - both ends are fine
        """Return once woken since the last wait, or after *timeout* seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._happened.wait()
        self._happened.clear()


class Feed:
    """Tells what was committed to those who watch for it, and everybody that the server stops."""

    def __init__(self) -> None:
        self._watches: dict[News, set[Watch]] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the server stops: end every wait and stream."""
        return self._closed

    @contextmanager
    def watch(self, news: News) -> Iterator[Watch]:
        """Give a place to wait for *news*; take it *before* the look that precedes the first wait."""
        watch = Watch()
        self._watches.setdefault(news, set()).add(watch)
        if self._closed:
            watch.wake()
        try:
            yield watch
        finally:
            others = self._watches[news]
            others.discard(watch)
            if not others:
                del self._watches[news]

    def notify(self, *news: News) -> None:
        """Wake those who watch for any of *news*, or everyone if there is none; call it after the commit."""
        for each in news or tuple(self._watches):
            for watch in self._watches.get(each, ()):
                watch.wake()

    def close(self) -> None:
        """Wake everyone for the last time; later waits return at once."""
        self._closed = True
        self.notify()
