"""How the command shows things: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

OUT = Console(highlight=False)
"""Standard output; colours go off with NO_COLOR or when it is no terminal."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIBI = 1024
GOOD, BAD, UNSURE = "green", "red", "yellow"


def as_json(value: Any) -> None:
    """Print *value* as JSON, nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def as_json_line(value: Any) -> None:
    """Print *value* as one line of JSON, for streams."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Return names and what they stand for, without a header; only what they stand for is folded."""
    shown = Table(show_header=False, box=None, pad_edge=False)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> Table:
    """Return a table; cells may hold rich markup, so escape what comes from outside."""
    shown = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold", no_wrap=not column)
    for row in rows:
        shown.add_row(*row)
    return shown


def coloured(text: str, colour: str) -> str:
    """Return *text* in *colour*, escaped."""
    return f"[{colour}]{escape(text)}[/]"


def online_word(online: object) -> str:
    """Return presence for a cell: true, false, or unknown while the cloud has no broker."""
    match online:
        case True:
            return coloured("online", GOOD)
        case False:
            return coloured("offline", BAD)
        case _:
            return coloured("unknown", UNSURE)


def ago(moment: str | None, now: datetime | None = None) -> str:
    """Return how long ago the RFC 3339 *moment* was, such as `12 s ago`."""
    if not moment:
        return "never"
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    for limit, unit, size in ((_MINUTE, "s", 1), (_HOUR, "min", _MINUTE), (_DAY, "h", _HOUR)):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f} {unit} ago"
    return f"{seconds / _DAY:.0f} d ago"


def bytes_word(number: float) -> str:
    """Return a size for people, such as `12.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < _KIBI:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= _KIBI
    return f"{number:.1f} TiB"
