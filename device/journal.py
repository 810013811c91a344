"""What the agent must still know after a kill -9: what was accepted, what began, what came of it.

One SQLite file. It is written *before* the agent acts, so that after any crash
the next start knows what may have happened. A corrupt file is set aside and a
fresh one begins: the broker's retained desired state and configuration fill it
again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError

from device.database import Database, StorageFailed
from schemas.base import print_time, to_wire
from schemas.config import Config
from schemas.desired import Desired
from schemas.errors import ErrorCode, FailureClass, Problem, problem
from schemas.reported import Outcome, Phase

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS desired (
    slot TEXT PRIMARY KEY CHECK (slot IN ('newest', 'applied', 'committed')),
    generation INTEGER NOT NULL, document BLOB NOT NULL, accepted_at TEXT NOT NULL,
    phase TEXT NOT NULL, since TEXT NOT NULL, outcome TEXT, problems BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS config (
    slot INTEGER PRIMARY KEY CHECK (slot = 1), version INTEGER NOT NULL, document BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS holds (service TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (service TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS starts (
    service TEXT PRIMARY KEY, count INTEGER NOT NULL, last TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY, command BLOB NOT NULL, digest TEXT NOT NULL, received TEXT NOT NULL,
    deadline TEXT NOT NULL, status TEXT NOT NULL, before BLOB, answer BLOB, answered TEXT,
    response_topic TEXT, correlation BLOB, delivered INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commands_open ON commands (status, received);
CREATE INDEX IF NOT EXISTS commands_undelivered ON commands (delivered, answered);
"""
_PROBLEMS = TypeAdapter(tuple[Problem, ...])


@dataclass(frozen=True, slots=True)
class Trial:
    """How far the device is with the newest generation. `since` is when `phase` began.

    `switched_at` is when the device first turned to it; None while the one before is in effect.
    """

    generation: int
    phase: Phase
    outcome: Outcome | None
    problems: tuple[Problem, ...]
    since: datetime
    accepted_at: datetime
    switched_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Starts:
    """How often a service was started in this generation, and when last."""

    count: int = 0
    last: datetime | None = None


