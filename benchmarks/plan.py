"""Planning for 1,000 services, ten times what a release may hold, beside a bare comparison of hashes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from benchmarks._report import milliseconds
from device.deploy.picture import Observed, Want
from device.deploy.plan import plan
from device.engine.protocol import Container, ContainerState
from schemas.desired import Condition, PortMapping, ServiceManifest
from schemas.reported import PublishedPort

_SERVICES = 1000
_ROUNDS = 50
_NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_RELEASE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")


def main() -> None:
    """Print what a plan takes where nothing, everything and half of it is to be done."""
    services = tuple(_service(number) for number in range(_SERVICES))
    fingerprints = {service.name: service.fingerprint for service in services}
    want = Want(services, fingerprints, 2, _RELEASE)
    images = frozenset(service.image for service in services)
    right = tuple(_container(service, fingerprints[service.name]) for service in services)
    wrong = tuple(_container(service, "other") for service in services)
    cases = {
        "plan, all as it should be": Observed(right, images),
        "plan, nothing there": Observed((), images),
        "plan, no image there": Observed(),
        "plan, every service changed": Observed(wrong, images),
        "plan, every other service gone": Observed(right[::2], images),
    }
    for name, seen in cases.items():
        steps = len(plan(want, seen, _NOON))
        milliseconds(f"{name} ({steps} steps)", _timed(partial(plan, want, seen, _NOON)))
    milliseconds("bare comparison of 1,000 hashes", _timed(partial(_compare, want, right)))


def _timed(work: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def _compare(want: Want, containers: tuple[Container, ...]) -> list[str]:
    found = {each.service: each.fingerprint for each in containers}
    return [name for name, fingerprint in want.fingerprints.items() if found.get(name) != fingerprint]


def _service(number: int) -> ServiceManifest:
    before = {f"service-{number - 1}": Condition.STARTED} if number % 10 else {}
    ports = [PortMapping(container=80, host=10_000 + number)]
    name = f"service-{number}"
    return ServiceManifest(name=name, image=f"shop/app-{number}:1", ports=ports, depends_on=before)


def _container(service: ServiceManifest, fingerprint: str) -> Container:
    [port] = service.ports
    published = PublishedPort(container=port.container, host=port.host or 0, address=port.address)
    return Container(
        id=f"id-{service.name}",
        name=service.name,
        service=service.name,
        image=service.image,
        image_id="sha256:1",
        fingerprint=fingerprint,
        generation=1,
        state=ContainerState.RUNNING,
        started_at=_NOON,
        ports=(published,),
    )
