"""The same services for every engine: on Docker a command makes them so, in memory a behaviour."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID, uuid4

from device.engine.behaviour import Behaviour
from device.engine.docker_engine import DockerEngine
from device.engine.memory import MemoryEngine
from device.engine.protocol import Container, ContainerSpec, Engine, EngineEvent, EngineEventKind
from schemas.desired import ServiceManifest

T = TypeVar("T")
RELEASE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")


class Role(StrEnum):
    """What a test's service does."""

    STORE = "store"
    """Serves HTTP on 8080, prints `start N` where N counts the starts its volume has seen."""
    SHORT = "short"
    """Prints `one` and `two`, then ends with 3."""
    TICKING = "ticking"
    """Prints `line 1` to `line 5` and ends with 0."""
    STUBBORN = "stubborn"
    """Does not end when asked to."""
    SICK = "sick"
    """Never passes a check."""


_COMMANDS: dict[Role, list[str]] = {
    Role.STORE: ["/app/store"],
    Role.SHORT: ["sh", "-c", "echo one; echo two; exit 3"],
    Role.TICKING: ["sh", "-c", "for n in 1 2 3 4 5; do echo line $n; sleep 0.2; done"],
    Role.STUBBORN: ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
    Role.SICK: ["sleep", "600"],
}
_BEHAVIOURS: dict[Role, Behaviour] = {
    Role.STORE: Behaviour(present=True, lines=("store: start {visits}",)),
    Role.SHORT: Behaviour(present=True, lines=("one", "two"), exits_after=0.05, exit_code=3),
    Role.TICKING: Behaviour(present=True, line_every=0.2, exits_after=1.1),
    Role.STUBBORN: Behaviour(present=True, stop_takes=60),
    Role.SICK: Behaviour(present=True, healthy_after=None),
}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Kit:
    """An engine under test, another device's engine beside it, and services that run on both."""

    engine: Engine
    other: Engine
    images: dict[Role, str]
    commands: dict[Role, list[str]] = field(default_factory=dict)
    missing_image: str = "fleetline-test/not-found:1"

    def service(self, role: Role, name: str | None = None, **changes: Any) -> ServiceManifest:
        """Return a manifest of a service that does what *role* says."""
        return ServiceManifest.model_validate(
            {
                "name": name or role.value,
                "image": self.images[role],
                "command": self.commands.get(role),
                **changes,
            }
        )

    async def create(self, service: ServiceManifest, *, generation: int = 1) -> str:
        """Create a container of *service* on the engine under test."""
        return await self.engine.create(ContainerSpec(service, generation=generation, release_id=RELEASE))

    async def run(self, role: Role, name: str | None = None, **changes: Any) -> str:
        """Create and start a service; return its container."""
        container = await self.create(self.service(role, name, **changes))
        await self.engine.start(container)
        return container

    async def seen(self, container: str) -> Container:
        """Return the container as listed."""
        return next(each for each in await self.engine.containers() if each.id == container)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[Callable[[EngineEventKind], Awaitable[EngineEvent]]]:
        """Record events; yield a function that waits for one of a kind."""
        told: list[EngineEvent] = []

        async def record() -> None:
            async for event in self.engine.events():
                told.append(event)  # noqa: PERF401 - read while it grows

        async def wait_for(kind: EngineEventKind) -> EngineEvent:
            return await until(lambda: next((each for each in told if each.kind is kind), None))

        recording = asyncio.ensure_future(record())
        await self._await_first(told)
        told.clear()
        try:
            yield wait_for
        finally:
            recording.cancel()
            await asyncio.wait([recording])

    async def _await_first(self, told: list[EngineEvent]) -> None:
        """Return once events arrive: containers made for that purpose come and go until one is told of."""
        while not told:
            await self.engine.remove(await self.run(Role.STORE, "first"))
            await asyncio.sleep(0.05)
        end = await self.run(Role.STORE, "last")
        await self.engine.remove(end)
        await until(lambda: [e for e in told if e.container == end and e.kind is EngineEventKind.REMOVED])


async def until(look: Callable[[], T | None], *, within: float = 15) -> T:
    """Return what *look* finds as soon as it finds something."""
    end = monotonic() + within
    while monotonic() < end:
        if found := look():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing came within {within} s")


async def eventually(
    look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], *, within: float = 15
) -> T:
    """Return the first answer of *look* that is *wanted*."""
    end = monotonic() + within
    while not wanted(answer := await look()):
        if monotonic() > end:
            raise AssertionError(f"after {within} s still: {answer}")
        await asyncio.sleep(0.05)
    return answer


def memory_kit() -> Kit:
    """Return engines in memory."""
    images = {role: f"kit/{role}:1" for role in Role}
    behaviours = {images[role]: _BEHAVIOURS[role] for role in Role}
    return Kit(
        engine=MemoryEngine(uuid4(), now=_now, behaviours=behaviours),
        other=MemoryEngine(uuid4(), now=_now, behaviours=behaviours),
        images=images,
    )


def docker_kit(image: str) -> Kit:
    """Return engines on the machine's Docker daemon."""
    return Kit(
        engine=DockerEngine(uuid4(), now=_now),
        other=DockerEngine(uuid4(), now=_now),
        images=dict.fromkeys(Role, image),
        commands=_COMMANDS,
    )
