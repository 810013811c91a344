"""What to do with a command that had begun when the agent died. Pure: evidence in, a decision out.

Before acting the agent notes the container and when it was started. That is
enough to tell afterwards whether the effect took place.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from device.engine.protocol import Container
from schemas.base import print_time
from schemas.commands import Arguments, Cancel, Diagnostics, Inspect, Logs, Ping, Restart, Start, Stop


class Resume(Enum):
    """How to end a command that was interrupted."""

    AGAIN = auto()
    """Carry it out: it has no effect, or having it twice is the same as once."""
    CONFIRM = auto()
    """Its one effect took place: only the answer is missing."""
    GIVE_UP = auto()
    """What it was about is over: answer that it was interrupted."""


def evidence(containers: Sequence[Container], service: str) -> dict[str, str | None]:
    """Return what identifies the present run of *service*: its container and when that was started."""
    container = next((each for each in containers if each.service == service), None)
    if container is None:
        return {"container": None, "started_at": None}
    started = None if container.started_at is None else print_time(container.started_at)
    return {"container": container.id, "started_at": started}


def resume(
    arguments: Arguments, before: dict[str, str | None] | None, containers: Sequence[Container]
) -> Resume:
    """Say how to end an interrupted command, given the evidence from *before* it acted and the present state.

    A restart that stopped the container but did not start it yet is carried
    out: stopping what is stopped does nothing, so it is started once.
    """
    match arguments:
        case Restart(service=service):
            happened = before is not None and evidence(containers, service) != before
            return Resume.CONFIRM if happened else Resume.AGAIN
        case Logs(follow=True) | Cancel():
            return Resume.GIVE_UP
        case Ping() | Start() | Stop() | Logs() | Inspect() | Diagnostics():
            return Resume.AGAIN
