"""What handlers work with, and what they give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from device.engine.protocol import Container, Engine, NoSuchContainer
from device.journal import Journal
from device.link import LinkStats, Outbound
from schemas.errors import ErrorCode, Problem, problem


class Keeper(Protocol):
    """What commands ask of the loop that keeps the services."""

    def wake(self) -> None:
        """Ask for a round soon."""

    def reserve(self, service: str) -> AbstractAsyncContextManager[None]:
        """Keep the loop's hands off *service* while the block runs."""


class Speaker(Outbound, Protocol):
    """The link, as far as commands need it."""

    @property
    def stats(self) -> LinkStats:
        """What the link has done."""

    async def reply(self, response_topic: str, payload: bytes, correlation: bytes | None) -> None:
        """Answer on a topic of the asker's choice within this device's own tree. Raises `LinkDown`."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything a handler may touch."""

    device: UUID
    boot: UUID
    started: datetime
    data_dir: Path
    engine: Engine
    journal: Journal
    keeper: Keeper
    link: Speaker
    now: Callable[[], datetime]
    recent_log: Callable[[], Sequence[str]]
    dropped: Callable[[], Mapping[str, int]] = dict
    """What gave way for lack of room since the agent started, by kind."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to: a sentence, and the data that was asked for."""

    detail: str
    data: Mapping[str, Any] | None = None


def unknown_service(service: str, containers: Sequence[Container]) -> Problem:
    """Return that there is no *service* here, naming what there is."""
    names = ", ".join(sorted(each.service for each in containers)) or "none"
    text = f"no service called {service} is on this device; its services are: {names}"
    return problem(ErrorCode.SERVICE_UNKNOWN, text, element=service)


async def find(service: str, engine: Engine) -> Container:
    """Return the container of *service*. Raises `FleetError` (`service.unknown`, `engine.unreachable`)."""
    containers = await engine.containers()
    for container in containers:
        if container.service == service:
            return container
    raise NoSuchContainer(unknown_service(service, containers))
