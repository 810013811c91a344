"""What a device shall run: service manifests, the release they make up, the order for one device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_address
from itertools import combinations
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from schemas import SCHEMA_VERSION
from schemas.base import Counter, Document, Id, Name, UtcDatetime
from schemas.errors import ErrorCode, shown
from schemas.reading import CodedValueError

MAX_SERVICES = 100
RESERVED_ENV_PREFIX = "FLEETLINE_"


def _port(number: int) -> int:
    if not 1 <= number <= 65535:  # noqa: PLR2004 - the range of TCP and UDP ports
        message = f"{number} is not a port; use 1 to 65535"
        raise CodedValueError(ErrorCode.PORT_INVALID, message)
    return number


def _known_schema(version: int) -> int:
    if version != SCHEMA_VERSION:
        message = f"version {version} is not known here; use {SCHEMA_VERSION}, or update this side first"
        raise CodedValueError(ErrorCode.SCHEMA_UNSUPPORTED_VERSION, message)
    return version


def _env_name(name: str) -> str:
    if name.upper().startswith(RESERVED_ENV_PREFIX):
        message = (
            f"{shown(name)}: names beginning with {RESERVED_ENV_PREFIX} are set by the agent; choose another"
        )
        raise CodedValueError(ErrorCode.POLICY_RESERVED_NAME, message)
    return name


def _address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        message = f"{shown(text)} is not an IP address"
        raise CodedValueError(ErrorCode.VALUE_OUT_OF_RANGE, message) from None
    return text


Port = Annotated[int, AfterValidator(_port), Field(json_schema_extra={"minimum": 1, "maximum": 65535})]
ImageReference = Annotated[
    str,
    StringConstraints(
        max_length=400,
        pattern=r"^[a-z0-9]+(?:[._/:-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$",
    ),
    Field(examples=["registry.example/shop/web:1.2"]),
]
"""Image name with tag, digest or both."""
EnvName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"), AfterValidator(_env_name)
]
EnvValue = Annotated[str, StringConstraints(max_length=8192)]
Env = Annotated[dict[EnvName, EnvValue], Field(max_length=200)]
ContainerPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00:]{0,254}$"), Field(examples=["/data"])]
Argument = Annotated[str, StringConstraints(max_length=8192)]


class Condition(StrEnum):
    """What a service waits for in one it depends on."""

    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class RestartPolicy(StrEnum):
    """When the agent starts a service again after it ended."""

    ALWAYS = "always"
    ON_FAILURE = "on_failure"
    NEVER = "never"


class _Check(Document):
    interval: Annotated[float, Field(ge=0.5, le=3600, description="Seconds between checks.")] = 10
    timeout: Annotated[float, Field(ge=0.1, le=300, description="Seconds one check may take.")] = 3
    retries: Annotated[int, Field(ge=1, le=100, description="Failures in a row that mean unhealthy.")] = 3
    start_period: Annotated[
        float, Field(ge=0, le=3600, description="Seconds after the start in which failures do not count.")
    ] = 0


class HttpCheck(_Check):
    """Healthy when a GET answers with a status below 400."""

    type: Literal["http"]
    port: Port
    path: Annotated[str, StringConstraints(pattern=r"^/[!-~]{0,500}$")] = "/"


class TcpCheck(_Check):
    """Healthy when a connection is accepted."""

    type: Literal["tcp"]
    port: Port


class ExecCheck(_Check):
    """Healthy when the command inside the container ends with 0."""

    type: Literal["exec"]
    command: Annotated[list[Argument], Field(min_length=1, max_length=100)]


class DockerCheck(_Check):
    """Healthy when the image's own HEALTHCHECK says so; its own timings count."""

    type: Literal["docker"]


HealthCheck = Annotated[HttpCheck | TcpCheck | ExecCheck | DockerCheck, Field(discriminator="type")]


class PortMapping(Document):
    """A port of the container, published on the device."""

    container: Port
    host: Annotated[Port | None, Field(description="Port on the device; absent: any free one.")] = None
    protocol: Literal["tcp", "udp"] = "tcp"
    address: Annotated[
        str,
        StringConstraints(pattern=r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]{2,39})$"),
        AfterValidator(_address),
        Field(description="Device address to listen on; 0.0.0.0 opens it to the network."),
    ] = "127.0.0.1"


class VolumeMount(Document):
    """A named volume of the device, kept over updates."""

    name: Name
    path: ContainerPath
    read_only: bool = False


class Resources(Document):
    """Limits of one service; absent means unlimited."""

    cpus: Annotated[float | None, Field(ge=0.01, le=1024, description="Cores.")] = None
    memory_bytes: Annotated[int | None, Field(ge=6 * 2**20, le=2**50)] = None
    pids: Annotated[int | None, Field(ge=1, le=2**22)] = None


class ServiceManifest(Document):
    """One service of a release."""

    name: Name
    image: ImageReference
    command: Annotated[list[Argument] | None, Field(max_length=200, description="Replaces the image's.")] = (
        None
    )
    env: Env = {}
    ports: Annotated[list[PortMapping], Field(max_length=100)] = []
    volumes: Annotated[list[VolumeMount], Field(max_length=50)] = []
    depends_on: Annotated[dict[Name, Condition], Field(max_length=MAX_SERVICES)] = {}
    health: HealthCheck | None = None
    resources: Resources = Resources()
    restart: RestartPolicy = RestartPolicy.ALWAYS
    stop_grace: Annotated[
        float, Field(ge=0, le=300, description="Seconds from the stop signal to the kill.")
    ] = 10

    @property
    def fingerprint(self) -> str:
        """Hash of what makes its container: equal fingerprints need no new container.

        Not cached: `model_copy` would carry a cached hash over to changed content.
        """
        return digest_of(self)


