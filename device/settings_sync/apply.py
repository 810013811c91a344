"""Takes a configuration on: newer ones only, journalled before anything changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from device.agent_log import set_level
from device.journal import Journal
from schemas.config import AgentConfig, Config
from schemas.reported import EventKind

log = logging.getLogger(__name__)


async def take_on(
    config: Config,
    journal: Journal,
    *,
    now: datetime,
    tell: Callable[[EventKind, str | None, str, dict[str, Any]], None],
) -> bool:
    """Accept *config* if its version is newer; return whether it was. Raises `StorageFailed`.

    Whoever works by the configuration reads it from the journal: wake them.
    """
    if not await journal.accept_config(config, now):
        log.debug("configuration %d is not news", config.version)
        return False
    apply_agent(config.agent)
    tell(
        EventKind.CONFIG_APPLIED, None, f"configuration {config.version} applied", {"version": config.version}
    )
    return True


def apply_agent(config: AgentConfig) -> None:
    """Apply what acts at once; intervals are read from the journal by those who keep them."""
    set_level(config.log_level)
