"""From a container spec to what the Docker Engine API wants (`POST /containers/create`, API 1.41)."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from device.engine.names import container_labels, network_name, volume_name
from device.engine.protocol import ContainerSpec
from schemas.desired import DockerCheck, ExecCheck, HealthCheck, Resources, ServiceManifest

_NANOSECONDS = 1_000_000_000


def container_config(device: UUID, spec: ContainerSpec, *, init: str) -> dict[str, Any]:
    """Return the body of a create request. *init*: version of the host's init program, empty without one."""
    service = spec.service
    network = network_name(device)
    config: dict[str, Any] = {
        "Image": service.image,
        "Env": [f"{key}={value}" for key, value in _environment(device, service).items()],
        "Labels": container_labels(device, spec),
        "ExposedPorts": {f"{port.container}/{port.protocol}": {} for port in service.ports},
        "StopTimeout": math.ceil(service.stop_grace),
        "HostConfig": {
            "NetworkMode": network,
            "RestartPolicy": {"Name": "no"},
            "Init": bool(init),
            "Privileged": False,
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}},
            "PortBindings": _bindings(service),
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": volume_name(device, volume.name),
                    "Target": volume.path,
                    "ReadOnly": volume.read_only,
                }
                for volume in service.volumes
            ],
            **_limits(service.resources),
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [service.name]}}},
    }
    if service.command is not None:
        config["Cmd"] = service.command
    if (healthcheck := _healthcheck(service.health)) is not None:
        config["Healthcheck"] = healthcheck
    return config


def _environment(device: UUID, service: ServiceManifest) -> dict[str, str]:
    return {**service.env, "FLEETLINE_DEVICE": str(device), "FLEETLINE_SERVICE": service.name}


def _bindings(service: ServiceManifest) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in service.ports:
        binding = {"HostIp": port.address, "HostPort": "" if port.host is None else str(port.host)}
        bindings.setdefault(f"{port.container}/{port.protocol}", []).append(binding)
    return bindings


def _limits(resources: Resources) -> dict[str, int]:
    limits: dict[str, int] = {}
    if resources.cpus is not None:
        limits["NanoCpus"] = round(resources.cpus * _NANOSECONDS)
    if resources.memory_bytes is not None:
        # Equal limits mean no swap: a service over its memory is ended, not slowed for ever.
        limits["Memory"] = limits["MemorySwap"] = resources.memory_bytes
    if resources.pids is not None:
        limits["PidsLimit"] = resources.pids
    return limits


def _healthcheck(check: HealthCheck | None) -> dict[str, Any] | None:
    """Return the engine's check; None leaves the image's own in place."""
    match check:
        case DockerCheck():
            return None
        case ExecCheck():
            return {
                "Test": ["CMD", *check.command],
                "Interval": _nanoseconds(check.interval),
                "Timeout": _nanoseconds(check.timeout),
                "StartPeriod": _nanoseconds(check.start_period),
                "Retries": check.retries,
            }
        case _:
            return {"Test": ["NONE"]}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * _NANOSECONDS)