class Journal:
    """The agent's memory. Every method is one transaction; writes are on disk when they return.

    Every method may raise `device.database.StorageFailed`.
    """

    def __init__(self, database: Database, counters: Mapping[str, int]) -> None:
        """Use `open`."""
        self.database = database
        self._counters = dict(counters)

    @classmethod
    async def open(cls, path: Path, *, now: datetime) -> Self:
        """Return the journal at *path*, made where absent. Raises `StorageFailed`.

        Counters go on from *now* in milliseconds, or from what the journal holds if
        that is more: so sessions and revisions grow though the journal is lost, the
        clock is set back, or the disk was too full to keep them.
        """
        database = await Database.open(path, schema=_SCHEMA, check=_check, now=now)
        begin = max(0, int(now.timestamp() * 1000))
        known = await database.run(_counters)
        return cls(database, {name: max(begin, known.get(name, 0)) for name in ("session", "revision")})

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        await self.database.close()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the file when it was opened, for the report."""
        if self.database.set_aside is None:
            return ()
        message = (
            f"the journal was corrupt and was set aside as {self.database.set_aside.name}; a fresh one "
            "began. Check the disk; the file may be deleted"
        )
        return (problem(ErrorCode.INTERNAL, message, failure_class=FailureClass.DISK, retryable=False),)

    async def next_session(self) -> int:
        """Return the number of the connection about to be made."""
        return await self._next("session")

    async def next_revision(self) -> int:
        """Return the number of the report about to be made."""
        return await self._next("revision")

    async def _next(self, name: str) -> int:
        """Return the next number. A full disk must not silence the device: then it grows in memory alone."""
        self._counters[name] += 1
        number = self._counters[name]
        try:
            await self.database.run(lambda db: _keep_counter(db, name, number))
        except StorageFailed as error:
            log.warning("the %s number is not kept: %s", name, error)
        return number

    async def accept_desired(self, desired: Desired, now: datetime) -> bool:
        """Store *desired* and return True, or return False if its generation is not newer.

        A new generation begins in phase `idle`, forgets holds and counts starts anew.
        """
        return await self.database.run(lambda db: _accept_desired(db, desired, now))

    async def desired(self) -> Desired | None:
        """Return the newest accepted desired state."""
        return await self.database.run(lambda db: _document(db, "newest"))

    async def committed(self) -> Desired | None:
        """Return the desired state that was last committed."""
        return await self.database.run(lambda db: _document(db, "committed"))

    async def applied(self) -> Desired | None:
        """Return the desired state in effect: the one the device last began to switch to."""
        return await self.database.run(lambda db: _document(db, "applied"))

    async def committed_generation(self) -> int:
        """Return the generation that was last committed; 0 before the first."""
        return await self.database.run(lambda db: _generation(db, "committed"))

    async def trial(self) -> Trial | None:
        """Return how far the newest generation is; None before the first."""
        return await self.database.run(_trial)

    async def record_phase(self, generation: int, phase: Phase, now: datetime) -> None:
        """Note that *phase* begins; nothing happens if *generation* is no longer the newest, or is in it.

        With its first `switching` a generation comes into effect: `applied` returns it from then on.
        """
        await self.database.run(lambda db: _record_phase(db, generation, phase, now))

    async def record_outcome(
        self, generation: int, outcome: Outcome, problems: tuple[Problem, ...], now: datetime
    ) -> None:
        """Note how *generation* ended; its phase becomes `done`. `committed` and `no_change` commit it."""
        await self.database.run(lambda db: _record_outcome(db, generation, outcome, problems, now))

    async def accept_config(self, config: Config, now: datetime) -> bool:  # noqa: ARG002 - as accept_desired
        """Store *config* and return True, or return False if its version is not newer."""
        return await self.database.run(lambda db: _accept_config(db, config))

    async def config(self) -> Config:
        """Return the newest accepted configuration; the defaults before the first."""
        return await self.database.run(_config)

    async def hold(self, service: str) -> None:
        """Note that *service* is to stay stopped until `unhold` or a new generation."""
        await self.database.run(lambda db: db.execute("INSERT OR IGNORE INTO holds VALUES (?)", (service,)))

    async def unhold(self, service: str) -> None:
        """Note that *service* may run again, and is to be started if it was held."""
        await self.database.run(lambda db: _unhold(db, service))

    async def holds(self) -> frozenset[str]:
        """Return the services that are held stopped."""
        return await self.database.run(
            lambda db: frozenset(row[0] for row in db.execute("SELECT service FROM holds"))
        )

    async def ask(self, service: str) -> None:
        """Note that *service* is to be started even if it ended with 0, until `unask` or a new generation."""
        await self.database.run(lambda db: db.execute("INSERT OR IGNORE INTO asked VALUES (?)", (service,)))

    async def unask(self, service: str) -> None:
        """Note that *service* was started."""
        await self.database.run(lambda db: db.execute("DELETE FROM asked WHERE service = ?", (service,)))

    async def asked(self) -> frozenset[str]:
        """Return the services that are to be started even if they ended with 0."""
        return await self.database.run(
            lambda db: frozenset(row[0] for row in db.execute("SELECT service FROM asked"))
        )

    async def note_start(self, service: str, now: datetime) -> None:
        """Count one more start of *service* in this generation."""
        await self.database.run(
            lambda db: db.execute(
                "INSERT INTO starts VALUES (?, 1, ?) "
                "ON CONFLICT (service) DO UPDATE SET count = count + 1, last = excluded.last",
                (service, print_time(now)),
            )
        )

    async def starts(self, service: str) -> Starts:
        """Return how often *service* was started in this generation, and when last."""
        return (await self.every_start()).get(service, Starts())

    async def every_start(self) -> dict[str, Starts]:
        """Return the starts of every service started in this generation."""
        return await self.database.run(
            lambda db: {
                name: Starts(count, datetime.fromisoformat(last))
                for name, count, last in db.execute("SELECT service, count, last FROM starts")
            }
        )


def _counters(db: sqlite3.Connection) -> dict[str, int]:
    return {name: int(value) for name, value in db.execute("SELECT name, value FROM counters")}


def _keep_counter(db: sqlite3.Connection, name: str, number: int) -> None:
    db.execute(
        "INSERT INTO counters VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (name, number),
    )


def _generation(db: sqlite3.Connection, slot: str) -> int:
    row = db.execute("SELECT generation FROM desired WHERE slot = ?", (slot,)).fetchone()
    return 0 if row is None else int(row[0])


def _document(db: sqlite3.Connection, slot: str) -> Desired | None:
    row = db.execute("SELECT document FROM desired WHERE slot = ?", (slot,)).fetchone()
    return None if row is None else Desired.model_validate_json(row[0])


def _accept_desired(db: sqlite3.Connection, desired: Desired, now: datetime) -> bool:
    if desired.generation <= _generation(db, "newest"):
        return False
    at = print_time(now)
    db.execute(
        "INSERT OR REPLACE INTO desired VALUES ('newest', ?, ?, ?, ?, ?, NULL, ?)",
        (desired.generation, to_wire(desired), at, Phase.IDLE.value, at, b"[]"),
    )
    db.execute("DELETE FROM holds")
    db.execute("DELETE FROM asked")
    db.execute("DELETE FROM starts")
    return True


def _unhold(db: sqlite3.Connection, service: str) -> None:
    db.execute("INSERT OR IGNORE INTO asked SELECT service FROM holds WHERE service = ?", (service,))
    db.execute("DELETE FROM holds WHERE service = ?", (service,))


def _record_phase(db: sqlite3.Connection, generation: int, phase: Phase, now: datetime) -> None:
    changed = db.execute(
        "UPDATE desired SET phase = ?, since = ? WHERE slot = 'newest' AND generation = ? AND phase != ?",
        (phase.value, print_time(now), generation, phase.value),
    )
    if changed.rowcount and phase is Phase.SWITCHING and _generation(db, "applied") != generation:
        db.execute(
            "INSERT OR REPLACE INTO desired SELECT 'applied', generation, document, accepted_at, "
            "phase, since, outcome, problems FROM desired WHERE slot = 'newest'"
        )


def _record_outcome(
    db: sqlite3.Connection, generation: int, outcome: Outcome, problems: tuple[Problem, ...], now: datetime
) -> None:
    changed = db.execute(
        "UPDATE desired SET phase = ?, since = ?, outcome = ?, problems = ? "
        "WHERE slot = 'newest' AND generation = ?",
        (Phase.DONE.value, print_time(now), outcome.value, _PROBLEMS.dump_json(problems), generation),
    )
    if changed.rowcount and outcome in {Outcome.COMMITTED, Outcome.NO_CHANGE}:
        db.execute(
            "INSERT OR REPLACE INTO desired SELECT 'committed', generation, document, accepted_at, "
            "phase, since, outcome, problems FROM desired WHERE slot = 'newest'"
        )


def _trial(db: sqlite3.Connection) -> Trial | None:
    row = db.execute(
        "SELECT newest.generation, newest.phase, newest.outcome, newest.problems, newest.since, "
        "newest.accepted_at, applied.since FROM desired AS newest LEFT JOIN desired AS applied "
        "ON applied.slot = 'applied' AND applied.generation = newest.generation WHERE newest.slot = 'newest'"
    ).fetchone()
    if row is None:
        return None
    generation, phase, outcome, problems, since, accepted_at, switched_at = row
    return Trial(
        generation=generation,
        phase=Phase(phase),
        outcome=None if outcome is None else Outcome(outcome),
        problems=_PROBLEMS.validate_json(problems),
        since=datetime.fromisoformat(since),
        accepted_at=datetime.fromisoformat(accepted_at),
        switched_at=None if switched_at is None else datetime.fromisoformat(switched_at),
    )


def _accept_config(db: sqlite3.Connection, config: Config) -> bool:
    row = db.execute("SELECT version FROM config").fetchone()
    if config.version <= (0 if row is None else row[0]):
        return False
    db.execute("INSERT OR REPLACE INTO config VALUES (1, ?, ?)", (config.version, to_wire(config)))
    return True


def _config(db: sqlite3.Connection) -> Config:
    row = db.execute("SELECT document FROM config").fetchone()
    return Config() if row is None else Config.model_validate_json(row[0])


def _check(db: sqlite3.Connection) -> None:
    """Read every document once. Raises `ValueError` (pydantic's is one) where one does not fit."""
    try:
        _document(db, "newest")
        _document(db, "applied")
        _document(db, "committed")
        _config(db)
        _trial(db)
    except ValidationError as error:
        raise ValueError(f"a stored document does not fit: {error}") from error
