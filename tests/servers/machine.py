"""A device on the memory engine whose agent can be killed and started: real time, short intervals."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from device.deploy.attempts import Pauses
from device.deploy.course import Bounds
from device.deploy.loop import Keeper
from device.deploy.reports import KeeperState
from device.engine.memory import MemoryEngine
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


@dataclass
class Machine:
    """A device whose agent can be killed and started; engine and journal stay."""

    engine: MemoryEngine
    journal: Journal
    bounds: Bounds = QUICK
    states: list[KeeperState] = field(default_factory=list)
    events: list[tuple[EventKind, str | None, dict[str, Any]]] = field(default_factory=list)
    generation: int = 0
    keeper: Keeper | None = None

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Keeper]:
        keeper = self.keeper = Keeper(
            engine=self.engine,
            journal=self.journal,
            now=now,
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

    def did(self, *kinds: str) -> list[tuple[str, str]]:
        return [(kind, name) for kind, name in self.engine.world.actions if kind in kinds]

    def told(self, kind: EventKind) -> list[str | None]:
        return [name for each, name, _ in self.events if each is kind]

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - the memory engine has no one event for all
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(
                f"not reached; state {self.state()}, actions {self.engine.world.actions}"
            ) from None

    async def ended(self, outcome: Outcome) -> None:
        await self.until(
            lambda: (self.state().generation, self.state().outcome) == (self.generation, outcome)
        )


@asynccontextmanager
async def a_machine(directory: Path) -> AsyncIterator[Machine]:
    """A device whose journal is in *directory* and on which nothing runs."""
    journal = await Journal.open(directory / "journal.db", now=now())
    await journal.accept_config(Config(version=1, agent=AgentConfig(reconcile_interval=1)), now())
    yield Machine(MemoryEngine(DEVICE, now=now), journal)
    await journal.close()
