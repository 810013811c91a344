"""A bench for the agent's parts: a line that behaves like the link, a device that outlives its agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel

from device.commands.serve import Server
from device.commands.tools import Keeper, Tools
from device.deploy.hands import Hands
from device.engine.memory import MemoryEngine
from device.engine.protocol import ContainerSpec, Engine
from device.inbox import Arrival
from device.journal import Journal
from device.link import LinkDown, LinkStats
from schemas import topics
from schemas.commands import CommandResult, CommandStatus, LogChunk
from schemas.desired import Desired, Release, ServiceManifest
from schemas.errors import ErrorCode, refuse
from schemas.reading import MAX_PAYLOAD, read
from schemas.topics import Topic

DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
PATIENCE = 10.0
Model = TypeVar("Model", bound=BaseModel)


def now() -> datetime:
    return datetime.now(UTC)


class Line:
    """What the link is to the agent: confirms while it is up, says so when it is down."""

    def __init__(self) -> None:
        self.sent: list[tuple[Topic, bytes]] = []
        self.replies: list[tuple[str, bytes, bytes | None]] = []
        self._session = 1
        self._up = True
        self._changed = asyncio.Condition()

    @property
    def stats(self) -> LinkStats:
        return LinkStats(connections=self._session, session=self._session if self._up else None)

    async def publish(self, topic: Topic, payload: bytes, *, expiry: timedelta | None = None) -> None:
        del expiry
        await asyncio.sleep(0)
        if not self._up:
            raise LinkDown("the line is cut")
        if len(payload) > MAX_PAYLOAD:
            refuse(ErrorCode.PAYLOAD_TOO_LARGE, "too long")
        self.sent.append((topic, payload))
        await self._tell()

    async def reply(self, response_topic: str, payload: bytes, correlation: bytes | None) -> None:
        if not self._up:
            raise LinkDown("the line is cut")
        self.replies.append((response_topic, payload, correlation))
        await self._tell()

    async def connected(self) -> int:
        return await self.reconnected(-1)

    async def reconnected(self, after: int) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self._up and self._session > after)
            return self._session

    async def cut(self) -> None:
        self._up = False

    async def join(self) -> None:
        self._up = True
        self._session += 1
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*; looked at whenever something was sent."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(holds)

    def words(self, command: UUID) -> list[CommandResult]:
        """Return what was said about a command."""
        return self._read(
            CommandResult, lambda topic: isinstance(topic, topics.Result) and topic.id == command
        )

    def chunks(self, transfer: UUID) -> list[LogChunk]:
        return self._read(LogChunk, lambda topic: topic == topics.Chunk(DEVICE, transfer))

    def of(self, topic: Topic, model: type[Model]) -> list[Model]:
        return self._read(model, lambda each: each == topic)

    def _read(self, model: type[Model], wanted: Callable[[Topic], bool]) -> list[Model]:
        return [read(model, payload) for topic, payload in self.sent if wanted(topic)]

    async def answer(self, command: UUID) -> CommandResult:
        """Wait for the final word on a command and return it."""
        await self.until(lambda: any(word.status.final for word in self.words(command)))
        return next(word for word in self.words(command) if word.status.final)


class IdleKeeper:
    """Keeps nothing, but hands services over as the real one does."""

    def __init__(self) -> None:
        self._hands = Hands(self.wake)
        self.reserve = self._hands.reserve
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1


@dataclass
class Bench:
    """One device on the bench. Journal and engine stay when the agent goes."""

    folder: Path
    engine: Engine
    memory: MemoryEngine
    journal: Journal
    line: Line = field(default_factory=Line)
    keeper: Keeper = field(default_factory=IdleKeeper)

    def tools(self) -> Tools:
        return Tools(
            device=DEVICE,
            boot=uuid4(),
            started=now(),
            data_dir=self.folder,
            engine=self.engine,
            journal=self.journal,
            keeper=self.keeper,
            link=self.line,
            now=now,
            recent_log=lambda: ["a line"],
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        """Run a server; leaving the block kills it where it stands."""
        server = Server(self.tools())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.run())
            try:
                async with asyncio.timeout(PATIENCE):
                    await server.resumed.wait()
                yield server
            finally:
                task.cancel()

    async def run_service(self, name: str = "web", image: str = "shop/web:1") -> str:
        """Have a container of *name* run; return its id."""
        manifest = ServiceManifest(name=name, image=image, stop_grace=1)
        await self.memory.pull(image)
        container = await self.memory.create(ContainerSpec(manifest, 1, DEVICE))
        await self.memory.start(container)
        return container

    async def desire(self, *names: str) -> None:
        services = [ServiceManifest(name=name, image=f"shop/{name}:1", stop_grace=1) for name in names]
        release = Release(name="shop", version="1", services=services)
        desired = Desired(generation=1, release_id=uuid4(), release=release, issued_at=now())
        await self.journal.accept_desired(desired, now())

    async def fill_disk(self, *tables: str) -> None:
        """Let the journal refuse every write to *tables*, as it does on a full disk."""
        await fill_disk(self.journal, *tables)

    async def free_disk(self) -> None:
        """Let the journal write again."""
        await free_disk(self.journal)

    def starts(self, service: str = "web") -> int:
        return self.memory.world.actions.count(("start", service))

    def stops(self, service: str = "web") -> int:
        return self.memory.world.actions.count(("stop", service))


async def fill_disk(journal: Journal, *tables: str) -> None:
    """Let *journal* refuse every write to *tables*, as it does on a full disk."""
    for table in tables:
        for act in ("INSERT", "UPDATE"):
            await journal.database.run(
                lambda db, table=table, act=act: db.execute(  # type: ignore[misc]
                    f"CREATE TRIGGER full_{table}_{act} BEFORE {act} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
                )
            )


async def free_disk(journal: Journal) -> None:
    """Let *journal* write again."""
    names = await journal.database.run(
        lambda db: [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
    )
    for name in names:
        await journal.database.run(lambda db, name=name: db.execute(f"DROP TRIGGER {name}"))  # type: ignore[misc]


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    """Set up a device in *folder*."""
    journal = await Journal.open(folder / "journal.db", now=now())
    memory = MemoryEngine(DEVICE, now=now)
    try:
        yield Bench(folder, memory, memory, journal)
    finally:
        await journal.close()


async def order(
    server: Server,
    name: str,
    payload: bytes,
    *,
    command: UUID | None = None,
    retained: bool = False,
    response_topic: str | None = None,
    correlation: bytes | None = None,
) -> UUID:
    """Give *server* a command as it would arrive; return its id."""
    command = command or uuid4()
    topic = topics.Command(DEVICE, name, command)
    text = topics.Topics().print(topic)
    await server.receive(topic, Arrival(text, payload, retained, response_topic, correlation))
    return command


def rungs(words: list[CommandResult]) -> list[CommandStatus]:
    """Return the statuses of *words*."""
    return [word.status for word in words]
