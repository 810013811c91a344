"""Who acts on a service: the loop or a command, never both at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager


class Hands:
    """Keeps the loop and commands apart, service by service; calls *on_free* whenever one is let go."""

    def __init__(self, on_free: Callable[[], None]) -> None:
        self._on_free = on_free
        self._taken: set[str] = set()
        self._reserved: Counter[str] = Counter()
        self._grips: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}
        self._let_go = asyncio.Condition()

    @property
    def taken(self) -> frozenset[str]:
        """The services on which the loop has a step in hand."""
        return frozenset(self._taken)

    @property
    def reserved(self) -> frozenset[str]:
        """The services that a command has, or waits for: the loop begins nothing new on them."""
        return frozenset(self._reserved)

    def grips(self) -> Mapping[str, int]:
        """Return how often each service was taken or let go: equal counts mean that nobody acted between.

        The counts of services that nobody has begin anew; earlier answers are void.
        """
        held = self._taken | self._reserved.keys()
        self._grips = Counter({name: count for name, count in self._grips.items() if name in held})
        return dict(self._grips)

    def free_since(self, service: str, grips: Mapping[str, int]) -> bool:
        """Return whether nobody has *service* now, nor had it since *grips* were counted."""
        held = service in self._taken or service in self._reserved
        return not held and self._grips[service] == grips.get(service, 0)

    def take(self, service: str) -> None:
        """Note that the loop begins a step on *service*, which must be free."""
        if service in self._taken or service in self._reserved:
            raise RuntimeError(f"{service} is in other hands")
        self._taken.add(service)
        self._grips[service] += 1

    async def let_go(self, service: str) -> None:
        """Note that the loop's step on *service* is over."""
        self._taken.discard(service)
        self._grips[service] += 1
        self._on_free()
        async with self._let_go:
            self._let_go.notify_all()

    @asynccontextmanager
    async def reserve(self, service: str) -> AsyncIterator[None]:
        """Hold *service* for a command: enters once the loop's step and earlier commands on it are over."""
        self._reserved[service] += 1
        self._grips[service] += 1
        try:
            async with self._locks.setdefault(service, asyncio.Lock()):
                async with self._let_go:
                    await self._let_go.wait_for(lambda: service not in self._taken)
                yield
        finally:
            self._reserved[service] -= 1
            self._grips[service] += 1
            if not self._reserved[service]:
                del self._reserved[service], self._locks[service]
            self._on_free()
