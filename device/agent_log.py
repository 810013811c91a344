"""The agent's log: readable lines on stderr, and the last of them kept for diagnostics."""

from __future__ import annotations

import logging
import sys
from collections import deque

from schemas.config import LogLevel

KEPT = 300
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_PACKAGES = ("device", "schemas")


class Recent(logging.Handler):
    """Keeps the last `KEPT` lines."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self._lines.append(self.format(record))

    def lines(self) -> list[str]:
        """Return them, oldest first."""
        return list(self._lines)


def configure(level: LogLevel) -> Recent:
    """Begin logging to stderr at *level* and return what keeps the last lines."""
    formatter = logging.Formatter(_FORMAT)
    recent = Recent()
    stream = logging.StreamHandler(sys.stderr)
    for handler in (recent, stream):
        handler.setFormatter(formatter)
    logging.basicConfig(handlers=[stream, recent], level=logging.WARNING, force=True)
    set_level(level)
    return recent


def set_level(level: LogLevel) -> None:
    """Write as much as *level* asks for; libraries stay at warnings."""
    for name in _PACKAGES:
        logging.getLogger(name).setLevel(level.value.upper())
