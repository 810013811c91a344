"""What `fleet-agent` does around the agent: enrol first, one at a time, show, remove."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

from device import VERSION, agent
from device.agent_log import Recent
from device.backoff import pause
from device.commands.ledger import Ledger
from device.identity import Claim, Identity, NotEnrolled, enrol, load
from device.journal import Journal
from device.settings import EngineKind, Settings
from schemas.base import jsonable, print_time
from schemas.errors import ErrorCode, FailureClass, FleetError, problem

log = logging.getLogger(__name__)


class AlreadyRuns(FleetError):  # noqa: N818 - says what is the case
    """Another agent works with the same files."""


async def run_agent(settings: Settings, recent: Recent, stop: asyncio.Event) -> None:
    """Enrol where needed, then be the agent until *stop* is set. Raises `FleetError`."""
    identity = await wait_for_identity(settings, stop)
    if identity is None:
        return
    await asyncio.to_thread(_remember_engine, settings.data_dir, settings.engine)
    await agent.run(settings, identity, recent_log=recent.lines, stop=stop)


async def wait_for_identity(settings: Settings, stop: asyncio.Event) -> Identity | None:
    """Return the device's identity, enrolling until the cloud answers; None if *stop* came first.

    Raises `NotEnrolled` where trying again cannot help.
    """
    if (present := await asyncio.to_thread(load, settings.data_dir)) is not None:
        return present
    claim = await asyncio.to_thread(_claim, settings)
    rng, attempt = SystemRandom(), 0
    while not stop.is_set():
        try:
            identity = await enrol(settings.data_dir, claim)
        except NotEnrolled as error:
            if not error.problem.retryable:
                raise
            log.warning("not enrolled yet: %s", error)
        else:
            log.info("enrolled as device %s", identity.device)
            return identity
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause(attempt, rng.random()).total_seconds()):
                await stop.wait()
        attempt += 1
    return None


def _claim(settings: Settings) -> Claim:
    token = settings.enrolment_token()
    if settings.enrol_url is None or not token:
        text = (
            f"{settings.data_dir} holds no identity; give --enrol-url and --token or --token-file, "
            "which `fleet tokens create` prints"
        )
        raise NotEnrolled(problem(ErrorCode.CLAIM_UNKNOWN, text))
    return Claim(settings.enrol_url, token, settings.name, settings.labels, settings.ca_file)


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Keep other agents away from *data_dir* while the block runs. Raises `AlreadyRuns`, `FleetError`."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        text = f"{data_dir} cannot be written: {error}; choose another --data-dir or change its rights"
        raise FleetError(problem(ErrorCode.INTERNAL, text, failure_class=FailureClass.DISK)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"an agent runs with {data_dir}; stop it, or choose another --data-dir"
            raise AlreadyRuns(problem(ErrorCode.COMMAND_REFUSED, text)) from None
        yield


async def purge(data_dir: Path, kind: EngineKind | None, *, volumes: bool) -> list[str]:
    """Remove what the device made in its engine; return the names. Nothing to do is success."""
    identity = load(data_dir)
    if identity is None:
        return []
    engine = agent.make_engine(kind or _remembered_engine(data_dir), identity.device)
    try:
        return await engine.purge(volumes=volumes)
    finally:
        await engine.close()


async def status(data_dir: Path) -> dict[str, Any]:
    """Return what the device's files say, ready for JSON."""
    identity = load(data_dir)
    found: dict[str, Any] = {
        "agent_version": VERSION,
        "data_dir": str(data_dir),
        "running": _runs(data_dir),
        "device": None if identity is None else str(identity.device),
        "broker": None if identity is None else f"{identity.mqtt_host}:{identity.mqtt_port}",
        "topic_root": None if identity is None else identity.topic_root,
    }
    path = agent.journal_file(data_dir)
    if not path.exists():
        return found
    journal = await Journal.open(path, now=agent.utc_now())
    try:
        return {**found, **await _remembered(journal)}
    finally:
        await journal.close()


async def _remembered(journal: Journal) -> dict[str, Any]:
    trial, desired = await journal.trial(), await journal.desired()
    return {
        "generation": 0 if trial is None else trial.generation,
        "committed_generation": await journal.committed_generation(),
        "release": None if desired is None else f"{desired.release.name} {desired.release.version}",
        "services": [] if desired is None else [each.name for each in desired.release.services],
        "held": sorted(await journal.holds()),
        "phase": None if trial is None else trial.phase.value,
        "since": None if trial is None else print_time(trial.since),
        "outcome": None if trial is None or trial.outcome is None else trial.outcome.value,
        "problems": [] if trial is None else [jsonable(each) for each in trial.problems],
        "config_version": (await journal.config()).version,
        "commands": await Ledger(journal.database).counts(),
    }


def _runs(data_dir: Path) -> bool:
    if not (data_dir / "lock").exists():
        return False
    try:
        with only_one(data_dir):
            return False
    except AlreadyRuns:
        return True


def _remember_engine(data_dir: Path, kind: EngineKind) -> None:
    (data_dir / "engine.json").write_text(json.dumps({"engine": kind.value}), "utf-8")


def _remembered_engine(data_dir: Path) -> EngineKind:
    """Return the engine the agent last ran with, for a purge that is not told."""
    try:
        return EngineKind(json.loads((data_dir / "engine.json").read_text("utf-8"))["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return EngineKind.DOCKER
