"""Building blocks of every message: frozen models, UTC times, ids and names.

`Message` is read leniently (an old reader must accept a newer writer's extra
fields); `Document` is strict (what a person or the cloud orders must fit
exactly). Fields are added with defaults, never renamed or retyped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    UUID4,
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        msg = "the time is outside years 1 to 9999 once converted to UTC"
        raise ValueError(msg) from error


def print_time(moment: datetime) -> str:
    """Return *moment* as RFC 3339 in UTC, with a `Z` and no more digits than it needs."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


UtcDatetime = Annotated[
    AwareDatetime,
    AfterValidator(_to_utc),
    PlainSerializer(print_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"]}),
]
"""An aware time, kept in UTC (RFC 3339 on the wire). A time without a zone is refused."""

Id = Annotated[UUID4, Field(examples=["0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11"])]
"""A UUID4, printed in lower case."""

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN), Field(examples=["web"])]
"""A DNS label (RFC 1123): 1 to 63 of a-z, 0-9 and inner hyphens."""

LABEL_KEY_PATTERN = r"^[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^(?:[A-Za-z0-9](?:[A-Za-z0-9_. /:@+-]{0,125}[A-Za-z0-9])?)?$"
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN), Field(examples=["site"])]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN), Field(examples=["lab"])]
Labels = dict[LabelKey, LabelValue]
"""What a device is known by: `{"site": "lab", "model": "pi-4"}`."""

Text = Annotated[str, StringConstraints(max_length=2000)]
"""A sentence for a person; longer text belongs into logs."""

MAX_COUNTER = 2**53 - 1
Counter = Annotated[int, Field(ge=0, le=MAX_COUNTER)]
"""A number that only grows; every JSON reader holds it exactly."""


class Message(BaseModel):
    """Something that happened. Unknown fields are ignored: the writer may be newer."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, validate_default=True)


class Document(BaseModel):
    """Something that is ordered. Unknown fields are refused: a typing error must not pass in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def to_wire(model: BaseModel) -> bytes:
    """Return *model* as compact UTF-8 JSON, without fields that hold their default `None`."""
    return model.model_dump_json(exclude_none=True).encode()


def jsonable(model: BaseModel) -> dict[str, Any]:
    """Return *model* as plain JSON values, ready for a column or a REST body."""
    return model.model_dump(mode="json", exclude_none=True)
