"""A bundle for support: agent, host, engine, journal, link and the agent's own last words."""

from __future__ import annotations

import asyncio
import resource
import shutil
from pathlib import Path
from typing import Any

from device import VERSION
from device.commands.handlers.logs import newest
from device.commands.ledger import Ledger
from device.commands.tools import Answer, Tools
from device.hardware.detect import detect
from schemas.base import jsonable, print_time
from schemas.commands import MAX_INLINE
from schemas.errors import FleetError

_LOG_SHARE = MAX_INLINE // 2


async def diagnostics(tools: Tools) -> Answer:
    """Return what somebody who helps from afar wants to see first. A silent engine is said, not raised."""
    now = tools.now()
    engine = await _engine(tools)
    link = tools.link.stats
    data = {
        "agent": {
            "version": VERSION,
            "boot": str(tools.boot),
            "started_at": print_time(tools.started),
            "uptime_seconds": round((now - tools.started).total_seconds(), 3),
            "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
        "host": jsonable(await asyncio.to_thread(detect, engine.get("name", ""))),
        "engine": engine,
        "files": await asyncio.to_thread(_files, tools.data_dir),
        "commands": await Ledger(tools.journal.database).counts(),
        "link": {
            "connections": link.connections,
            "published": link.published,
            "received": link.received,
            "session": link.session,
            "last_error": link.last_error,
        },
        "dropped": dict(tools.dropped()),
        "log": newest(tools.recent_log(), limit=_LOG_SHARE),
    }
    return Answer("diagnostics", data)


async def _engine(tools: Tools) -> dict[str, Any]:
    try:
        info = await tools.engine.info()
        containers = await tools.engine.containers()
    except FleetError as error:
        return {"error": str(error)}
    return {
        "name": info.name,
        "version": info.version,
        "architecture": info.architecture,
        "calls": tools.engine.calls,
        "containers": {each.service: each.state.value for each in containers},
    }


def _files(data_dir: Path) -> dict[str, Any]:
    usage = shutil.disk_usage(data_dir)
    sizes = {
        path.name: path.stat().st_size
        for path in sorted(data_dir.iterdir())
        if path.is_file() and path.suffix != ".pem"
    }
    return {"disk_free_bytes": usage.free, "disk_total_bytes": usage.total, "sizes": sizes}
