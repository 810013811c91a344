"""The cloud, wired: settings in, one task group of everything that runs."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import SystemRandom

from cloud.api.app import create_api
from cloud.api.server import ApiServer, listen
from cloud.backoff import pause
from cloud.bus import Broker, Bus
from cloud.commands import Commander
from cloud.consumers.dispatch import OCCURRENCES, STATES, Dispatcher
from cloud.deployments import Deployer
from cloud.enrolled import Enrolled
from cloud.feed import Feed
from cloud.ingest.consumer import Ingest
from cloud.metrics.influx import InfluxMetrics, InfluxSettings
from cloud.metrics.protocol import Metrics
from cloud.metrics.sql import SqlMetrics
from cloud.pki.authority import Authority
from cloud.services import Services
from cloud.settings import PREFIX, MetricsKind, Settings, check_url
from cloud.store.database import Database, driver_url
from cloud.sweeps import chores, keep_doing
from schemas.errors import ErrorCode, FleetError, problem
from schemas.topics import Topics

log = logging.getLogger(__name__)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the cloud until *stop* is set. Any number may share a database, each with its own client ids."""
    random = SystemRandom()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = await asyncio.to_thread(Authority.open, settings.pki, now=now())
    tls = settings.mqtt_tls()
    topics = Topics(settings.topic_root)
    feed = Feed()
    async with AsyncExitStack() as stack:
        database = await Database.open(settings.database)
        stack.push_async_callback(database.close)
        await _until_reached(database.upgrade)
        metrics = open_metrics(settings)
        stack.push_async_callback(metrics.close)

        enrolled = Enrolled()
        dispatcher = Dispatcher(database, topics, feed, enrolled, now, random)
        bus = Bus(
            Broker(settings.mqtt_host, settings.mqtt_port, settings.mqtt_client, tls),
            topics,
            filters=[topics.every(kind) for kind in OCCURRENCES],
            states=[topics.every(kind) for kind in STATES],
            handler=dispatcher.handle,
            random=random,
        )
        commander = Commander(database, bus, feed, enrolled, now)
        deployer = Deployer(database, bus, feed, now)
        ingest = Ingest(
            Broker(settings.mqtt_host, settings.mqtt_port, settings.ingest_client, tls),
            topics,
            database=database,
            metrics=metrics,
            now=now,
            random=random,
        )
        services = Services(
            database=database,
            metrics=metrics,
            commander=commander,
            deployer=deployer,
            feed=feed,
            authority=authority,
            settings=settings,
            bus_connected=lambda: bus.connected,
            broker_uptime=lambda: bus.broker_uptime,
            now=now,
        )
        server = ApiServer(create_api(services), feed, cert=settings.http_cert, key=settings.http_key)
        socket = stack.enter_context(listen(settings.http_host, settings.http_port))

        gc.freeze()  # what is there now stays; to look through it takes 0.1 s each time
        async with asyncio.TaskGroup() as tasks:
            workers = [
                tasks.create_task(bus.run(), name="bus"),
                tasks.create_task(_ingest(metrics, ingest), name="ingest"),
                *(
                    tasks.create_task(keep_doing(chore, random), name=chore.name)
                    for chore in chores(
                        database=database,
                        metrics=metrics,
                        bus=bus,
                        commander=commander,
                        deployer=deployer,
                        now=now,
                    )
                ),
            ]
            api = tasks.create_task(server.serve(sockets=[socket]), name="api")
            log.info("REST on %s port %s", *socket.getsockname()[:2])
            await stop.wait()
            server.should_exit = True
            await api
            for worker in workers:
                worker.cancel()


def check(settings: Settings) -> None:
    """Return if *settings* can be used as they are on this machine; nothing is asked of another.

    Raises FleetError naming the variable that does not fit. Passwords are not told.
    """
    _told("DATABASE_URL", lambda: driver_url(settings.database))
    match settings.metrics:
        case MetricsKind.SQL:
            _told("METRICS_URL", lambda: driver_url(settings.metrics_store))
        case MetricsKind.INFLUX:
            _told("METRICS_URL", lambda: check_url(settings.metrics_store))
    _told("MQTT_CA, _CERT or _KEY", settings.mqtt_tls)
    _told("HTTP_CERT or _KEY", settings.check_http_tls)


def _told(name: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except (FleetError, OSError) as error:  # ssl.SSLError is an OSError
        raise FleetError(problem(ErrorCode.VALUE_WRONG_TYPE, f"{PREFIX}{name}: {error}")) from None


def now() -> datetime:
    """Return the time by the cloud's clock."""
    return datetime.now(UTC)


def open_metrics(settings: Settings) -> Metrics:
    """Return the place where samples are kept; nothing is asked of it yet."""
    match settings.metrics:
        case MetricsKind.SQL:
            return SqlMetrics.open(driver_url(settings.metrics_store), retention=settings.metrics_retention)
        case MetricsKind.INFLUX:
            return InfluxMetrics(
                InfluxSettings(
                    url=settings.metrics_store,
                    database=settings.metrics_database,
                    username=settings.metrics_username,
                    password=settings.metrics_password.get_secret_value(),
                    org=settings.metrics_org,
                    token=settings.metrics_token.get_secret_value(),
                    retention=settings.metrics_retention,
                )
            )


async def _ingest(metrics: Metrics, ingest: Ingest) -> None:
    await _until_reached(metrics.prepare)
    await ingest.run()


async def _until_reached(attempt: Callable[[], Awaitable[None]]) -> None:
    """Carry out *attempt* once its database answers, however long that takes."""
    failures = 0
    while True:
        try:
            await attempt()
        except FleetError as error:
            if error.code not in {
                ErrorCode.STORE_UNREACHABLE,
                ErrorCode.METRICS_UNREACHABLE,
                ErrorCode.METRICS_REFUSED,
            }:
                raise
            failures += 1
            log.warning("%s; trying again", error)
            await asyncio.sleep(pause(failures, random=SystemRandom(), longest=10))
        else:
            return
