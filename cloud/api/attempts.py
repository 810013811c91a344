"""How often an address may be refused before it has to wait."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from math import ceil

ALLOWED = 10
"""Refusals of one address within `WINDOW`."""
WINDOW = timedelta(minutes=1)
_REMEMBERED = 10_000
"""Addresses kept in memory; beyond it the one longest quiet is forgotten."""


class Attempts:
    """Refused attempts by address; an IPv6 network of 64 bits counts as one address."""

    def __init__(self) -> None:
        self._refused: OrderedDict[str, deque[datetime]] = OrderedDict()

    def seconds_to_wait(self, address: str, now: datetime) -> int:
        """Return how long *address* has to wait for its next attempt; 0: it may try."""
        refused = self._refused.get(_network(address), deque())
        recent = [moment for moment in refused if now - moment < WINDOW]
        if len(recent) < ALLOWED:
            return 0
        return max(1, ceil((recent[-ALLOWED] + WINDOW - now).total_seconds()))

    def note(self, address: str, now: datetime) -> None:
        """Remember that *address* was refused."""
        network = _network(address)
        self._refused.setdefault(network, deque(maxlen=ALLOWED)).append(now)
        self._refused.move_to_end(network)
        if len(self._refused) > _REMEMBERED:
            self._refused.popitem(last=False)


def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return address if not isinstance(parsed, IPv6Address) else parsed.exploded[:19]
