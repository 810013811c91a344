"""What shall be and what is, laid side by side: the facts a plan is made from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never
from uuid import UUID

from device.deploy.attempts import FRESH, Attempts
from device.engine.protocol import Container, ContainerState
from schemas.config import Config, with_config
from schemas.desired import Condition, Desired, ServiceManifest
from schemas.reported import Health


@dataclass(frozen=True, slots=True)
class Want:
    """What shall be: a whole release with its configuration merged in, and what commands say about it.

    `held` services stay stopped, `asked` ones are started even if they had
    completed, `reserved` ones are in a command's hands. Made by `want_of`.
    """

    services: tuple[ServiceManifest, ...]
    fingerprints: Mapping[str, str]
    generation: int
    release_id: UUID
    held: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Observed:
    """What is: containers, images present, health of running containers by id, failures by service."""

    containers: tuple[Container, ...] = ()
    images: frozenset[str] = frozenset()
    health: Mapping[str, Health] = field(default_factory=dict)
    attempts: Mapping[str, Attempts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """One service: what it shall be, and the container it has; `spare` is one too many."""

    service: ServiceManifest
    container: Container | None
    spare: Container | None
    fits: bool
    health: Health
    due: datetime | None

    @property
    def running(self) -> bool:
        """Whether its container is the right one and runs."""
        return self.fits and self.container is not None and self.container.state is ContainerState.RUNNING

    @property
    def completed(self) -> bool:
        """Whether its container ended with 0."""
        ended = self.container is not None and self.container.state is ContainerState.EXITED
        return self.fits and ended and self.container is not None and self.container.exit_code == 0


@dataclass(frozen=True, slots=True)
class Scene:
    """Every service side by side, and what stands in the way between them."""

    want: Want
    views: Mapping[str, View]
    missing: frozenset[str]
    """Images that are still to be pulled."""
    leaving: tuple[Container, ...]
    old_ports: Mapping[tuple[int, str], str]
    """Host ports that containers about to be replaced still have, and whose they are."""
    wanted_ports: frozenset[tuple[int, str]]


def want_of(desired: Desired, config: Config) -> Want:
    """Return what *desired* and *config* make a device want; commands are added with `replace`."""
    services = tuple(with_config(service, config) for service in desired.release.services)
    return Want(
        services=services,
        fingerprints={service.name: service.fingerprint for service in services},
        generation=desired.generation,
        release_id=desired.release_id,
    )


def missing_images(want: Want, containers: Iterable[Container]) -> frozenset[str]:
    """Return the images that *want* needs a container made of: those whose presence matters."""
    fitting = {(each.service, each.fingerprint) for each in containers}
    return frozenset(
        service.image
        for service in want.services
        if service.name not in want.held and (service.name, want.fingerprints[service.name]) not in fitting
    )


def scene_of(want: Want, seen: Observed, now: datetime) -> Scene:
    """Return *want* and *seen* laid side by side."""
    by_service: dict[str, list[Container]] = {}
    for container in seen.containers:
        by_service.setdefault(container.service, []).append(container)
    views = {
        each.name: _view(each, want.fingerprints[each.name], by_service.get(each.name, []), seen, now=now)
        for each in want.services
    }
    scene = Scene(
        want=want,
        views=views,
        missing=missing_images(want, seen.containers) - seen.images,
        leaving=tuple(leaving(want, seen.containers)),
        old_ports={
            (port.host, port.protocol): name
            for name, view in views.items()
            if view.container is not None and not view.fits
            for port in view.container.ports
        },
        wanted_ports=frozenset(),
    )
    if not scene.old_ports:
        return scene
    ready = [view for view in views.values() if not view.running and not unmet(view, scene)]
    return replace(scene, wanted_ports=frozenset(port for view in ready for port in _ports(view.service)))


def _view(
    service: ServiceManifest, fingerprint: str, containers: list[Container], seen: Observed, *, now: datetime
) -> View:
    def worth(container: Container) -> tuple[bool, bool]:
        fits = container.fingerprint == fingerprint
        return fits, container.state is ContainerState.RUNNING

    best = max(containers, key=worth, default=None)
    spare = next((each for each in containers if each is not best), None)
    return View(
        service=service,
        container=best,
        spare=spare,
        fits=best is not None and best.fingerprint == fingerprint,
        health=Health.NONE if best is None else seen.health.get(best.id, best.health),
        due=seen.attempts.get(service.name, FRESH).next_start(now),
    )


def leaving(want: Want, containers: Iterable[Container]) -> list[Container]:
    """Return the containers whose service is not in the release any more.

    Absence of information never deletes: a container of a newer generation than
    *want* is not its to judge.
    """
    kept = {service.name for service in want.services}
    return [each for each in containers if each.service not in kept and each.generation <= want.generation]


def unmet(view: View, scene: Scene) -> str:
    """Return what the service still waits for in those it depends on, or nothing."""
    unmet = [
        reason
        for name, condition in view.service.depends_on.items()
        if (reason := _lacks(scene.views[name], condition, scene.want.held))
    ]
    return f"waits for {', '.join(unmet)}" if unmet else ""


def _lacks(other: View, condition: Condition, held: frozenset[str]) -> str:
    name = other.service.name
    if name in held:
        return f"{name}, which a stop command holds"
    match condition:
        case Condition.STARTED:
            return "" if other.running or other.completed else f"{name} to start"
        case Condition.HEALTHY:
            healthy = other.running and other.health is Health.HEALTHY
            return "" if healthy else f"{name} to be healthy"
        case Condition.COMPLETED:
            return "" if other.completed else f"{name} to complete"
        case _:
            assert_never(condition)


def crowded(view: View, scene: Scene) -> str:
    """Return what must be gone before the service's container may be made or started, or nothing."""
    if view.container is None and scene.leaving:
        return f"waits until {scene.leaving[0].service}, which is in the release no more, is gone"
    for port in _ports(view.service):
        if (holder := scene.old_ports.get(port)) is not None:
            return f"waits until the old container of {holder} has given up port {port[0]}"
    return ""


def _ports(service: ServiceManifest) -> list[tuple[int, str]]:
    return [(each.host, each.protocol) for each in service.ports if each.host is not None]
