"""Whether every reading a device ever took is in the database: its spool's word against the cloud's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.servers.stack import Stack, until


@dataclass(frozen=True, slots=True)
class Spooled:
    """A device's spool: number of its last batch, how many are not confirmed yet, how many were dropped."""

    last: int
    waiting: int
    dropped: int


def spooled(stack: Stack, device: str) -> Spooled:
    """Read the spool file of *device* beside its agent."""
    path = Path(stack.endpoints["devices"][device]) / "spool.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        last, dropped = db.execute("SELECT last, dropped FROM spool").fetchone()
        (waiting,) = db.execute("SELECT count(*) FROM batch").fetchone()
    return Spooled(last, waiting, dropped)


def readings(stack: Stack, device: str) -> list[str]:
    """Return when each reading of the machine was taken, as the cloud has it."""
    answer = stack.get(
        "/edge/monitoring/metrics",
        params={"device": device, "measurement": "device", "field": "load_1m", "start": "-1h", "end": "now"},
    )
    return [at for each in answer["series"] for at, _ in each["points"]]


def await_all_stored(stack: Stack, device: str, *, patience: float = 60) -> int:
    """Wait until nothing waits in the spool; return how many batches the device ever made.

    Every batch is one reading of the machine, so the database must hold as many readings, each at a time of
    its own, and none may have been dropped.
    """

    def look() -> tuple[Spooled, list[str]] | None:
        before = spooled(stack, device)
        found = readings(stack, device)
        return (before, found) if before.waiting == 0 and spooled(stack, device) == before else None

    level, found = until(look, f"the spool of {device} to be empty", patience=patience)
    assert level.dropped == 0
    assert len(set(found)) == len(found) == level.last
    return level.last
