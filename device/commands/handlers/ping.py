"""Answer that the agent is there."""

from __future__ import annotations

from device import VERSION
from device.commands.tools import Answer, Tools
from schemas.base import print_time


def ping(echo: str, tools: Tools) -> Answer:
    """Return the agent's version and times, and *echo* unchanged."""
    now = tools.now()
    data = {
        "echo": echo,
        "agent_version": VERSION,
        "time": print_time(now),
        "uptime_seconds": round((now - tools.started).total_seconds(), 3),
    }
    return Answer("pong", data)
