"""Times and durations as people write them in a URL: `-15m`, `now`, `2026-01-31T12:00:00Z`, `30s` (pure)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from schemas.base import UtcDatetime
from schemas.errors import ErrorCode, refuse, shown

DURATION = r"^[1-9][0-9]{0,6}(ms|s|m|h|d|w)$"
MOMENT = (
    r"^(now|-[1-9][0-9]{0,6}(s|m|h|d|w)"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+ -][0-9]{2}:[0-9]{2}))$"
)
_WRITE = "write 2026-01-31T12:00:00Z, -15m or now"
LONGEST = timedelta(days=36_500)
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_TIME: TypeAdapter[datetime] = TypeAdapter(UtcDatetime)


def duration_of(text: str, field: str) -> timedelta:
    """Return the duration written as *text*, such as `30s`."""
    if re.fullmatch(DURATION, text) is None:
        message = f"{field}: {shown(text)} is no stretch of time; write 30s, 5m, 2h or 7d"
        refuse(ErrorCode.VALUE_BAD_CHARACTER, message, field=field)
    number, unit = re.sub(r"[a-z]", "", text), re.sub(r"[0-9]", "", text)
    found = int(number) * _UNITS[unit]
    if found > LONGEST:
        refuse(ErrorCode.VALUE_OUT_OF_RANGE, f"{field}: {shown(text)} is over 100 years", field=field)
    return found


def moment_of(text: str, field: str, now: datetime) -> datetime:
    """Return the time written as *text*, such as `-15m`, `now` or `2026-01-31T12:00:00Z`.

    A `+` that a URL made a space is taken for the `+` it was.
    """
    if re.fullmatch(MOMENT, text) is None:
        message = f"{field}: {shown(text)} is no time; {_WRITE}"
        refuse(ErrorCode.VALUE_BAD_CHARACTER, message, field=field)
    if text == "now":
        return now
    if text.startswith("-"):
        return now - duration_of(text[1:], field)
    try:
        return _TIME.validate_python(text.replace(" ", "+"))
    except ValidationError:
        message = f"{field}: {shown(text)} is no time; {_WRITE}"
        refuse(ErrorCode.VALUE_WRONG_TYPE, message, field=field)
