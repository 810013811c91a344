"""The `Engine` of one device on a Docker daemon.

A listing is one request; what only an inspection tells is remembered for as
long as the listing agrees with it. That keeps an idle agent idle.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from device.engine import docker_reading as reading
from device.engine import names
from device.engine.docker_config import container_config
from device.engine.docker_daemon import Api, Daemon
from device.engine.docker_faults import pull_refusal, unreachable
from device.engine.docker_network import DeviceNetwork, lost_its_network
from device.engine.probing import probe_address
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
from device.engine.threads import Source
from schemas.desired import DockerCheck, HttpCheck, ServiceManifest, TcpCheck
from schemas.errors import ErrorCode, problem

_PULL_STALL: Final = 300.0
"""Seconds without a word after which a pull is given up."""
_EVENTS: Final = ["start", "die", "destroy", "health_status", "oom", "pause", "unpause"]
_REMOVAL_TRIES: Final = 50
_REMOVAL_PAUSE: Final = 0.1
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class DockerEngine:
    """The `Engine` of *device*: what carries its label on one daemon, and nothing else there."""

    def __init__(self, device: UUID, *, now: Callable[[], datetime], daemon: Daemon | None = None) -> None:
        """Bind to *device*; without a *daemon* take the one the `docker` command would use."""
        self._device = device
        self._now = now
        self._daemon = daemon or Daemon()
        self._facts: dict[str, reading.Facts] = {}
        self._network = names.network_name(device)
        self._labels = {names.DEVICE: str(device)}
        self._shared = DeviceNetwork(self._daemon, self._network, self._labels)
        self._ours = {"label": f"{names.DEVICE}={device}"}

    @property
    def calls(self) -> int:
        """Calls made to the daemon so far."""
        return self._daemon.calls

    async def info(self) -> EngineInfo:
        """Return the daemon's version and what its host is."""
        raw = await self._daemon.call("asking the engine about itself", lambda api: api.info())
        return reading.info(raw)

    async def containers(self) -> list[Container]:
        """Return every container of this device, oldest first."""
        listed = await self._daemon.call(
            "listing containers", lambda api: api.containers(all=True, filters=self._ours)
        )
        known: dict[str, reading.Facts] = {}
        found = []
        for entry in listed:
            facts = self._facts.get(entry["Id"])
            if facts is None or not reading.still_true(facts, entry, self._now()):
                try:
                    facts = await self._learn(entry["Id"])
                except NoSuchContainer:
                    continue  # removed since the listing
            known[entry["Id"]] = facts
            found.append(reading.container(entry, facts))
        self._facts = known
        return sorted(found, key=lambda each: (each.created_at or _LONG_AGO, each.name))

    async def image_id(self, image: str) -> str | None:
        """Return the digest of *image* if the daemon has it."""
        raw = await self._image(image)
        return None if raw is None else str(raw["Id"])

    async def pull(self, image: str, progress: Progress | None = None) -> str:
        """Fetch *image* from its registry."""
        repository, tag = reading.split_image(image)
        layers: dict[str, tuple[int, int]] = {}

        def request(api: Api) -> Source[reading.Json]:
            words: Source[reading.Json] = api.pull(repository, tag=tag, stream=True, decode=True)
            return words

        failure = ""
        try:
            async with aclosing(self._daemon.stream(f"pulling {image}", request)) as words:
                while not failure and (word := await _next_word(words)) is not None:
                    failure = str(word.get("error", ""))
                    layers |= reading.layer(word)
                    if progress is not None:
                        done, total = zip(*layers.values(), strict=True) if layers else ((), ())
                        progress(image, sum(done), sum(total))
        except EngineRefused as error:
            failure = error.problem.message.removeprefix(f"pulling {image}: ")
        except TimeoutError:
            failure = f"timeout: no progress for {_PULL_STALL:g} s"
        if failure:
            raise pull_refusal(failure, image=image)
        if (found := await self.image_id(image)) is None:
            raise pull_refusal("not found after the pull", image=image)
        return found

    async def create(self, spec: ContainerSpec) -> str:
        """Create the service's container, its network and its volumes."""
        service = spec.service
        doing = f"creating {service.name}"
        if isinstance(service.health, DockerCheck):
            await self._require_healthcheck(service)
        await self._shared.ensure()
        for volume in service.volumes:
            await self._ensure_volume(names.volume_name(self._device, volume.name))
        name = names.container_name(self._device, service.name)
        await self._make_room(name, doing)
        config = container_config(self._device, spec, init=self._daemon.init)
        made = await self._daemon.call(
            doing,
            lambda api: api.create_container_from_config(config, name),  # type: ignore[no-untyped-call]
            element=service.image,
        )
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        own = await self._own(container)
        self._facts.pop(own, None)
        doing = "starting the container"
        try:
            await self._daemon.call(doing, lambda api: api.start(own), element=container)
        except EngineRefused as error:
            if not lost_its_network(error):
                raise
            await self._shared.rejoin(own)
            await self._daemon.call(doing, lambda api: api.start(own), element=container)

    async def stop(self, container: str, *, grace: float) -> None:
        """Stop a container, killing it after *grace* seconds."""
        seconds = math.ceil(grace)
        try:
            own = await self._own(container)
            self._facts.pop(own, None)
            await self._daemon.call("stopping the container", lambda api: api.stop(own, timeout=seconds))
        except NoSuchContainer:
            return

    async def remove(self, container: str) -> None:
        """Remove a container, running or not; return when it is gone, whoever removes it."""
        for _ in range(_REMOVAL_TRIES):
            try:
                await self._try_to_remove(await self._own(container))
            except NoSuchContainer:
                return
            except EngineRefused as error:
                if "already in progress" not in error.problem.message:
                    raise
            else:
                return
            await asyncio.sleep(_REMOVAL_PAUSE)
        text = f"removing container {container[:12]}: it does not go away"
        raise EngineRefused(problem(ErrorCode.ENGINE_REFUSED, text, retryable=True))

    async def logs(self, container: str, *, tail: int, since: datetime | None = None) -> list[str]:
        """Return the newest *tail* lines."""
        own = await self._own(container)
        if tail == 0:
            return []
        start = None if since is None else since.timestamp()
        raw: bytes = await self._daemon.call(
            "reading logs", lambda api: api.logs(own, tail=tail, since=start)
        )
        return [reading.line(each) for each in raw.removesuffix(b"\n").split(b"\n")] if raw else []

    async def follow(self, container: str, *, tail: int, since: datetime | None = None) -> AsyncIterator[str]:
        """Yield lines until the container ends."""
        own = await self._own(container)
        start = None if since is None else since.timestamp()

        def request(api: Api) -> Source[bytes]:
            return api.logs(own, stream=True, follow=True, tail=tail, since=start)

        rest = b""
        async with aclosing(self._daemon.stream("following logs", request)) as pieces:
            async for piece in pieces:
                *whole, rest = (rest + piece).split(b"\n")
                for each in whole:
                    yield reading.line(each)
        if rest:
            yield reading.line(rest)

    async def stats(self, container: str) -> ContainerStats:
        """Return counters of a running container."""
        own = await self._own(container)
        facts = self._facts.get(own) or await self._learn(own)
        raw = await self._daemon.call(
            "reading counters", lambda api: api.stats(own, stream=False, one_shot=True)
        )
        if (found := reading.stats(raw, facts)) is not None:
            return found
        if (await self._learn(own)).running:
            text = f"no counters of container {container[:12]}: are all control groups mounted?"
            raise EngineRefused(problem(ErrorCode.ENGINE_REFUSED, text))
        text = f"container {container[:12]} does not run"
        raise NoSuchContainer(problem(ErrorCode.SERVICE_UNKNOWN, text))

    async def probe(self, container: str, check: HttpCheck | TcpCheck) -> ProbeAnswer:
        """Carry out one check against the container's address on the device's network."""
        known = self._facts.get(container)
        if known is not None and known.address:
            answer = await probe_address(known.address, check.port, check)
            if answer.passed:
                return answer
        try:
            facts = await self._learn(await self._own(container))
        except NoSuchContainer:
            return ProbeAnswer(passed=False, reason="the container is gone")
        if not facts.address:
            return ProbeAnswer(passed=False, reason="the container does not run")
        if known is not None and facts.address == known.address:
            return answer
        return await probe_address(facts.address, check.port, check)

    async def inspect(self, container: str) -> dict[str, Any]:
        """Return the daemon's inspection without the environment."""
        own = await self._own(container)
        raw = await self._daemon.call("inspecting the container", lambda api: api.inspect_container(own))
        return reading.without_environment(raw)

    async def events(self) -> AsyncIterator[EngineEvent]:
        """Yield what happens to this device's containers; raises when the daemon goes away."""
        filters = {"type": "container", "event": _EVENTS, **self._ours}

        def request(api: Api) -> Source[reading.Json]:
            told: Source[reading.Json] = api.events(filters=filters, decode=True)
            return told

        doing = "watching containers"
        async with aclosing(self._daemon.stream(doing, request)) as raws:
            async for raw in raws:
                event = reading.event(raw)
                self._facts.pop(event.container, None)
                yield event
        raise unreachable("the stream of events ended", doing=doing)

    async def purge(self, *, volumes: bool) -> list[str]:
        """Remove everything of this device."""
        call = self._daemon.call
        boxes = await call("purging", lambda api: api.containers(all=True, filters=self._ours))
        for box in boxes:
            await self.remove(box["Id"])
        gone = [reading.name(box) for box in boxes]
        for network in await call("purging", lambda api: api.networks(filters=self._ours)):
            await call("purging", partial(Api.remove_network, net_id=network["Id"]))
            gone.append(str(network["Name"]))
        if volumes:
            listed = await call("purging", lambda api: api.volumes(filters=self._ours))
            for volume in listed.get("Volumes") or []:
                await call("purging", partial(Api.remove_volume, name=volume["Name"]))
                gone.append(str(volume["Name"]))
        return gone

    async def close(self) -> None:
        """Let go of connections."""
        await self._daemon.close()

    async def _own(self, container: str) -> str:
        """Return the id of one of our containers. Raises `NoSuchContainer`."""
        if container in self._facts:
            return container
        raw = await self._daemon.call(
            "looking the container up", lambda api: api.inspect_container(container)
        )
        if raw["Config"]["Labels"].get(names.DEVICE) != str(self._device):
            text = f"container {container[:12]} is not this device's"
            raise NoSuchContainer(problem(ErrorCode.SERVICE_UNKNOWN, text))
        self._facts[str(raw["Id"])] = reading.facts(raw, self._network)
        return str(raw["Id"])

    async def _try_to_remove(self, own: str) -> None:
        self._facts.pop(own, None)
        await self._daemon.call(
            "removing the container", lambda api: api.remove_container(own, force=True, v=True)
        )

    async def _learn(self, container: str) -> reading.Facts:
        raw = await self._daemon.call(
            "inspecting the container", lambda api: api.inspect_container(container)
        )
        found = reading.facts(raw, self._network)
        self._facts[container] = found
        return found

    async def _image(self, image: str) -> reading.Json | None:
        try:
            found: reading.Json = await self._daemon.call(
                "looking the image up",
                lambda api: api.inspect_image(image),  # type: ignore[no-untyped-call]
                element=image,
            )
        except ImageNotFound:
            return None
        return found

    async def _require_healthcheck(self, service: ServiceManifest) -> None:
        image = await self._image(service.image)
        if image is not None and not reading.has_healthcheck(image):
            text = f"creating {service.name}: {service.image} has no HEALTHCHECK; give the service a check"
            raise EngineRefused(problem(ErrorCode.ENGINE_REFUSED, text, element=service.name))

    async def _ensure_volume(self, name: str) -> None:
        await self._daemon.call(
            "making a volume", lambda api: api.create_volume(name, labels=self._labels), element=name
        )

    async def _make_room(self, name: str, doing: str) -> None:
        """Remove the former container called *name*; refuse where it runs or is not ours."""
        try:
            own = await self._own(name)
        except NoSuchContainer:
            return
        raw = await self._daemon.call(doing, lambda api: api.inspect_container(own))
        if raw["State"]["Running"]:
            text = f"{doing}: a container called {name} runs; stop it first"
            raise EngineRefused(problem(ErrorCode.ENGINE_REFUSED, text, element=name))
        await self.remove(own)


async def _next_word(words: AsyncIterator[reading.Json]) -> reading.Json | None:
    async with asyncio.timeout(_PULL_STALL):
        return await anext(words, None)
