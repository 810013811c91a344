"""The agent, wired once, straight down the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from uuid import UUID, uuid4

from device import VERSION
from device.backoff import next_attempt, pause
from device.commands.serve import Server
from device.commands.tools import Tools
from device.deploy.loop import Keeper
from device.dispatch import Dispatcher
from device.engine.protocol import Engine, EngineUnreachable
from device.events import Events
from device.hardware.detect import detect
from device.identity import Identity
from device.inbox import Inbox
from device.journal import Journal
from device.link import Endpoint, Link
from device.report import Reporter
from device.settings import EngineKind, Settings
from device.settings_sync.apply import apply_agent
from device.telemetry.publish import Telemetry
from device.telemetry.sampler import Sampler
from device.telemetry.spool import Spool
from schemas.errors import FleetError
from schemas.topics import Topics

log = logging.getLogger(__name__)

_FACTS_AGAIN = 5.0
"""Seconds between two questions to an engine that does not answer."""


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def journal_file(data_dir: Path) -> Path:
    """Return where the journal is."""
    return data_dir / "journal.db"


def make_engine(kind: EngineKind, device: UUID) -> Engine:
    """Return the engine of *kind*, bound to *device*; only what is used is imported."""
    match kind:
        case EngineKind.DOCKER:
            from device.engine.docker_engine import DockerEngine  # noqa: PLC0415 - heavy

            return DockerEngine(device, now=utc_now)
        case EngineKind.MEMORY:
            from device.engine.memory import MemoryEngine  # noqa: PLC0415

            return MemoryEngine(device, now=utc_now)


async def run(
    settings: Settings, identity: Identity, *, recent_log: Callable[[], Sequence[str]], stop: asyncio.Event
) -> None:
    """Be the agent of *identity* until *stop* is set; services run on after that. Raises `StorageFailed`."""
    rng, boot, device = SystemRandom(), uuid4(), identity.device
    topics = Topics(identity.topic_root)
    journal = await Journal.open(journal_file(settings.data_dir), now=utc_now())
    spool = await Spool.open(settings.data_dir / "spool.db", now=utc_now())
    config = await journal.config()
    if config.version:
        apply_agent(config.agent)
    engine = make_engine(settings.engine, device)
    link = Link(
        Endpoint(
            host=identity.mqtt_host,
            port=identity.mqtt_port,
            device=device,
            topics=topics,
            chain=identity.chain,
            key=identity.key,
            ca=identity.ca,
            keepalive=settings.keepalive,
        ),
        boot=boot,
        next_session=journal.next_session,
        now=utc_now,
        rng=rng,
    )
    inbox = Inbox()
    events = Events(device, link=link, now=utc_now)
    reporter = Reporter(
        device, link=link, journal=journal, problems=(*journal.problems, *spool.problems), now=utc_now
    )
    keeper = Keeper(
        engine=engine,
        journal=journal,
        now=utc_now,
        on_change=reporter.keeper_changed,
        on_event=events.tell,
    )
    server = Server(
        Tools(
            device=device,
            boot=boot,
            started=utc_now(),
            data_dir=settings.data_dir,
            engine=engine,
            journal=journal,
            keeper=keeper,
            link=link,
            now=utc_now,
            recent_log=recent_log,
            dropped=lambda: {"messages": inbox.dropped, "events": events.dropped},
        )
    )

    telemetry = Telemetry(
        device,
        spool=spool,
        link=link,
        rounds=Sampler(
            engine=engine,
            keeper=keeper.state,
            spool=spool,
            reconnects=lambda: link.stats.connections,
            data_dir=settings.data_dir,
            now=utc_now,
        ),
        interval=lambda: telemetry_interval(journal),
        now=utc_now,
    )

    def on_orders() -> None:
        keeper.wake()
        reporter.config_changed()
        telemetry.config_changed()

    dispatcher = Dispatcher(
        device=device,
        topics=topics,
        journal=journal,
        server=server,
        events=events,
        on_orders=on_orders,
        on_watermark=telemetry.on_watermark,
        now=utc_now,
    )

    async def keep() -> None:
        await server.resumed.wait()
        await keeper.run()

    async def listen() -> None:
        await server.resumed.wait()
        await dispatcher.run(inbox)

    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "commands": server.run,
        "keeper": keep,
        "link": lambda: link.run(inbox.put),
        "inbox": listen,
        "report": reporter.run,
        "events": events.run,
        "telemetry": telemetry.run,
        "facts": lambda: find_facts(engine, reporter),
    }
    log.info("agent %s of device %s, engine %s", VERSION, device, settings.engine)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(supervise(name, part, rng), name=name) for name, part in parts.items()]
            await stop.wait()
            log.info("stopping; services run on")
            for task in tasks:
                task.cancel()
    finally:
        await engine.close()
        await spool.close()
        await journal.close()


async def supervise(name: str, part: Callable[[], Awaitable[None]], rng: Random) -> None:
    """Run *part*; when it fails, log and run it again after a pause: no failure of one ends the others."""
    attempt = 0
    while True:
        began = utc_now()
        try:
            await part()
        except Exception as error:  # the outermost loop: whatever fails in one part, the others go on
            if (known := _expected(error)) is None:
                log.exception("%s failed and is started again", name)
            else:
                log.error("%s failed and is started again: %s", name, known)  # noqa: TRY400 - expected
        else:
            return
        attempt = next_attempt(attempt, utc_now() - began)
        await asyncio.sleep(pause(attempt, rng.random()).total_seconds())


def _expected(error: Exception) -> FleetError | None:
    """Return the failure of a kind we know that *error* is, or that alone a task group brought."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, FleetError) else None


async def telemetry_interval(journal: Journal) -> float:
    """Return the seconds between readings as configured now."""
    return (await journal.config()).agent.telemetry_interval


async def find_facts(engine: Engine, reporter: Reporter) -> None:
    """Report what machine this is: at once, and again when the engine has told its version."""
    reporter.facts_changed(await asyncio.to_thread(detect))
    while True:
        try:
            info = await engine.info()
        except EngineUnreachable:
            await asyncio.sleep(_FACTS_AGAIN)
        else:
            break
    reporter.facts_changed(await asyncio.to_thread(detect, f"{info.name} {info.version}"))
