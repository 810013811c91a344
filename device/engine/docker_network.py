"""The one network of a device on a Docker daemon, whatever others do to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from device.engine import names
from device.engine.docker_daemon import Api, Daemon
from device.engine.docker_reading import Json
from device.engine.protocol import EngineRefused

_GONE: Final = re.compile(r"network \S+ not found", re.IGNORECASE)


def lost_its_network(error: EngineRefused) -> bool:
    """Return whether a container could not start because its network was removed after its last run."""
    return _GONE.search(error.problem.message) is not None


class DeviceNetwork:
    """Exactly one network called *name*: Docker takes the same name twice, and then starts nothing on it."""

    def __init__(self, daemon: Daemon, name: str, labels: Mapping[str, str]) -> None:
        self._daemon = daemon
        self._name = name
        self._labels = dict(labels)
        self._one_at_a_time = asyncio.Lock()

    async def ensure(self) -> None:
        """Make the network where it is absent; where there are several, remove what is not in use."""
        async with self._one_at_a_time:
            found = await self._present()
            if not found:
                await self._daemon.call(
                    "making the network",
                    lambda api: api.create_network(self._name, labels=self._labels, check_duplicate=True),
                )
            for each in list(found):
                if len(found) > 1 and await self._removed(each):
                    found.remove(each)

    async def rejoin(self, container: str) -> None:
        """Put a stopped *container* on the network anew: it remembers the id of one that is gone.

        Docker keeps what else is set of the container, its published ports too.
        """
        await self.ensure()
        raw = await self._daemon.call(
            "inspecting the container", lambda api: api.inspect_container(container)
        )
        alias = str(raw["Config"]["Labels"][names.SERVICE])
        doing = "connecting the container with the network"
        leave = partial(Api.disconnect_container_from_network, container=container, net_id=self._name)
        await self._daemon.call(doing, partial(leave, force=True))
        join = partial(Api.connect_container_to_network, container=container, net_id=self._name)
        await self._daemon.call(doing, partial(join, aliases=[alias]))

    async def _present(self) -> list[Json]:
        listed = await self._daemon.call(
            "looking the network up", lambda api: api.networks(names=[self._name])
        )
        return [each for each in listed if each["Name"] == self._name]

    async def _removed(self, network: Json) -> bool:
        try:
            await self._daemon.call(
                "removing a second network", partial(Api.remove_network, net_id=network["Id"])
            )
        except EngineRefused:  # a container is on it
            return False
        return True
