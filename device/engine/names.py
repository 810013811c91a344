"""How one device's containers, network and volumes are called and labelled in an engine."""

from __future__ import annotations

from uuid import UUID

from device.engine.protocol import ContainerSpec

DEVICE = "io.fleetline.device"
SERVICE = "io.fleetline.service"
GENERATION = "io.fleetline.generation"
RELEASE = "io.fleetline.release"
FINGERPRINT = "io.fleetline.fingerprint"


def network_name(device: UUID) -> str:
    """Return the name of the device's own network; on it a service's name is its host name."""
    return f"fl-{str(device)[:8]}"


def container_name(device: UUID, service: str) -> str:
    """Return the name of *service*'s container."""
    return f"fl-{str(device)[:8]}-{service}"


def volume_name(device: UUID, volume: str) -> str:
    """Return the engine's name of the named volume *volume*."""
    return f"fl-{str(device)[:8]}-{volume}"


def container_labels(device: UUID, spec: ContainerSpec) -> dict[str, str]:
    """Return the labels by which a container is found again and compared."""
    return {
        DEVICE: str(device),
        SERVICE: spec.service.name,
        GENERATION: str(spec.generation),
        RELEASE: str(spec.release_id),
        FINGERPRINT: spec.service.fingerprint,
    }
