"""Start, stop and restart a service. The caller holds the service's reservation."""

from __future__ import annotations

from device.commands.tools import Answer, Tools, unknown_service
from device.engine.protocol import Container, ContainerState, NoSuchContainer
from schemas.desired import Desired, ServiceManifest

_GRACE = 10.0
"""Seconds to end, for a container that no desired state describes."""


async def start(service: str, tools: Tools) -> Answer:
    """Start *service* and let the agent keep it again. Raises `FleetError`."""
    container, _ = await _known(service, tools)
    await tools.journal.unhold(service)
    tools.keeper.wake()
    if container is None:
        return Answer(f"{service} has no container yet; the agent makes one")
    if container.state is ContainerState.RUNNING:
        return Answer(f"{service} runs already")
    await _start(container, tools)
    return Answer(f"{service} started")


async def stop(service: str, tools: Tools) -> Answer:
    """Stop *service* and keep it stopped until `start` or a new generation. Raises `FleetError`."""
    container, manifest = await _known(service, tools)
    await tools.journal.hold(service)
    if container is not None:
        await tools.engine.stop(container.id, grace=_grace(manifest))
    tools.keeper.wake()
    return Answer(f"{service} stopped; it stays stopped until a start command or a new generation")


async def restart(service: str, tools: Tools) -> Answer:
    """Stop and start *service*, once; a hold ends. Raises `FleetError`."""
    container, manifest = await _known(service, tools)
    if container is None:
        raise NoSuchContainer(unknown_service(service, await tools.engine.containers()))
    await tools.engine.stop(container.id, grace=_grace(manifest))
    await tools.journal.unhold(service)
    await _start(container, tools)
    tools.keeper.wake()
    return Answer(f"{service} restarted")


async def _start(container: Container, tools: Tools) -> None:
    await tools.engine.start(container.id)
    await tools.journal.unask(container.service)
    await tools.journal.note_start(container.service, tools.now())


async def _known(service: str, tools: Tools) -> tuple[Container | None, ServiceManifest | None]:
    """Return the container and the manifest of *service*; one of them at least, or `service.unknown`."""
    containers = await tools.engine.containers()
    container = next((each for each in containers if each.service == service), None)
    manifest = _manifest(service, await tools.journal.desired())
    if container is None and manifest is None:
        raise NoSuchContainer(unknown_service(service, containers))
    return container, manifest


def _manifest(service: str, desired: Desired | None) -> ServiceManifest | None:
    return None if desired is None else desired.release.service(service)


def _grace(manifest: ServiceManifest | None) -> float:
    return _GRACE if manifest is None else manifest.stop_grace
