"""A container engine in memory that behaves: for tests, simulations and machines without Docker.

What it holds outlives the agent that uses it, as Docker's containers do: give
the same object to the next agent. Time comes from `now` alone; whoever turns a
clock by hand calls `world.settle()` so that waiting readers notice at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from device.engine.behaviour import Behaviour
from device.engine.memory_world import KILLED, Box, World, digest, fail
from device.engine.names import container_name, network_name, volume_name
from device.engine.protocol import (
    Container,
    ContainerSpec,
    ContainerStats,
    EngineEvent,
    EngineInfo,
    EngineRefused,
    ImageNotFound,
    NoSuchContainer,
    ProbeAnswer,
    Progress,
)
from schemas.desired import HttpCheck, TcpCheck
from schemas.errors import ErrorCode, problem
from schemas.reported import Health

TERMINATED = 143
_IMAGE_BYTES = 2_000_000
_NO_BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType({})


class MemoryEngine:
    """The `Engine` of one device, in memory; `world` has the knobs that disturb it."""

    def __init__(
        self,
        device: UUID,
        *,
        now: Callable[[], datetime],
        behaviours: Mapping[str, Behaviour] = _NO_BEHAVIOURS,
    ) -> None:
        """Bind to *device*; *behaviours* by image win over what an image's name asks for."""
        self.world = World(device, now=now, behaviours=behaviours)
        self._device = device
        self._calls = 0

    @property
    def calls(self) -> int:
        """Calls made so far."""
        return self._calls

    async def info(self) -> EngineInfo:
        """Return what this engine is."""
        await self._enter("info")
        return EngineInfo("memory", "1", "none", {"images": sorted(self.world.images)})

    async def containers(self) -> list[Container]:
        """Return every container, oldest first."""
        await self._enter("containers")
        return [self._seen(box) for box in self.world.boxes.values()]

    async def image_id(self, image: str) -> str | None:
        """Return the digest of *image* once it has been pulled."""
        await self._enter("image_id")
        return digest(image) if image in self.world.images else None

    async def pull(self, image: str, progress: Progress | None = None) -> str:
        """Make *image* present, as its behaviour says."""
        await self._enter("pull")
        self.world.actions.append(("pull", image))
        behaviour = self.world.behaviour(image)
        if progress is not None:
            progress(image, 0, _IMAGE_BYTES)
        await self.world.let_pass(behaviour.pull_takes)
        if behaviour.pull_fails is not None:
            fail(behaviour.pull_fails, f"pulling {image}", element=image)
        if progress is not None:
            progress(image, _IMAGE_BYTES, _IMAGE_BYTES)
        self.world.images.add(image)
        return digest(image)

    async def create(self, spec: ContainerSpec) -> str:
        """Create the service's container."""
        await self._enter("create")
        service = spec.service
        if service.image not in self.world.images:
            text = f"creating {service.name}: the device does not have {service.image}; pull it first"
            raise ImageNotFound(problem(ErrorCode.IMAGE_NOT_FOUND, text, element=service.image))
        if (code := self.world.behaviour(service.image).create_fails) is not None:
            fail(code, f"creating {service.name}", element=service.name)
        name = container_name(self._device, service.name)
        if (former := self.world.find(name)) is not None:
            if former.running is not None:
                text = f"creating {service.name}: a container called {name} runs; stop it first"
                raise EngineRefused(problem(ErrorCode.ENGINE_REFUSED, text, element=service.name))
            self.world.drop(former)
        self.world.actions.append(("create", service.name))
        self.world.networks.add(network_name(self._device))
        for volume in service.volumes:
            self.world.volumes.setdefault(volume_name(self._device, volume.name), 0)
        return self.world.add(name, spec).id

    async def start(self, container: str) -> None:
        """Start a container."""
        await self._enter("start")
        if self.world.get(container).running is not None:
            return
        behaviour = self.world.behaviour(self.world.get(container).spec.service.image)
        await self.world.let_pass(behaviour.start_takes)
        box = self.world.get(container)
        self.world.actions.append(("start", box.service))
        if behaviour.start_fails is not None:
            fail(behaviour.start_fails, f"starting {box.service}", element=box.service)
        volumes = [volume_name(self._device, each.name) for each in box.spec.service.volumes]
        self.world.begin(box, behaviour, volumes)

    async def stop(self, container: str, *, grace: float) -> None:
        """Stop a container; one that takes longer than *grace* is killed."""
        await self._enter("stop")
        box = self.world.find(container)
        if box is None or box.running is None:
            return
        takes = box.running.behaviour.stop_takes
        self.world.actions.append(("stop", box.service))
        await self.world.let_pass(min(takes, grace))
        self.world.end(box, KILLED if takes > grace else TERMINATED)

    async def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        await self._enter("remove")
        if (box := self.world.find(container)) is not None:
            self.world.actions.append(("remove", box.service))
            self.world.drop(box)

    async def logs(self, container: str, *, tail: int, since: datetime | None = None) -> list[str]:
        """Return the newest *tail* lines."""
        await self._enter("logs")
        return _tail(self.world.get(container), tail, since)

    async def follow(self, container: str, *, tail: int, since: datetime | None = None) -> AsyncIterator[str]:
        """Yield lines until the container ends."""
        await self._enter("follow")
        box = self.world.get(container)
        seen, run = box.printed, box.running
        for line in _tail(box, tail, since):
            yield line
        while True:
            new, seen = box.printed_after(seen), box.printed
            for line in new:
                yield line
            if run is None or box.running is not run:
                return
            await self.world.nap()
            await self.world.admit()

    async def stats(self, container: str) -> ContainerStats:
        """Return counters of a running container."""
        await self._enter("stats")
        box = self.world.get(container)
        run, now = box.running, self.world.now()
        if run is None:
            raise NoSuchContainer(problem(ErrorCode.SERVICE_UNKNOWN, f"{box.service} does not run"))
        age = (now - run.started_at).total_seconds()
        return ContainerStats(
            at=now,
            cpu_seconds=age * run.behaviour.cpu_share,
            memory_used_bytes=run.behaviour.memory_bytes,
            memory_limit_bytes=box.spec.service.resources.memory_bytes,
            net_received_bytes=int(age * 1000),
            net_sent_bytes=int(age * 500),
            block_read_bytes=0,
            block_written_bytes=0,
            pids=1,
        )

    async def probe(self, container: str, check: HttpCheck | TcpCheck) -> ProbeAnswer:
        """Say what a check from outside would meet."""
        await self._enter("probe")
        box = self.world.find(container)
        if box is None or (run := box.running) is None:
            return ProbeAnswer(passed=False, reason="the container does not run")
        forced = box.forced_health
        if not (run.well(self.world.now()) if forced is None else forced is Health.HEALTHY):
            return ProbeAnswer(passed=False, reason="connection refused")
        if isinstance(check, TcpCheck):
            return ProbeAnswer(passed=True, reason="connected")
        status = run.behaviour.http_status
        return ProbeAnswer(passed=status < 400, reason=f"status {status}")  # noqa: PLR2004 - HTTP

    async def inspect(self, container: str) -> dict[str, Any]:
        """Return what is known of a container."""
        await self._enter("inspect")
        box = self.world.get(container)
        return {
            "id": box.id,
            "name": box.name,
            "image": box.spec.service.image,
            "state": box.state.value,
            "health": self.world.health(box).value,
            "exit_code": box.exit_code,
            "starts": box.starts,
        }

    async def events(self) -> AsyncIterator[EngineEvent]:
        """Yield what happens from now on; raises once the engine is down."""
        await self._enter("events")
        queue: deque[EngineEvent] = deque()
        self.world.readers.append(queue)
        try:
            while True:
                while queue:
                    yield queue.popleft()
                await self.world.nap()
                await self.world.admit()
        finally:
            self.world.readers[:] = [each for each in self.world.readers if each is not queue]

    async def purge(self, *, volumes: bool) -> list[str]:
        """Remove everything and return the names."""
        await self._enter("purge")
        world = self.world
        gone = [box.name for box in world.boxes.values()] + sorted(world.networks)
        for box in list(world.boxes.values()):
            world.drop(box)
        world.networks.clear()
        if volumes:
            gone += sorted(world.volumes)
            world.volumes.clear()
        return gone

    async def close(self) -> None:
        """Do nothing: what the engine holds outlives its user."""

    async def _enter(self, call: str) -> None:
        self._calls += 1
        await self.world.admit(call)

    def _seen(self, box: Box) -> Container:
        spec, run = box.spec, box.run
        return Container(
            id=box.id,
            name=box.name,
            service=box.service,
            image=spec.service.image,
            image_id=box.image_id,
            fingerprint=spec.service.fingerprint,
            generation=spec.generation,
            state=box.state,
            health=self.world.health(box),
            created_at=box.created_at,
            started_at=None if run is None else run.started_at,
            finished_at=box.finished_at,
            exit_code=box.exit_code,
            oom_killed=box.oom_killed,
            ports=box.ports,
        )


def _tail(box: Box, tail: int, since: datetime | None) -> list[str]:
    lines = [text for at, text in box.log if since is None or at >= since]
    return lines[-tail:] if tail else []
