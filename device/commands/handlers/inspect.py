"""What the engine knows of one service, or of all."""

from __future__ import annotations

import json
from typing import Any

from device.commands.tools import Answer, Tools, find
from device.engine.protocol import NoSuchContainer
from schemas.commands import MAX_INLINE


async def inspect(service: str | None, tools: Tools) -> Answer:
    """Return the engine's own description, without environments. Raises `FleetError`."""
    if service is not None:
        container = await find(service, tools.engine)
        return Answer(service, {"services": _fit({service: await tools.engine.inspect(container.id)})})
    found: dict[str, Any] = {}
    for container in await tools.engine.containers():
        try:
            found[container.service] = await tools.engine.inspect(container.id)
        except NoSuchContainer:
            continue  # removed since the listing
    return Answer(f"{len(found)} services", {"services": _fit(found)})


def _fit(services: dict[str, Any]) -> dict[str, Any]:
    """Return *services* with the descriptions left out for which there is no room."""
    room = MAX_INLINE
    fitting: dict[str, Any] = {}
    for name, description in services.items():
        room -= len(json.dumps(description).encode())
        fitting[name] = description if room > 0 else {"omitted": "too large; inspect this service alone"}
    return fitting
