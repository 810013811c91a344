"""What the agent asks of a container engine. One contract suite runs on every implementation.

An engine is bound to one device: it sees and touches only containers, networks
and volumes that carry this device's label. Every action is safe to repeat:
removing or stopping what is gone or stopped succeeds, starting what runs does
nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from schemas.desired import HttpCheck, ServiceManifest, TcpCheck
from schemas.errors import FleetError
from schemas.reported import Health, PublishedPort


class EngineUnreachable(FleetError):  # noqa: N818 - says what is the case
    """The engine does not answer (`engine.unreachable`). Nothing is known; trying again can help."""


class EngineRefused(FleetError):  # noqa: N818
    """The engine answered and declined (`engine.refused`, `port.in_use`, ...)."""


class NoSuchContainer(FleetError):  # noqa: N818
    """The container is gone (`service.unknown`)."""


class ImageNotFound(FleetError):  # noqa: N818
    """Neither the device nor a registry has the image (`image.not_found`)."""


class ContainerState(StrEnum):
    """What the engine says of a container."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Container:
    """One container of this device, as observed.

    `health` is what the engine itself checks (`exec` and `docker` checks);
    `none` where the agent has to probe, or nothing is to be checked.
    """

    id: str
    name: str
    service: str
    image: str
    image_id: str
    fingerprint: str
    generation: int
    state: ContainerState
    health: Health = Health.NONE
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    ports: tuple[PublishedPort, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What to create: a manifest with its configuration merged in, and where it comes from."""

    service: ServiceManifest
    generation: int
    release_id: UUID


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine and its host: `docker`, `27.3.1`, `aarch64`."""

    name: str
    version: str
    architecture: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """Counters of one running container; `cpu_seconds` grows, so two readings give a share."""

    at: datetime
    cpu_seconds: float
    memory_used_bytes: int
    memory_limit_bytes: int | None
    net_received_bytes: int
    net_sent_bytes: int
    block_read_bytes: int
    block_written_bytes: int
    pids: int


class EngineEventKind(StrEnum):
    """What made the picture change."""

    STARTED = "started"
    DIED = "died"
    REMOVED = "removed"
    HEALTH = "health"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """A sign that the observed state may differ now. Only a hint: the next observation decides."""

    kind: EngineEventKind
    at: datetime
    container: str
    service: str
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a probe met: `reason` is for people, such as `status 503` or `connection refused`."""

    passed: bool
    reason: str = ""


Progress = Callable[[str, int, int], None]
"""Told while pulling: image, bytes done, bytes in all (0: not known yet)."""


class Engine(Protocol):
    """A container engine, bound to one device. Every method may raise `EngineUnreachable`."""

    @property
    def calls(self) -> int:
        """Calls made to the engine so far, for the agent's own metrics."""

    async def info(self) -> EngineInfo:
        """Return the engine's name, version and architecture."""

    async def containers(self) -> list[Container]:
        """Return every container of this device, running or not, oldest first."""

    async def image_id(self, image: str) -> str | None:
        """Return the digest of *image* if the device has it, else None."""

    async def pull(self, image: str, progress: Progress | None = None) -> str:
        """Fetch *image* and return its digest. Raises `ImageNotFound`, `EngineRefused`."""

    async def create(self, spec: ContainerSpec) -> str:
        """Create (not start) the service's container and return its id.

        The network and the named volumes are made where absent. A container of
        the same name that is not running is replaced. Raises `ImageNotFound`,
        `EngineRefused`.
        """

    async def start(self, container: str) -> None:
        """Start *container*. Raises `NoSuchContainer`, `EngineRefused` (`port.in_use` names the port)."""

    async def stop(self, container: str, *, grace: float) -> None:
        """Ask *container* to end, kill it after *grace* seconds, return when it has ended."""

    async def remove(self, container: str) -> None:
        """Remove *container*, killing it where it still runs; its named volumes stay."""

    async def logs(self, container: str, *, tail: int, since: datetime | None = None) -> list[str]:
        """Return the last *tail* lines, stdout and stderr in order of time. Raises `NoSuchContainer`."""

    def follow(self, container: str, *, tail: int, since: datetime | None = None) -> AsyncIterator[str]:
        """Yield the last *tail* lines and then each new one until the container ends."""

    async def stats(self, container: str) -> ContainerStats:
        """Return counters of a running container. Raises `NoSuchContainer`."""

    async def probe(self, container: str, check: HttpCheck | TcpCheck) -> ProbeAnswer:
        """Carry out one check from outside the container, within `check.timeout`."""

    async def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of *container*, without its environment. Raises `NoSuchContainer`."""

    def events(self) -> AsyncIterator[EngineEvent]:
        """Yield what happens to this device's containers; ends or raises when the engine goes away."""

    async def purge(self, *, volumes: bool) -> list[str]:
        """Remove everything of this device (named volumes only if asked); return the names of what went."""

    async def close(self) -> None:
        """Let go of connections."""
