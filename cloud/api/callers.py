"""Who a key belongs to, remembered for a moment so that not every request asks the database."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

TRUSTED = timedelta(seconds=3)
"""How long a key revoked by another process may still be let in here."""
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Key:
    """A key that was found good."""

    id: str
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None


class Callers:
    """Keys found good within the last `TRUSTED`, by the hash of what was presented."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[Key, datetime]] = {}
        self._revocations = 0

    @property
    def revocations(self) -> int:
        """How many keys were revoked here; take it *before* the database is asked about a key."""
        return self._revocations

    def get(self, presented: str, now: datetime) -> Key | None:
        """Return the key *presented* if it was found good just now and has not expired since."""
        key, at = self._found.get(_hash(presented), (None, now))
        expired = key is not None and key.expires_at is not None and key.expires_at <= now
        return key if timedelta(0) <= now - at < TRUSTED and not expired else None

    def remember(self, presented: str, key: Key, now: datetime, *, since: int) -> None:
        """Remember *key*, unless one was revoked after *since* was read: it may have been this one."""
        if since != self._revocations:
            return
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[_hash(presented)] = (key, now)

    def revoked(self) -> None:
        """Forget every key; call it after the commit."""
        self._revocations += 1
        self._found.clear()


def _hash(presented: str) -> bytes:
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
