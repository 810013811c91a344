"""The REST door for tests: a real HTTP server over real SQLite, with a link to a real broker.

No consumer runs, so tests say themselves, through the store, what a device said.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TypeVar
from uuid import UUID, uuid4

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.api.app import create_api
from cloud.api.server import ApiServer, listen
from cloud.bus import Broker, Bus, Incoming
from cloud.commands import Commander
from cloud.deployments import Deployer
from cloud.enrolled import Enrolled
from cloud.feed import Feed
from cloud.metrics.sql.metrics import SqlMetrics
from cloud.pki.authority import Authority
from cloud.services import Services
from cloud.settings import Settings
from cloud.store import enrolment, keys
from cloud.store.database import Database
from schemas.topics import Topics
from tests.servers.mosquitto import HOST, Mosquitto

T = TypeVar("T")


@dataclass
class TestClock:
    """Real time, which a test may move on."""

    __test__ = False
    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass(frozen=True, slots=True)
class RunningApi:
    """A server under test, and the ways behind its back."""

    url: str
    key: str
    services: Services
    portal: BlockingPortal
    link: "asyncio.Task[None]"

    @property
    def clock(self) -> TestClock:
        """The server's clock."""
        assert isinstance(self.services.now, TestClock)
        return self.services.now

    def client(self, key: str | None = None) -> httpx.Client:
        """Return a client with *key*, by default the one that may do everything; an empty key is none."""
        used = self.key if key is None else key
        headers = {"Authorization": f"Bearer {used}"} if used else {}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30, trust_env=False)

    def cut_the_link(self) -> None:
        """End the server's link to the broker for good."""

        async def cut() -> None:
            self.link.cancel()
            await asyncio.wait([self.link])

        self.portal.call(cut)

    def stop_serving(self) -> None:
        """Begin to stop the HTTP server, as a signal would."""
        self.portal.call(self.services.feed.close)

    def store(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do *work* in a transaction, tell the feed, and return what it returned."""

        async def done() -> T:
            async with self.services.database.session() as session:
                result = await work(session)
            self.services.feed.notify()
            return result

        return self.portal.call(done)

    def key_with(self, *scopes: str, ttl: timedelta | None = None) -> str:
        """Return a new key that may do just this."""
        now = self.clock()
        expires_at = None if ttl is None else now + ttl
        return self.store(lambda session: keys.create(session, "test", scopes, expires_at, now))[1]

    def device(self, name: str = "", **labels: str) -> UUID:
        """Return a device that is enrolled and has not said anything yet."""
        device, now = uuid4(), self.clock()
        self.store(
            lambda session: enrolment.admit(
                session,
                device,
                key="0" * 64,
                name=name,
                labels=labels,
                certificate_expires_at=now + timedelta(days=90),
                now=now,
            )
        )
        return device


@contextmanager
def api(directory: Path, broker: Mosquitto, authority: Authority) -> Iterator[RunningApi]:
    """Run a server with its database in *directory*; it ends with the block."""
    directory.mkdir(parents=True, exist_ok=True)
    with start_blocking_portal() as portal:
        ready: asyncio.Event = portal.call(_event)
        stop: asyncio.Event = portal.call(_event)
        found: list[RunningApi] = []
        future = portal.start_task_soon(_serve, directory, broker, authority, found, ready, stop, portal)
        try:
            portal.call(_either, ready, stop)
            if future.done():
                future.result()
            yield found[0]
        finally:
            portal.call(stop.set)
            future.result(timeout=20)


async def _event() -> asyncio.Event:
    return asyncio.Event()


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _serve(  # noqa: PLR0917 - a portal passes no keyword arguments
    directory: Path,
    broker: Mosquitto,
    authority: Authority,
    found: list[RunningApi],
    ready: asyncio.Event,
    stop: asyncio.Event,
    portal: BlockingPortal,
) -> None:
    try:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            services, bus = await _wire(directory, broker, authority, stack)
            async with services.database.session() as session:
                _, key = await keys.create(session, "all", ["*"], None, services.now())
            listening = listen(HOST, 0)
            server = ApiServer(create_api(services), services.feed)
            link = tasks.create_task(bus.run())
            serving = tasks.create_task(server.serve([listening]))
            while not (server.started and bus.connected):  # noqa: ASYNC110 - neither tells by an event
                await asyncio.sleep(0.01)
            url = f"http://{HOST}:{listening.getsockname()[1]}"
            found.append(RunningApi(url, key, services, portal, link))
            ready.set()
            await stop.wait()
            server.should_exit = True
            await serving
            link.cancel()
    finally:
        stop.set()


async def _wire(
    directory: Path, broker: Mosquitto, authority: Authority, stack: AsyncExitStack
) -> tuple[Services, Bus]:
    settings = Settings(data_dir=directory, pki_dir=authority.directory, topic_root=broker.topic_root)
    database = await Database.open(settings.database)
    stack.push_async_callback(database.close)
    await database.upgrade()
    metrics = SqlMetrics.open(f"sqlite+aiosqlite:///{directory / 'metrics.db'}")
    stack.push_async_callback(metrics.close)
    await metrics.prepare()
    bus, feed, clock = _bus(broker), Feed(), TestClock()
    services = Services(
        database=database,
        metrics=metrics,
        commander=Commander(database, bus, feed, Enrolled(), clock),
        deployer=Deployer(database, bus, feed, clock),
        feed=feed,
        authority=authority,
        settings=settings,
        bus_connected=lambda: bus.connected,
        broker_uptime=lambda: bus.broker_uptime,
        now=clock,
    )
    return services, bus


def _bus(broker: Mosquitto) -> Bus:
    name = f"api-test-{uuid4().hex[:8]}"
    door = Broker(HOST, broker.services_port, name, broker.service(broker.settings.cloud).tls())
    nothing = f"{broker.topic_root}/{uuid4()}/up/presence"
    return Bus(door, Topics(broker.topic_root), filters=[nothing], handler=_ignore, random=Random(1))


async def _ignore(arrived: Sequence[Incoming]) -> None:
    for message in arrived:
        message.ack()
