"""The steps a plan is made of. Each names its service, is one thing to do, and is safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from device.engine.protocol import ContainerSpec


@dataclass(frozen=True, slots=True)
class Pull:
    """Fetch an image that `service` needs."""

    service: str
    image: str


@dataclass(frozen=True, slots=True)
class Create:
    """Make the service's container; a later plan starts it."""

    spec: ContainerSpec

    @property
    def service(self) -> str:
        """The service's name."""
        return self.spec.service.name


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container that is not running."""

    service: str
    container: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask a container to end, and kill it after `grace` seconds."""

    service: str
    container: str
    grace: float


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop a container and start it: one step, so that the pause between is never taken for an ending."""

    service: str
    container: str
    grace: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a container that is not running; its volumes stay."""

    service: str
    container: str


Step: TypeAlias = Pull | Create | Start | Stop | Restart | Remove


def describe(step: Step) -> str:
    """Return what *step* does, for logs and problems: `create api`."""
    return f"{type(step).__name__.lower()} {step.image if isinstance(step, Pull) else step.service}"
