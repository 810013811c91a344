"""A device without a broker: engine, journal, and the keeper of an agent that can be killed and started."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from device.deploy.attempts import Pauses
from device.deploy.course import Bounds
from device.deploy.loop import Keeper
from device.deploy.reports import KeeperState
from device.engine.memory import MemoryEngine
from device.engine.protocol import Engine
from device.journal import Journal
from schemas.config import AgentConfig, Config
from schemas.desired import Desired, Release, ServiceManifest
from schemas.reported import EventKind, Outcome, ServiceReport

DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
PAUSES = Pauses(first=timedelta(seconds=0.1), longest=timedelta(seconds=1))
QUICK = Bounds(soak=timedelta(seconds=0.05), patience=timedelta(seconds=20), pauses=PAUSES)


def now() -> datetime:
    return datetime.now(UTC)


def service(name: str, image: str = "shop/app:1", **fields: Any) -> ServiceManifest:
    return ServiceManifest(**{"name": name, "image": image, "stop_grace": 1, **fields})


EngineT = TypeVar("EngineT", bound=Engine)


@dataclass
class Machine(Generic[EngineT]):
    """A device whose agent can be killed and started; engine and journal stay."""

    engine: EngineT
    journal: Journal
    bounds: Bounds = QUICK
    states: list[KeeperState] = field(default_factory=list)
    events: list[tuple[EventKind, str | None, dict[str, Any]]] = field(default_factory=list)
    generation: int = 0
    keeper: Keeper | None = None
    clock: Callable[[], datetime] = now

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Keeper]:
        keeper = self.keeper = Keeper(
            engine=self.engine,
            journal=self.journal,
            now=lambda: self.clock(),  # noqa: PLW0108 - a test may set another
            bounds=self.bounds,
            on_change=self.states.append,
            on_event=lambda kind, name, _, data: self.events.append((kind, name, data)),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(keeper.run())
            yield keeper
            task.cancel()

    async def deploy(self, *services: ServiceManifest) -> None:
        self.generation += 1
        release = Release(name="shop", version=str(self.generation), services=list(services))
        desired = Desired(generation=self.generation, release_id=uuid4(), release=release, issued_at=now())
        assert await self.journal.accept_desired(desired, now())
        if self.keeper is not None:
            self.keeper.wake()

    def state(self) -> KeeperState:
        assert self.keeper is not None
        return self.keeper.state()

    def report(self, name: str) -> ServiceReport:
        return next(each for each in self.state().services if each.name == name)

    def told(self, kind: EventKind) -> list[str | None]:
        return [name for each, name, _ in self.events if each is kind]

    async def until(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - engines have no one event for all
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"not reached; the state is {self.state()}") from None

    def well(self) -> bool:
        return bool(self.state().services) and all(each.well for each in self.state().services)

    async def ended(self, outcome: Outcome) -> None:
        await self.until(
            lambda: (self.state().generation, self.state().outcome) == (self.generation, outcome)
        )


class InMemory(Machine[MemoryEngine]):
    """A device on the memory engine."""

    def did(self, *kinds: str) -> list[tuple[str, str]]:
        """Return what was done, of these kinds."""
        return [(kind, name) for kind, name in self.engine.world.actions if kind in kinds]


@asynccontextmanager
async def a_journal(directory: Path) -> AsyncIterator[Journal]:
    """A journal in *directory* with short intervals."""
    journal = await Journal.open(directory / "journal.db", now=now())
    await journal.accept_config(Config(version=1, agent=AgentConfig(reconcile_interval=1)), now())
    try:
        yield journal
    finally:
        await journal.close()


@asynccontextmanager
async def in_memory(directory: Path) -> AsyncIterator[InMemory]:
    """A device on the memory engine on which nothing runs; its journal is in *directory*."""
    async with a_journal(directory) as journal:
        yield InMemory(MemoryEngine(DEVICE, now=now), journal)