class Release(Document):
    """An immutable set of services with one version."""

    schema_version: Annotated[int, AfterValidator(_known_schema)] = SCHEMA_VERSION
    name: Name
    version: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"), Field(examples=["1.2.0"])
    ]
    services: Annotated[list[ServiceManifest], Field(description="Empty: run nothing.")]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_services(self.services)
        return self

    @cached_property
    def digest(self) -> str:
        """Hash of the content; one name and version never has two."""
        return digest_of(self)

    def service(self, name: str) -> ServiceManifest | None:
        """Return the service called *name*, or None."""
        return next((each for each in self.services if each.name == name), None)


def digest_of(model: BaseModel) -> str:
    """Return `sha256:...` over *model* without its defaults, so that a new optional field changes nothing."""
    content = json.dumps(
        model.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":")
    )
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def _check_services(services: list[ServiceManifest]) -> None:
    if len(services) > MAX_SERVICES:
        message = f"{len(services)} services; at most {MAX_SERVICES} fit into one release"
        raise CodedValueError(ErrorCode.MANIFEST_TOO_MANY_SERVICES, message)
    by_name = {service.name: service for service in services}
    if len(by_name) != len(services):
        names = [service.name for service in services]
        twice = next(name for name in names if names.count(name) > 1)
        raise CodedValueError(ErrorCode.MANIFEST_DUPLICATE_SERVICE, f"two services are called {twice!r}")
    for service in services:
        _check_dependencies(service, by_name)
    _check_ports(services)
    if circle := find_cycle({name: each.depends_on for name, each in by_name.items()}):
        message = f"services wait for each other: {' -> '.join(circle)}; remove one dependency"
        raise CodedValueError(ErrorCode.MANIFEST_CYCLE, message)


def _check_dependencies(service: ServiceManifest, known: Mapping[str, ServiceManifest]) -> None:
    for name, condition in service.depends_on.items():
        other = known.get(name)
        if other is None:
            message = f"{service.name!r} depends on {name!r}, which is not in the release"
            raise CodedValueError(ErrorCode.MANIFEST_UNKNOWN_DEPENDENCY, message)
        if condition is Condition.HEALTHY and other.health is None:
            message = (
                f"{service.name!r} waits until {name!r} is healthy, but {name!r} has no health check; add one"
            )
            raise CodedValueError(ErrorCode.MANIFEST_NO_HEALTH_CHECK, message)
        if condition is Condition.COMPLETED and other.restart is RestartPolicy.ALWAYS:
            message = f"{service.name!r} waits for {name!r} to complete; set {name!r} to restart on_failure"
            raise CodedValueError(ErrorCode.MANIFEST_CYCLE, message)


def _check_ports(services: Iterable[ServiceManifest]) -> None:
    published = [(each.name, port) for each in services for port in each.ports if port.host is not None]
    taken: dict[tuple[int | None, str], list[tuple[str, PortMapping]]] = {}
    for name, port in published:
        taken.setdefault((port.host, port.protocol), []).append((name, port))
    for (number, protocol), holders in taken.items():
        for (one, first), (other, second) in combinations(holders, 2):
            if _overlap(first.address, second.address):
                message = f"{one!r} and {other!r} both publish port {number}/{protocol}; choose another"
                raise CodedValueError(ErrorCode.PORT_IN_USE, message)


def _overlap(first: str, second: str) -> bool:
    one, other = ip_address(first), ip_address(second)
    same_kind = one.version == other.version
    return same_kind and (one == other or one.is_unspecified or other.is_unspecified)


def find_cycle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Return one circle in *edges* as `[a, b, a]`, or an empty list."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop()
                done.add(name)
            elif name in path:
                return [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                stack.append((name, True))
                stack.extend((other, False) for other in edges.get(name, ()))
    return []


class Desired(Document):
    """What one device shall run, as ordered: `down/desired`. Only a higher generation is news."""

    generation: Annotated[Counter, Field(ge=1)]
    release_id: Id
    release: Release
    deployment: Id | None = None
    issued_at: UtcDatetime


class Target(Document):
    """Which devices: named, or selected by label. Exactly one of the two."""

    devices: Annotated[list[Id] | None, Field(min_length=1, max_length=10_000)] = None
    selector: Annotated[str | None, Field(max_length=1000, examples=["site=lab,model!=nano"])] = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.devices is None) == (self.selector is None):
            message = "give either `devices` or `selector`"
            raise CodedValueError(ErrorCode.FIELD_MISSING, message)
        return self


class AllAtOnce(Document):
    """Every target device gets the release now."""

    kind: Literal["all_at_once"] = "all_at_once"


class DeploymentConfig(Document):
    """An order to bring a release to devices."""

    release: Annotated[
        Annotated[Id, Tag("id")] | Annotated[Release, Tag("inline")],
        Discriminator(lambda value: "id" if isinstance(value, str | UUID) else "inline"),
        Field(description="An inline release, or the id of a stored one."),
    ]
    target: Target
    strategy: AllAtOnce = AllAtOnce()
