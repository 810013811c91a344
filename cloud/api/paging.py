"""Pages of lists that show the newest first."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from schemas.base import Document, UtcDatetime
from schemas.errors import ErrorCode, refuse, shown

_TIME: TypeAdapter[datetime] = TypeAdapter(UtcDatetime)


class PageQuery(Document):
    """Which page, and how long."""

    limit: Annotated[int, Field(ge=1, le=1000, description="Items on one page.")] = 100
    after: Annotated[
        str | None,
        StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"),
        Field(
            description="Where the page starts: `next` of the page before.",
            examples=["2026-01-31T12:00:00Z"],
            json_schema_extra={"format": "date-time"},
        ),
    ] = None


def before(asked: PageQuery) -> datetime | None:
    """Return the time that the page's items lie before; None: start with the newest."""
    if asked.after is None:
        return None
    try:
        return _TIME.validate_python(asked.after)
    except ValidationError:
        message = f"after: {shown(asked.after)} is no `next` of a page before"
        refuse(ErrorCode.VALUE_WRONG_TYPE, message, field="after")
